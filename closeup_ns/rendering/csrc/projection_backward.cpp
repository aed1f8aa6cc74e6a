// Gradients of the projection, 16 Gaussians at a time. Names: d_x is the gradient of the loss with respect to x.
#include <algorithm>
#include <vector>

#include "projection.h"

namespace closeup {
namespace {

constexpr int kBlockOfGaussians = 1024;  // the camera's gradient is summed per block, then over blocks in order
constexpr float kTinySquare = 1e-37f;

struct RowGradients { Lanes u[3], v[3]; };

// From the covariance's gradient to the rows whose products it is made of.
RowGradients through_covariance(const Projection& p, const Lanes* d_cov) {
    RowGradients d;
    for (int j = 0; j < 3; j++) {
        d.u[j] = fma(2.f * d_cov[0], p.row_u[j], d_cov[1] * p.row_v[j]);
        d.v[j] = fma(2.f * d_cov[2], p.row_v[j], d_cov[1] * p.row_u[j]);
    }
    return d;
}

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

// row_u = fx / z (factor_x - slope_x factor_z), and alike row_v: to the factor and the camera-space mean.
void through_perspective(const Camera& c, const Projection& p, const RowGradients& d, const Lanes* d_means2d, Lanes d_depth,
                         Lanes* d_factor, Lanes* d_mean) {
    const Lanes focal_u = c.fx * p.inverse_z, focal_v = c.fy * p.inverse_z;
    Lanes d_log_u = zero(), d_log_v = zero(), d_slope_x = zero(), d_slope_y = zero();
    for (int j = 0; j < 3; j++) {
        d_factor[j] = focal_u * d.u[j];
        d_factor[3 + j] = focal_v * d.v[j];
        d_factor[6 + j] = -fma(p.slope_x, d_factor[j], p.slope_y * d_factor[3 + j]);
        d_log_u = fma(d.u[j], p.row_u[j], d_log_u);
        d_log_v = fma(d.v[j], p.row_v[j], d_log_v);
        d_slope_x = fnma(d_factor[j], p.factor[6 + j], d_slope_x);
        d_slope_y = fnma(d_factor[3 + j], p.factor[6 + j], d_slope_y);
    }
    // Both the unclamped slope and the 2D mean depend on x / z.
    const Lanes d_ratio_x = fma(broadcast(c.fx), d_means2d[0], keep(p.slope_x_free, d_slope_x));
    const Lanes d_ratio_y = fma(broadcast(c.fy), d_means2d[1], keep(p.slope_y_free, d_slope_y));
    d_mean[0] = d_ratio_x * p.inverse_z;
    d_mean[1] = d_ratio_y * p.inverse_z;
    const Lanes along_ray = fma(d_ratio_x, p.x * p.inverse_z, d_ratio_y * (p.y * p.inverse_z));
    d_mean[2] = fnma(along_ray + d_log_u + d_log_v, p.inverse_z, d_depth);
}

// factor = R_camera rotation diag(scale): to the scales and the rotation.
void through_factor(const Camera& c, const Projection& p, const Lanes* d_factor, Lanes* d_scale, Lanes* d_rotation) {
    const float* r = c.rotation;
    for (int j = 0; j < 3; j++) d_scale[j] = zero();
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            const Lanes d = r[i] * d_factor[j] + r[3 + i] * d_factor[3 + j] + r[6 + i] * d_factor[6 + j];
            d_rotation[3 * i + j] = d * p.scale[j];
            d_scale[j] = fma(d, p.rotation[3 * i + j], d_scale[j]);
        }
}

void through_quaternion(const Projection& p, const Lanes* r, Lanes* d_quat) {
    const Lanes w = p.quat[0], x = p.quat[1], y = p.quat[2], z = p.quat[3];
    Lanes d[4];
    d[0] = 2.f * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1]));
    d[1] = 2.f * (y * (r[1] + r[3]) + z * (r[2] + r[6]) + w * (r[7] - r[5]) - 2.f * x * (r[4] + r[8]));
    d[2] = 2.f * (x * (r[1] + r[3]) + z * (r[5] + r[7]) + w * (r[2] - r[6]) - 2.f * y * (r[0] + r[8]));
    d[3] = 2.f * (x * (r[2] + r[6]) + y * (r[5] + r[7]) + w * (r[3] - r[1]) - 2.f * z * (r[0] + r[4]));
    const Lanes radial = fma(d[0], w, fma(d[1], x, fma(d[2], y, d[3] * z)));
    for (int i = 0; i < 4; i++) d_quat[i] = fnma(radial, p.quat[i], d[i]) * p.inverse_norm;
}

