// Gradients of the projection of surfels, 16 at a time. Names: d_x is the gradient of the loss with respect to x.
#include "projection/adjoint.h"
#include "surfels/projection.h"

namespace closeup {
namespace {

// offset = -P q / (1 - |q|^2): to P's rows and the tilt.
void add_through_offset(const Surfel& s, const Lanes* d_offset, RowGradients& d, Lanes* d_tilt) {
    const Lanes scaled_u = -d_offset[0] / s.one_sigma_rest, scaled_v = -d_offset[1] / s.one_sigma_rest;
    const Lanes through_rest = 2.f * fma(s.offset[0], d_offset[0], s.offset[1] * d_offset[1]) / s.one_sigma_rest;
    for (int j = 0; j < 2; j++) {
        d.u[j] = fma(scaled_u, s.tilt[j], d.u[j]);
        d.v[j] = fma(scaled_v, s.tilt[j], d.v[j]);
        d_tilt[j] = fma(s.row_u[j], scaled_u, fma(s.row_v[j], scaled_v, through_rest * s.tilt[j]));
    }
}

// P^T g = -q, so with h = P^-1 d_g: d_q = -h and d_P = -g h^T. Nothing where the surfel is seen edge-on.
void add_through_perspective_vector(const Surfel& s, const Lanes* d_perspective, RowGradients& d, Lanes* d_tilt) {
    const Lanes* g = s.perspective;
    const Lanes h[2] = {fma(s.row_v[1], d_perspective[0], -(s.row_u[1] * d_perspective[1])) * s.inverse_det,
                        fma(s.row_u[0], d_perspective[1], -(s.row_v[0] * d_perspective[0])) * s.inverse_det};
    for (int j = 0; j < 2; j++) {
        d.u[j] = fnma(g[0], h[j], d.u[j]);
        d.v[j] = fnma(g[1], h[j], d.v[j]);
        d_tilt[j] = d_tilt[j] - h[j];
    }
}

// tilt = (depth of the tangents) / z.
void add_through_tilt(const Surfel& s, const Lanes* d_tilt, Lanes* d_factor, Lanes* d_mean) {
    for (int j = 0; j < 2; j++) {
        const Lanes d = d_tilt[j] * s.inverse_z;
        d_factor[6 + j] = d_factor[6 + j] + d;
        d_mean[2] = fnma(d, s.tilt[j], d_mean[2]);
    }
}

// The gradients of 16 surfels' projection, to the factor and the camera-space mean.
void to_factor_and_mean(const Camera& c, const Surfel& s, const ProjectedSurfelGradients& d_out, Group group,
                        Lanes* d_factor, Lanes* d_mean) {
    const auto [begin, count] = group;
    Lanes d_center[2], d_cov[3], d_perspective[2], d_means2d[2], d_normal[3], d_depth[1], d_tilt[2];
    gather<2>(d_out.centers, begin, count, d_center);
    gather<3>(d_out.covariances, begin, count, d_cov);
    gather<2>(d_out.perspective, begin, count, d_perspective);
    gather<2>(d_out.means2d, begin, count, d_means2d);
    gather<3>(d_out.normals, begin, count, d_normal);
    gather<1>(d_out.depths, begin, count, d_depth);
    RowGradients d_rows = through_covariance<2>(s, d_cov);
    add_through_offset(s, d_means2d, d_rows, d_tilt);
    add_through_perspective_vector(s, d_perspective, d_rows, d_tilt);
    for (int i = 0; i < 2; i++) d_center[i] = d_center[i] + d_means2d[i];
    through_perspective<2>(c, s, d_rows, d_center, d_depth[0], d_factor, d_mean);
    add_through_tilt(s, d_tilt, d_factor, d_mean);
    for (int i = 0; i < 3; i++) d_factor[3 * i + 2] = s.toward * d_normal[i];
}

void backward_group(const Camera& c, const GaussianArrays& in, const int32_t* radii, const ProjectedSurfelGradients& d_out,
                    const GaussianGradients& d_in, Group group, Lanes* viewmat_sum) {
    const auto [begin, count] = group;
    const Visible visible(radii, group);
    Lanes d_mean[3] = {}, d_quat[4] = {}, d_scale[3] = {}, d_opacity[1] = {};
    if (visible.any) {
        Lanes mean[3], quat[4], scale[3], d_factor[9], d_camera_mean[3], d_rotation[9];
        gather<3>(in.means, begin, count, mean);
        gather<4>(in.quats, begin, count, quat);
        gather<3>(in.scales, begin, count, scale);
        gather<1>(d_out.opacities, begin, count, d_opacity);
        const Surfel s = project_surfel(c, mean, quat, scale);
        to_factor_and_mean(c, s, d_out, group, d_factor, d_camera_mean);
        through_factor(c, s, d_factor, d_scale, d_rotation);
        d_scale[2] = zero();  // a surfel has no thickness: its third axis is a unit normal
        through_quaternion(s, d_rotation, d_quat);
        through_camera(c, d_camera_mean, d_mean);
        if (viewmat_sum) add_viewmat(s, mean, d_camera_mean, d_factor, visible.mask, viewmat_sum);
    }
    scatter<3>(d_in.means, begin, count, visible.lane, d_mean);
    scatter<4>(d_in.quats, begin, count, visible.lane, d_quat);
    scatter<3>(d_in.scales, begin, count, visible.lane, d_scale);
    scatter<1>(d_in.opacities, begin, count, visible.lane, d_opacity);
}

}  // namespace

void project_surfels_backward(int64_t count, const Camera& camera, const GaussianArrays& in, const int32_t* radii,
                              const ProjectedSurfelGradients& d_out, const GaussianGradients& d_in, int threads) {
    backward_in_blocks(count, d_in.viewmat, threads, [&](Group group, Lanes* viewmat_sum) {
        backward_group(camera, in, radii, d_out, d_in, group, viewmat_sum);
    });
}

}  // namespace closeup
