// Projection of surfels, 16 at a time, and the culling of those that no pixel can see.
#include "projection/frame.h"
#include "surfels/projection.h"

namespace closeup {
namespace {

constexpr float kMinSquaredExtent = 1e-4f;  // pixels^2: lower bound of the one-sigma half extent (gsplat)
constexpr float kRadiusSigmas = 3.f;        // gsplat's radius

// What culling reads, lane by lane.
enum Checked { kCenterX, kCenterY, kOffsetX, kOffsetY, kDepth, kOpacity, kXX, kXY, kYY, kArea, kTilt2, kFinite, kCheckedCount };

bool box_in_image(const Camera& c, float x, float y, float extent_x, float extent_y) {
    return x + extent_x > 0.f && x - extent_x < c.width && y + extent_y > 0.f && y - extent_y < c.height;
}

// Whether the projected disc |s|^2 <= reach or the filter's circle touches the image.
bool reaches_image(const Camera& c, const SurfelShape& s, float reach) {
    const float filter_radius = std::sqrt(0.5f * reach);
    if (box_in_image(c, s.means2d[0], s.means2d[1], filter_radius, filter_radius)) return true;
    if (!(s.area > 0.f)) return false;
    Ellipse disc;
    return !disc_ellipse(s, reach, disc) || box_in_image(c, disc.x, disc.y, std::sqrt(disc.xx), std::sqrt(disc.yy));
}

// Whether any pixel centre can see the surfel; writes gsplat's 3-sigma radius (0: culled). NaN fails every comparison.
bool cull(const Camera& c, const float* v, int32_t& radius_out) {
    radius_out = 0;
    const float depth = v[kDepth], opacity = v[kOpacity], tilt2 = v[kTilt2];
    if (!(depth >= c.near_plane && depth <= c.far_plane && depth > 0.f && tilt2 < 1.f && opacity >= kMinAlpha)) return false;
    if (!(std::isfinite(v[kFinite]) && std::isfinite(opacity))) return false;
    // The box of the one-sigma disc: disc_ellipse's shape with reach 1.
    const float k = 1.f / (1.f - tilt2), offset_x = v[kOffsetX], offset_y = v[kOffsetY];
    const float extent2 = std::max(std::fma(k, v[kXX], offset_x * offset_x), std::fma(k, v[kYY], offset_y * offset_y));
    const float radius = std::ceil(kRadiusSigmas * std::sqrt(std::max(kMinSquaredExtent, extent2)));
    if (!(radius > c.radius_clip && std::isfinite(radius))) return false;
    const SurfelShape shape = {{v[kCenterX], v[kCenterY]}, {v[kCenterX] + offset_x, v[kCenterY] + offset_y},
                               {v[kXX], v[kXY], v[kYY]}, v[kArea], tilt2};
    if (!reaches_image(c, shape, 2.f * std::log(opacity / kMinAlpha))) return false;
    radius_out = static_cast<int32_t>(std::min(radius, kMaxRadius));
    return true;
}

void cull_group(const Camera& camera, const Surfel& s, Lanes opacity, Group group, int32_t* radii, bool* visible) {
    const Lanes edge_on = keep(at_most(absolute(s.inverse_det), zero()), broadcast(1.f));
    // Not finite where any of these is not, or overflows: a quaternion's norm of 0 or infinity included.
    const Lanes finite = s.center[0] + s.center[1] + s.offset[0] + s.offset[1] + s.xx + s.yy + 1.f / s.inverse_norm;
    const Lanes to_check[kCheckedCount] = {s.center[0], s.center[1], s.offset[0], s.offset[1], s.z, opacity, s.xx, s.xy, s.yy,
                                           (1.f - edge_on) * absolute(s.det), s.tilt2, finite};
    alignas(64) float checked[kCheckedCount][kLanes];
    for (int k = 0; k < kCheckedCount; k++) store(checked[k], to_check[k]);
    for (int i = 0; i < group.count; i++) {
        float values[kCheckedCount];
        for (int k = 0; k < kCheckedCount; k++) values[k] = checked[k][i];
        visible[i] = cull(camera, values, radii[group.begin + i]);
    }
}

// (l11, l21, l22) of tiles/workspace.h; zeros where the surfel is seen edge-on.
void whitening_of(const Surfel& s, Lanes* out) {
    const Lanes inverse_area = absolute(s.inverse_det), root_yy = square_root(s.yy);
    const Mask faces = above(inverse_area, zero());
    out[0] = root_yy * inverse_area;
    out[1] = keep(faces, -s.xy * inverse_area / root_yy);
    out[2] = keep(faces, 1.f / root_yy);
}

// Row 0: pixel x, row 1: pixel y, row 2: depth, each times depth, of (tangent, tangent, mean).
void ray_transform_of(const Camera& c, const Surfel& s, Lanes* out) {
    const Lanes x[3] = {s.factor[0], s.factor[1], s.x}, y[3] = {s.factor[3], s.factor[4], s.y};
    const Lanes z[3] = {s.factor[6], s.factor[7], s.z};
    for (int j = 0; j < 3; j++) {
        out[j] = fma(broadcast(c.fx), x[j], c.cx * z[j]);
        out[3 + j] = fma(broadcast(c.fy), y[j], c.cy * z[j]);
        out[6 + j] = z[j];
    }
}

void project_group(const Camera& camera, const GaussianArrays& in, const ProjectedSurfels& out, Group group) {
    const auto [begin, count] = group;
    Lanes mean[3], quat[4], scale[3], opacity[1];
    gather<3>(in.means, begin, count, mean);
    gather<4>(in.quats, begin, count, quat);
    gather<3>(in.scales, begin, count, scale);
    gather<1>(in.opacities, begin, count, opacity);
    const Surfel s = project_surfel(camera, mean, quat, scale);
    bool visible[kLanes];
    cull_group(camera, s, opacity[0], group, out.radii, visible);
    const Lanes covariance[3] = {s.xx, s.xy, s.yy}, means2d[2] = {s.center[0] + s.offset[0], s.center[1] + s.offset[1]};
    Lanes normal[3], ray_transform[9], whitening[3];
    for (int i = 0; i < 3; i++) normal[i] = s.toward * s.factor[3 * i + 2];
    ray_transform_of(camera, s, ray_transform);
    whitening_of(s, whitening);
    scatter<2>(out.centers, begin, count, visible, s.center);
    scatter<3>(out.covariances, begin, count, visible, covariance);
    scatter<2>(out.perspective, begin, count, visible, s.perspective);
    scatter<2>(out.means2d, begin, count, visible, means2d);
    scatter<3>(out.normals, begin, count, visible, normal);
    scatter<1>(out.depths, begin, count, visible, &s.z);
    scatter<1>(out.opacities, begin, count, visible, opacity);
    scatter<9>(out.ray_transforms, begin, count, visible, ray_transform);
    scatter<3>(out.whitening, begin, count, visible, whitening);
}

// The determinant of P, and its inverse where the projected disc is thick enough to be drawn.
void area_of(Surfel& s) {
    s.det = fma(s.row_u[0], s.row_v[1], -(s.row_u[1] * s.row_v[0]));
    const Lanes long_axis = square_root(s.xx + s.yy);  // at least the semi-major axis, at most sqrt(2) times that
    const Lanes short_axis = maximum(broadcast(kMinSemiMinor), kMinAxisRatio * long_axis);
    const Mask faces = above(absolute(s.det), long_axis * short_axis);
    s.inverse_det = keep(faces, 1.f / s.det);
}

}  // namespace

Surfel project_surfel(const Camera& c, const Lanes* mean, const Lanes* quat, const Lanes* scale) {
    Surfel s;
    const Lanes one = broadcast(1.f), flat_scale[3] = {scale[0], scale[1], one};
    to_camera(c, mean, quat, flat_scale, s);
    s.inverse_z = one / select(at_least(s.z, broadcast(c.near_plane)), s.z, one);
    s.slope_x = s.x * s.inverse_z, s.slope_y = s.y * s.inverse_z;
    s.slope_x_free = s.slope_y_free = at_least(one, zero());
    project_columns<2>(c, s);
    const Lanes facing = fma(s.factor[2], s.x, fma(s.factor[5], s.y, s.factor[8] * s.z));
    s.toward = select(above(zero(), facing), one, -one);
    for (int j = 0; j < 2; j++) s.tilt[j] = s.factor[6 + j] * s.inverse_z;
    s.tilt2 = fma(s.tilt[0], s.tilt[0], s.tilt[1] * s.tilt[1]);
    s.one_sigma_rest = one - s.tilt2;
    s.xx = fma(s.row_u[0], s.row_u[0], s.row_u[1] * s.row_u[1]);
    s.xy = fma(s.row_u[0], s.row_v[0], s.row_u[1] * s.row_v[1]);
    s.yy = fma(s.row_v[0], s.row_v[0], s.row_v[1] * s.row_v[1]);
    area_of(s);
    s.perspective[0] = fma(s.row_v[0], s.tilt[1], -(s.row_v[1] * s.tilt[0])) * s.inverse_det;
    s.perspective[1] = fma(s.row_u[1], s.tilt[0], -(s.row_u[0] * s.tilt[1])) * s.inverse_det;
    s.center[0] = fma(broadcast(c.fx), s.slope_x, broadcast(c.cx));
    s.center[1] = fma(broadcast(c.fy), s.slope_y, broadcast(c.cy));
    s.offset[0] = -fma(s.row_u[0], s.tilt[0], s.row_u[1] * s.tilt[1]) / s.one_sigma_rest;
    s.offset[1] = -fma(s.row_v[0], s.tilt[0], s.row_v[1] * s.tilt[1]) / s.one_sigma_rest;
    return s;
}

void project_surfels_forward(int64_t count, const Camera& camera, const GaussianArrays& in, const ProjectedSurfels& out,
                             int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t begin = 0; begin < count; begin += kLanes)
        project_group(camera, in, out, {begin, static_cast<int>(std::min<int64_t>(kLanes, count - begin))});
}

}  // namespace closeup
