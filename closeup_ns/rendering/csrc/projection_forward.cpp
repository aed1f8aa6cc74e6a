// Projection of Gaussians, 16 at a time, and the culling of those that no pixel can see.
#include "projection.h"

#include <algorithm>

namespace closeup {
namespace {

constexpr float kMinAlpha = 1.f / 255.f;
constexpr float kFrustumMargin = 0.3f;       // of the half field of view (gsplat)
constexpr float kMinRadiusSpread = 0.01f;    // lower bound of the discriminant in gsplat's 3-sigma radius
constexpr float kMaxRadius = 1073741824.f;   // 2^30: still an int

void rotation_of(const Lanes* q, Lanes* r) {
    const Lanes w = q[0], x = q[1], y = q[2], z = q[3];
    r[0] = 1.f - 2.f * fma(y, y, z * z), r[1] = 2.f * fma(x, y, -(w * z)), r[2] = 2.f * fma(x, z, w * y);
    r[3] = 2.f * fma(x, y, w * z), r[4] = 1.f - 2.f * fma(x, x, z * z), r[5] = 2.f * fma(y, z, -(w * x));
    r[6] = 2.f * fma(x, z, -(w * y)), r[7] = 2.f * fma(y, z, w * x), r[8] = 1.f - 2.f * fma(x, x, y * y);
}

// Clamps ratio to [-(c / f) - margin, (size - c) / f + margin]; ``free`` tells where nothing changed.
Lanes clamp_slope(Lanes ratio, float f, float c, float size, Mask& free) {
    const float margin = kFrustumMargin * 0.5f * size / f;
    const Lanes low = broadcast(-(c / f + margin)), high = broadcast((size - c) / f + margin);
    free = both(at_least(ratio, low), at_most(ratio, high));
    return minimum(maximum(ratio, low), high);
}

void to_camera(const Camera& c, const Lanes* mean, Projection& p) {
    const float *r = c.rotation, *t = c.translation;
    Lanes* out[3] = {&p.x, &p.y, &p.z};
    for (int i = 0; i < 3; i++) *out[i] = r[3 * i] * mean[0] + r[3 * i + 1] * mean[1] + r[3 * i + 2] * mean[2] + broadcast(t[i]);
    const Lanes one = broadcast(1.f);
    p.inverse_z = one / select(above(p.z, broadcast(c.near_plane)), p.z, one);
}

// Whether any pixel centre can see Gaussian i; writes its 3-sigma radius (0: culled). NaN fails every comparison.
bool cull(const Camera& c, const float* values, int32_t& radius_out) {
    const float x = values[0], y = values[1], z = values[2], opacity = values[3], xx = values[4], yy = values[5], det = values[6];
    radius_out = 0;
    if (!(z > c.near_plane && z < c.far_plane && det > 0.f && opacity >= kMinAlpha)) return false;
    if (!(std::isfinite(det) && std::isfinite(x) && std::isfinite(y) && std::isfinite(opacity))) return false;
    const float mean_variance = 0.5f * (xx + yy);
    const float spread = std::sqrt(std::max(kMinRadiusSpread, mean_variance * mean_variance - det));
    const float radius = std::ceil(3.f * std::sqrt(mean_variance + spread));
    if (!(radius > c.radius_clip)) return false;
    const float reach = std::sqrt(2.f * std::log(opacity / kMinAlpha));
    const float extent_x = reach * std::sqrt(xx), extent_y = reach * std::sqrt(yy);
    if (!(x + extent_x > 0.f && x - extent_x < c.width && y + extent_y > 0.f && y - extent_y < c.height)) return false;
    radius_out = static_cast<int32_t>(std::min(radius, kMaxRadius));
    return true;
}

void project_group(const Camera& camera, const GaussianArrays& in, const ProjectedArrays& out, int64_t begin, int count) {
    Lanes mean[3], quat[4], scale[3], opacity[1];
    gather<3>(in.means, begin, count, mean);
    gather<4>(in.quats, begin, count, quat);
    gather<3>(in.scales, begin, count, scale);
    gather<1>(in.opacities, begin, count, opacity);
    const Projection p = project(camera, mean, quat, scale);
    const Lanes inverse_det = 1.f / p.det, root_yy = square_root(p.yy);
    if (camera.antialiased != 0.f) opacity[0] = opacity[0] * square_root(p.sharp_det * inverse_det);
    const Lanes means2d[2] = {fma(broadcast(camera.fx), p.x * p.inverse_z, broadcast(camera.cx)),
                              fma(broadcast(camera.fy), p.y * p.inverse_z, broadcast(camera.cy))};
    const Lanes covariance[3] = {p.xx, p.xy, p.yy};
    const Lanes root_inverse = square_root(inverse_det);
    const Lanes whitening[3] = {root_yy * root_inverse, -p.xy * root_inverse / root_yy, 1.f / root_yy};
    const Lanes conic[3] = {p.yy * inverse_det, -p.xy * inverse_det, p.xx * inverse_det};
    alignas(64) float checked[7][kLanes];
    const Lanes to_check[7] = {means2d[0], means2d[1], p.z, opacity[0], p.xx, p.yy, p.det};
    for (int k = 0; k < 7; k++) store(checked[k], to_check[k]);
    bool visible[kLanes];
    for (int i = 0; i < count; i++) {
        float values[7];
        for (int k = 0; k < 7; k++) values[k] = checked[k][i];
        visible[i] = cull(camera, values, out.radii[begin + i]);
    }
    scatter<2>(out.means2d, begin, count, visible, means2d);
    scatter<3>(out.covariances, begin, count, visible, covariance);
    scatter<3>(out.whitening, begin, count, visible, whitening);
    scatter<3>(out.conics, begin, count, visible, conic);
    scatter<1>(out.depths, begin, count, visible, &p.z);
    scatter<1>(out.opacities, begin, count, visible, opacity);
}

}  // namespace

Projection project(const Camera& c, const Lanes* mean, const Lanes* quat, const Lanes* scale) {
    Projection p;
    const Lanes norm2 = fma(quat[3], quat[3], dot(quat, quat));
    p.inverse_norm = 1.f / square_root(norm2);
    for (int i = 0; i < 4; i++) p.quat[i] = quat[i] * p.inverse_norm;
    for (int i = 0; i < 3; i++) p.scale[i] = scale[i];
    rotation_of(p.quat, p.rotation);
    const float* r = c.rotation;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            p.factor[3 * i + j] =
                (r[3 * i] * p.rotation[j] + r[3 * i + 1] * p.rotation[3 + j] + r[3 * i + 2] * p.rotation[6 + j]) * scale[j];
    to_camera(c, mean, p);
    p.slope_x = clamp_slope(p.x * p.inverse_z, c.fx, c.cx, c.width, p.slope_x_free);
    p.slope_y = clamp_slope(p.y * p.inverse_z, c.fy, c.cy, c.height, p.slope_y_free);
    const Lanes focal_u = c.fx * p.inverse_z, focal_v = c.fy * p.inverse_z;
    for (int j = 0; j < 3; j++) {
        p.row_u[j] = focal_u * fnma(p.slope_x, p.factor[6 + j], p.factor[j]);
        p.row_v[j] = focal_v * fnma(p.slope_y, p.factor[6 + j], p.factor[3 + j]);
    }
    cross(p.row_u, p.row_v, p.normal);
    p.sharp_det = dot(p.normal, p.normal);
    const Lanes sharp_xx = dot(p.row_u, p.row_u), sharp_yy = dot(p.row_v, p.row_v), eps = broadcast(c.eps2d);
    p.xx = sharp_xx + eps, p.xy = dot(p.row_u, p.row_v), p.yy = sharp_yy + eps;
    p.det = fma(eps, sharp_xx + sharp_yy + eps, p.sharp_det);
    return p;
}

void project_forward(int64_t count, const Camera& camera, const GaussianArrays& in, const ProjectedArrays& out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t begin = 0; begin < count; begin += kLanes)
        project_group(camera, in, out, begin, static_cast<int>(std::min<int64_t>(kLanes, count - begin)));
}

}  // namespace closeup
