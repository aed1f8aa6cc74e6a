// Gradients of what the projections of 3D Gaussians and of surfels share. Names: d_x is the gradient with respect to x.
#pragma once

#include <algorithm>
#include <vector>

#include "projection/frame.h"

namespace closeup {

constexpr int kBlockOfGaussians = 1024;  // the camera's gradient is summed per block, then over blocks in order
constexpr int kViewmatFloats = 12;       // rotation and translation, row by row

struct RowGradients { Lanes u[3], v[3]; };

// From the covariance's gradient to the rows whose products it is made of.
template <int kColumns>
CLOSEUP_INLINE RowGradients through_covariance(const Frame& p, const Lanes* d_cov) {
    RowGradients d;
    for (int j = 0; j < kColumns; j++) {
        d.u[j] = fma(2.f * d_cov[0], p.row_u[j], d_cov[1] * p.row_v[j]);
        d.v[j] = fma(2.f * d_cov[2], p.row_v[j], d_cov[1] * p.row_u[j]);
    }
    return d;
}

// row_u = fx / z (factor_x - slope_x factor_z), and alike row_v: to the factor and the camera-space mean.
template <int kColumns>
CLOSEUP_INLINE void through_perspective(const Camera& c, const Frame& p, const RowGradients& d, const Lanes* d_means2d,
                                        Lanes d_depth, Lanes* d_factor, Lanes* d_mean) {
    const Lanes focal_u = c.fx * p.inverse_z, focal_v = c.fy * p.inverse_z;
    Lanes d_log_u = zero(), d_log_v = zero(), d_slope_x = zero(), d_slope_y = zero();
    for (int j = 0; j < kColumns; j++) {
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
CLOSEUP_INLINE void through_factor(const Camera& c, const Frame& p, const Lanes* d_factor, Lanes* d_scale, Lanes* d_rotation) {
    const float* r = c.rotation;
    for (int j = 0; j < 3; j++) d_scale[j] = zero();
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            const Lanes d = r[i] * d_factor[j] + r[3 + i] * d_factor[3 + j] + r[6 + i] * d_factor[6 + j];
            d_rotation[3 * i + j] = d * p.scale[j];
            d_scale[j] = fma(d, p.rotation[3 * i + j], d_scale[j]);
        }
}

CLOSEUP_INLINE void through_quaternion(const Frame& p, const Lanes* r, Lanes* d_quat) {
    const Lanes w = p.quat[0], x = p.quat[1], y = p.quat[2], z = p.quat[3];
    Lanes d[4];
    d[0] = 2.f * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1]));
    d[1] = 2.f * (y * (r[1] + r[3]) + z * (r[2] + r[6]) + w * (r[7] - r[5]) - 2.f * x * (r[4] + r[8]));
    d[2] = 2.f * (x * (r[1] + r[3]) + z * (r[5] + r[7]) + w * (r[2] - r[6]) - 2.f * y * (r[0] + r[8]));
    d[3] = 2.f * (x * (r[2] + r[6]) + y * (r[5] + r[7]) + w * (r[3] - r[1]) - 2.f * z * (r[0] + r[4]));
    const Lanes radial = fma(d[0], w, fma(d[1], x, fma(d[2], y, d[3] * z)));
    for (int i = 0; i < 4; i++) d_quat[i] = fnma(radial, p.quat[i], d[i]) * p.inverse_norm;
}

// From the camera-space mean to the mean.
CLOSEUP_INLINE void through_camera(const Camera& c, const Lanes* d_camera_mean, Lanes* d_mean) {
    const float* r = c.rotation;
    for (int j = 0; j < 3; j++)
        d_mean[j] = r[j] * d_camera_mean[0] + r[3 + j] * d_camera_mean[1] + r[6 + j] * d_camera_mean[2];
}

// Adds the gradient of the 3x4 world-to-camera matrix: means move with it, and factors turn with it.
CLOSEUP_INLINE void add_viewmat(const Frame& p, const Lanes* mean, const Lanes* d_mean, const Lanes* d_factor, Mask visible,
                                Lanes* sum) {
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            Lanes d = d_mean[i] * mean[j];
            for (int k = 0; k < 3; k++) d = fma(d_factor[3 * i + k], p.rotation[3 * j + k] * p.scale[k], d);
            sum[4 * i + j] = sum[4 * i + j] + keep(visible, d);
        }
        sum[4 * i + 3] = sum[4 * i + 3] + keep(visible, d_mean[i]);
    }
}

// Which Gaussians of a group are visible; those that the group lacks are not.
struct Visible {
    bool lane[kLanes] = {false}, any = false;
    Mask mask;

    Visible(const int32_t* radii, Group group) {
        alignas(64) float ones[kLanes] = {0};
        for (int i = 0; i < group.count; i++) {
            lane[i] = radii[group.begin + i] > 0;
            ones[i] = lane[i] ? 1.f : 0.f;
            any |= lane[i];
        }
        mask = above(load(ones), zero());
    }
};

// Calls run(group, sum of the camera's gradient or null) for all groups of 16 and writes the camera's gradient if wanted.
template <class Run>
void backward_in_blocks(int64_t count, float* d_viewmat, int threads, Run run) {
    const int64_t blocks = (count + kBlockOfGaussians - 1) / kBlockOfGaussians;
    std::vector<float> partial(d_viewmat ? blocks * kViewmatFloats : 0);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t block = 0; block < blocks; block++) {
        Lanes sum[kViewmatFloats];
        for (Lanes& s : sum) s = zero();
        const int64_t last = std::min<int64_t>(count, (block + 1) * kBlockOfGaussians);
        for (int64_t begin = block * kBlockOfGaussians; begin < last; begin += kLanes)
            run(Group{begin, static_cast<int>(std::min<int64_t>(kLanes, last - begin))}, d_viewmat ? sum : nullptr);
        if (d_viewmat)
            for (int k = 0; k < kViewmatFloats; k++) partial[block * kViewmatFloats + k] = horizontal_sum(sum[k]);
    }
    if (!d_viewmat) return;
    for (int k = 0; k < kViewmatFloats; k++) {
        double total = 0;
        for (int64_t block = 0; block < blocks; block++) total += partial[block * kViewmatFloats + k];
        d_viewmat[k] = static_cast<float>(total);
    }
}

}  // namespace closeup
