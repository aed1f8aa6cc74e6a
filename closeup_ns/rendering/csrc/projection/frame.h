// What the projections of 3D Gaussians and of surfels share: from the world into the camera's axes and onto the image.
#pragma once

#include <algorithm>

#include "projection/projection.h"

namespace closeup {

constexpr float kMinAlpha = 1.f / 255.f;
constexpr float kShortestQuaternion = 1e-30f; // the gradient of a shorter one is no float32
constexpr float kMaxRadius = 1073741824.f;   // 2^30: still an int

CLOSEUP_INLINE void rotation_of(const Lanes* q, Lanes* r) {
    const Lanes w = q[0], x = q[1], y = q[2], z = q[3];
    r[0] = 1.f - 2.f * fma(y, y, z * z), r[1] = 2.f * fma(x, y, -(w * z)), r[2] = 2.f * fma(x, z, w * y);
    r[3] = 2.f * fma(x, y, w * z), r[4] = 1.f - 2.f * fma(x, x, z * z), r[5] = 2.f * fma(y, z, -(w * x));
    r[6] = 2.f * fma(x, z, -(w * y)), r[7] = 2.f * fma(y, z, w * x), r[8] = 1.f - 2.f * fma(x, x, y * y);
}

// The largest component is divided out first: the square of a quaternion of length 1e20 or 1e-25 is no float32.
CLOSEUP_INLINE void normalize_quaternion(const Lanes* quat, Frame& f) {
    const Lanes largest = maximum(maximum(absolute(quat[0]), absolute(quat[1])), maximum(absolute(quat[2]), absolute(quat[3])));
    const Lanes divisor = keep(above(largest, broadcast(kShortestQuaternion)), largest);  // 0: NaN follows, which is culled
    for (int i = 0; i < 4; i++) f.quat[i] = quat[i] / divisor;
    const Lanes inverse = 1.f / square_root(fma(f.quat[3], f.quat[3], dot(f.quat, f.quat)));
    for (int i = 0; i < 4; i++) f.quat[i] = f.quat[i] * inverse;
    f.inverse_norm = inverse / divisor;
}

// Fills the frame up to the camera-space mean.
CLOSEUP_INLINE void to_camera(const Camera& c, const Lanes* mean, const Lanes* quat, const Lanes* scale, Frame& f) {
    normalize_quaternion(quat, f);
    for (int i = 0; i < 3; i++) f.scale[i] = scale[i];
    rotation_of(f.quat, f.rotation);
    const float *r = c.rotation, *t = c.translation;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            f.factor[3 * i + j] =
                (r[3 * i] * f.rotation[j] + r[3 * i + 1] * f.rotation[3 + j] + r[3 * i + 2] * f.rotation[6 + j]) * scale[j];
    Lanes* out[3] = {&f.x, &f.y, &f.z};
    for (int i = 0; i < 3; i++) *out[i] = r[3 * i] * mean[0] + r[3 * i + 1] * mean[1] + r[3 * i + 2] * mean[2] + broadcast(t[i]);
}

// Fills the first kColumns columns of the pixel derivatives, from the slopes and inverse_z.
template <int kColumns>
CLOSEUP_INLINE void project_columns(const Camera& c, Frame& f) {
    const Lanes focal_u = c.fx * f.inverse_z, focal_v = c.fy * f.inverse_z;
    for (int j = 0; j < kColumns; j++) {
        f.row_u[j] = focal_u * fnma(f.slope_x, f.factor[6 + j], f.factor[j]);
        f.row_v[j] = focal_v * fnma(f.slope_y, f.factor[6 + j], f.factor[3 + j]);
    }
}

}  // namespace closeup