// Adds the gradient of the 3x4 world-to-camera matrix: means move with it, and factors turn with it.
void add_viewmat(const Projection& p, const Lanes* mean, const Lanes* d_mean, const Lanes* d_factor, Mask visible, Lanes* sum) {
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            Lanes d = d_mean[i] * mean[j];
            for (int k = 0; k < 3; k++) d = fma(d_factor[3 * i + k], p.rotation[3 * j + k] * p.scale[k], d);
            sum[4 * i + j] = sum[4 * i + j] + keep(visible, d);
        }
        sum[4 * i + 3] = sum[4 * i + 3] + keep(visible, d_mean[i]);
    }
}

struct Group { int64_t begin; int count; };

void backward_group(const Camera& c, const GaussianArrays& in, const int32_t* radii, const ProjectedGradients& d_out,
                    const GaussianGradients& d_in, Group group, Lanes* viewmat_sum) {
    const auto [begin, count] = group;
    bool visible[kLanes] = {false}, any_visible = false;
    alignas(64) float visible_lanes[kLanes] = {0};
    for (int i = 0; i < count; i++) {
        visible[i] = radii[begin + i] > 0;
        visible_lanes[i] = visible[i] ? 1.f : 0.f;
        any_visible |= visible[i];
    }
    Lanes d_mean[3] = {}, d_quat[4] = {}, d_scale[3] = {}, d_opacity[1] = {};
    if (any_visible) {
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
        RowGradients d_rows = through_covariance(p, d_cov);
        if (c.antialiased != 0.f) {
            add_through_compensation(p, d_opacity[0] * opacity[0], c.eps2d, d_rows);
            d_opacity[0] = d_opacity[0] * square_root(p.sharp_det / p.det);
        }
        Lanes d_factor[9], d_rotation[9];
        through_perspective(c, p, d_rows, d_means2d, d_depth[0], d_factor, d_camera_mean);
        through_factor(c, p, d_factor, d_scale, d_rotation);
        through_quaternion(p, d_rotation, d_quat);
        for (int j = 0; j < 3; j++)
            d_mean[j] = c.rotation[j] * d_camera_mean[0] + c.rotation[3 + j] * d_camera_mean[1] + c.rotation[6 + j] * d_camera_mean[2];
        if (viewmat_sum) add_viewmat(p, mean, d_camera_mean, d_factor, above(load(visible_lanes), zero()), viewmat_sum);
    }
    scatter<3>(d_in.means, begin, count, visible, d_mean);
    scatter<4>(d_in.quats, begin, count, visible, d_quat);
    scatter<3>(d_in.scales, begin, count, visible, d_scale);
    scatter<1>(d_in.opacities, begin, count, visible, d_opacity);
}

}  // namespace

void project_backward(int64_t count, const Camera& camera, const GaussianArrays& in, const int32_t* radii,
                      const ProjectedGradients& d_out, const GaussianGradients& d_in, int threads) {
    constexpr int kMatrix = 12;
    const int64_t blocks = (count + kBlockOfGaussians - 1) / kBlockOfGaussians;
    std::vector<float> partial(d_in.viewmat ? blocks * kMatrix : 0);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t block = 0; block < blocks; block++) {
        Lanes sum[kMatrix];
        for (Lanes& s : sum) s = zero();
        const int64_t last = std::min<int64_t>(count, (block + 1) * kBlockOfGaussians);
        for (int64_t begin = block * kBlockOfGaussians; begin < last; begin += kLanes) {
            const Group group = {begin, static_cast<int>(std::min<int64_t>(kLanes, last - begin))};
            backward_group(camera, in, radii, d_out, d_in, group, d_in.viewmat ? sum : nullptr);
        }
        if (d_in.viewmat)
            for (int k = 0; k < kMatrix; k++) partial[block * kMatrix + k] = horizontal_sum(sum[k]);
    }
    if (!d_in.viewmat) return;
    for (int k = 0; k < kMatrix; k++) {
        double total = 0;
        for (int64_t block = 0; block < blocks; block++) total += partial[block * kMatrix + k];
        d_in.viewmat[k] = static_cast<float>(total);
    }
}

}  // namespace closeup
