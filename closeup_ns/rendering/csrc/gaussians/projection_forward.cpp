// Projection of Gaussians, 16 at a time, and the culling of those that no pixel can see.
#include "projection/frame.h"

namespace closeup {
namespace {

constexpr float kFrustumMargin = 0.3f;       // of the half field of view (gsplat)
constexpr float kMinRadiusSpread = 0.01f;    // lower bound of the discriminant in gsplat's 3-sigma radius
constexpr float kMaxSharpness = 1e18f;       // 1 / square pixels: what is thinner than 1e-9 pixels overflows, unseen

// Clamps ratio to [-(c / f) - margin, (size - c) / f + margin]; ``free`` tells where nothing changed.
Lanes clamp_slope(Lanes ratio, float f, float c, float size, Mask& free) {
    const float margin = kFrustumMargin * 0.5f * size / f;
    const Lanes low = broadcast(-(c / f + margin)), high = broadcast((size - c) / f + margin);
    free = both(at_least(ratio, low), at_most(ratio, high));
    return minimum(maximum(ratio, low), high);
}

// Whether any pixel centre can see Gaussian i; writes its 3-sigma radius (0: culled). NaN fails every comparison.
bool cull(const Camera& c, const float* values, int32_t& radius_out) {
    const float x = values[0], y = values[1], z = values[2], opacity = values[3], xx = values[4], yy = values[5], det = values[6];
    radius_out = 0;
    if (!(z > c.near_plane && z < c.far_plane && det > 0.f && opacity >= kMinAlpha)) return false;
    if (!(std::max(xx, yy) < kMaxSharpness * det)) return false;
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
    to_camera(c, mean, quat, scale, p);
    const Lanes one = broadcast(1.f);
    p.inverse_z = one / select(above(p.z, broadcast(c.near_plane)), p.z, one);
    p.slope_x = clamp_slope(p.x * p.inverse_z, c.fx, c.cx, c.width, p.slope_x_free);
    p.slope_y = clamp_slope(p.y * p.inverse_z, c.fy, c.cy, c.height, p.slope_y_free);
    project_columns<3>(c, p);
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
