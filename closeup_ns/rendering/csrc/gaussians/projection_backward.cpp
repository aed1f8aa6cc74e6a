// Gradients of the projection, 16 Gaussians at a time. Names: d_x is the gradient of the loss with respect to x.
#include "projection/adjoint.h"

namespace closeup {
namespace {

constexpr float kTinySquare = 1e-37f;

// Antialiasing multiplies the opacity by c = |n| / sqrt(det), n = row_u x row_v. Differentiating |n| instead of the
// determinant keeps the gradient finite for needles and for Gaussians seen edge-on, where n goes to zero.
void add_through_compensation(const Projection& p, Lanes d_compensation, float eps2d, RowGradients& d) {
    const Lanes inverse_det = 1.f / p.det, root_inverse = square_root(inverse_det);
    const Lanes length = square_root(p.sharp_det);
    const Lanes unit = keep(above(p.sharp_det, broadcast(kTinySquare)), d_compensation * root_inverse / length);
    Lanes d_normal[3], from_u[3], from_v[3];
    // det = |n|^2 + eps (|u|^2 + |v|^2 + eps): its share through |n| ...
    const Lanes d_det = -0.5f * d_compensation * length * root_inverse * inverse_det;
    for (int i = 0; i < 3; i++) d_normal[i] = fma(2.f * d_det, p.normal[i], unit * p.normal[i]);
    cross(p.row_v, d_normal, from_u);
    cross(d_normal, p.row_u, from_v);
    // ... and through the rows' lengths.
    const Lanes through_length = 2.f * eps2d * d_det;
    for (int j = 0; j < 3; j++) {
        d.u[j] = d.u[j] + fma(through_length, p.row_u[j], from_u[j]);
        d.v[j] = d.v[j] + fma(through_length, p.row_v[j], from_v[j]);
    }
}

void backward_group(const Camera& c, const GaussianArrays& in, const int32_t* radii, const ProjectedGradients& d_out,
                    const GaussianGradients& d_in, Group group, Lanes* viewmat_sum) {
    const auto [begin, count] = group;
    const Visible visible(radii, group);
    Lanes d_mean[3] = {}, d_quat[4] = {}, d_scale[3] = {}, d_opacity[1] = {};
    if (visible.any) {
        Lanes mean[3], quat[4], scale[3], opacity[1], d_means2d[2], d_cov[3], d_depth[1], d_camera_mean[3];
        gather<3>(in.means, begin, count, mean);
        gather<4>(in.quats, begin, count, quat);
        gather<3>(in.scales, begin, count, scale);
        gather<1>(in.opacities, begin, count, opacity);
        gather<2>(d_out.means2d, begin, count, d_means2d);
        gather<3>(d_out.covariances, begin, count, d_cov);
        gather<1>(d_out.depths, begin, count, d_depth);
        gather<1>(d_out.opacities, begin, count, d_opacity);
        const Projection p = project(c, mean, quat, scale);
        RowGradients d_rows = through_covariance<3>(p, d_cov);
        if (c.antialiased != 0.f) {
            add_through_compensation(p, d_opacity[0] * opacity[0], c.eps2d, d_rows);
            d_opacity[0] = d_opacity[0] * square_root(p.sharp_det / p.det);
        }
        Lanes d_factor[9], d_rotation[9];
        through_perspective<3>(c, p, d_rows, d_means2d, d_depth[0], d_factor, d_camera_mean);
        through_factor(c, p, d_factor, d_scale, d_rotation);
        through_quaternion(p, d_rotation, d_quat);
        through_camera(c, d_camera_mean, d_mean);
        if (viewmat_sum) add_viewmat(p, mean, d_camera_mean, d_factor, visible.mask, viewmat_sum);
    }
    scatter<3>(d_in.means, begin, count, visible.lane, d_mean);
    scatter<4>(d_in.quats, begin, count, visible.lane, d_quat);
    scatter<3>(d_in.scales, begin, count, visible.lane, d_scale);
    scatter<1>(d_in.opacities, begin, count, visible.lane, d_opacity);
}

}  // namespace

void project_backward(int64_t count, const Camera& camera, const GaussianArrays& in, const int32_t* radii,
                      const ProjectedGradients& d_out, const GaussianGradients& d_in, int threads) {
    backward_in_blocks(count, d_in.viewmat, threads, [&](Group group, Lanes* viewmat_sum) {
        backward_group(camera, in, radii, d_out, d_in, group, viewmat_sum);
    });
}

}  // namespace closeup
