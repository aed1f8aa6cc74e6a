// EWA projection of 3D Gaussians into a pinhole camera (Zwicker et al. 2001; gsplat's frustum clamp and culling).
#pragma once

#include <cstdint>

#include "lanes/lanes.h"

namespace closeup {

// Passed from Python as 23 floats in this order.
struct Camera {
    float rotation[9], translation[3];  // world to camera, row-major
    float fx, fy, cx, cy, width, height;
    float eps2d, near_plane, far_plane, radius_clip;
    float antialiased;                  // 0 or 1
};
constexpr int kCameraFloats = 23;
static_assert(sizeof(Camera) == kCameraFloats * sizeof(float), "Python fills it as a flat array");

struct Group { int64_t begin; int count; };  // up to 16 Gaussians

struct GaussianArrays { const float *means, *quats, *scales, *opacities; };
struct ProjectedArrays {
    float *means2d, *covariances, *whitening, *conics, *depths, *opacities;
    int32_t* radii;
};
struct ProjectedGradients { const float *means2d, *covariances, *depths, *opacities; };
struct GaussianGradients { float *means, *quats, *scales, *opacities, *viewmat; };  // viewmat: 12 floats or null

void project_forward(int64_t count, const Camera& camera, const GaussianArrays& in, const ProjectedArrays& out, int threads);
void project_backward(int64_t count, const Camera& camera, const GaussianArrays& in, const int32_t* radii,
                      const ProjectedGradients& d_out, const GaussianGradients& d_in, int threads);

// 16 Gaussians or surfels as the camera sees them; backward recomputes it.
struct Frame {
    Lanes quat[4], inverse_norm;     // unit quaternion wxyz
    Lanes rotation[9], scale[3];     // world axes of the Gaussian
    Lanes factor[9];                 // camera axes: the columns of rotation times scale
    Lanes x, y, z, inverse_z;        // camera space; inverse_z is 1 behind the near plane
    Lanes slope_x, slope_y;          // x / z and y / z, those of 3D Gaussians clamped to a little more than the frustum
    Mask slope_x_free, slope_y_free; // where the clamp did nothing
    Lanes row_u[3], row_v[3];        // d pixel / d (the Gaussian's own coordinates)
};

// Of 3D Gaussians: covariance = factor factor^T; sharp 2D covariance = [row_u; row_v] [row_u; row_v]^T.
struct Projection : Frame {
    Lanes normal[3];                 // row_u x row_v: its square is the sharp determinant, without cancellation
    Lanes sharp_det;
    Lanes xx, xy, yy, det;           // with eps2d
};

Projection project(const Camera& camera, const Lanes* mean, const Lanes* quat, const Lanes* scale);

CLOSEUP_INLINE Lanes dot(const Lanes* a, const Lanes* b) { return fma(a[0], b[0], fma(a[1], b[1], a[2] * b[2])); }
CLOSEUP_INLINE void cross(const Lanes* a, const Lanes* b, Lanes* out) {
    out[0] = fma(a[1], b[2], -(a[2] * b[1]));
    out[1] = fma(a[2], b[0], -(a[0] * b[2]));
    out[2] = fma(a[0], b[1], -(a[1] * b[0]));
}

// Loads ``count`` <= 16 records of kSize floats, lane i from record begin + i; missing ones repeat the last.
template <int kSize>
CLOSEUP_INLINE void gather(const float* array, int64_t begin, int count, Lanes* out) {
    alignas(64) float lanes[kSize][kLanes];
    for (int i = 0; i < kLanes; i++) {
        const int64_t record = begin + (i < count ? i : count - 1);
        for (int k = 0; k < kSize; k++) lanes[k][i] = array[record * kSize + k];
    }
    for (int k = 0; k < kSize; k++) out[k] = load(lanes[k]);
}

// Stores records; those that are not ``visible`` become zero.
template <int kSize>
CLOSEUP_INLINE void scatter(float* array, int64_t begin, int count, const bool* visible, const Lanes* values) {
    alignas(64) float lanes[kSize][kLanes];
    for (int k = 0; k < kSize; k++) store(lanes[k], values[k]);
    for (int i = 0; i < count; i++)
        for (int k = 0; k < kSize; k++) array[(begin + i) * kSize + k] = visible[i] ? lanes[k][i] : 0.f;
}

}  // namespace closeup
