// The records of surfels: what the blend needs, and an ellipse around all that they draw. See records.h.
#include <cmath>

#include "surfels/blend.h"
#include "surfels/projection.h"

namespace closeup {
namespace {

constexpr float kReachSlack = 1e-5f;    // relative: rounding may only ever enlarge the ellipse
constexpr float kEverywhere = 1e6f;     // pixels: the radius of what is not bounded
constexpr float kNeverDrawn = 1e9f;     // whitened offset of the surface of a disc seen from the side
constexpr float kLargestTilt2 = 1.44f;  // kMinDepthRatio is right up to here; projection culls from 1 on

// Fills the surface's part of a record.
void set_surface(SurfelRecord& r, const SurfelArrays& s, int64_t g) {
    const float *l = s.whitening + 3 * g, *perspective = s.perspective + 2 * g;
    r.h1 = r.h2 = 0.f;
    if (!(l[0] > 0.f)) {
        r.x = 0.f, r.y = kNeverDrawn, r.l11 = r.l21 = 0.f, r.l22 = 1.f;
        return;
    }
    r.x = s.centers[2 * g], r.y = s.centers[2 * g + 1];
    r.l11 = kWhiteningScale * l[0], r.l21 = kWhiteningScale * l[1], r.l22 = kWhiteningScale * l[2];
    r.h1 = perspective[0] / r.l11;
    r.h2 = static_cast<float>((perspective[1] - double(r.l21) * perspective[0] / r.l11) / r.l22);
}

// Squared length of the tilt q = d log z / d s, from the ray transform's last row.
float tilt_squared(const float* ray_transform) {
    const float *m = ray_transform + 6, inverse_depth = 1.f / m[2], q0 = m[0] * inverse_depth, q1 = m[1] * inverse_depth;
    return q0 * q0 + q1 * q1;
}

// Fills what block lists are made from: an ellipse around all that is drawn, whitened so that u^2 + v^2 = 1 on it.
void set_ellipse(const Workspace& w, SplatRecord& out, const SurfelArrays& s, int64_t g, float tilt2, float reach) {
    const float *l = s.whitening + 3 * g, *cov = s.covariances + 3 * g, area = l[0] > 0.f ? 1.f / (l[0] * l[2]) : 0.f;
    const SurfelShape shape = {{s.centers[2 * g], s.centers[2 * g + 1]}, {s.means2d[2 * g], s.means2d[2 * g + 1]},
                               {cov[0], cov[1], cov[2]}, area, tilt2};
    constexpr float everywhere2 = kEverywhere * kEverywhere;
    Ellipse e = {0.5f * w.width, 0.5f * w.height, everywhere2, 0.f, everywhere2, everywhere2 * everywhere2};
    Ellipse support;
    if (support_ellipse(shape, reach, support) && support.xx < everywhere2 && support.yy < everywhere2) e = support;
    const float l22 = 1.f / std::sqrt(e.yy), inverse_root_det = 1.f / std::sqrt(e.det);
    out.x = e.x, out.y = e.y;
    out.l11 = e.yy * l22 * inverse_root_det, out.l21 = -e.xy * l22 * inverse_root_det, out.l22 = l22;
    out.log2_opacity = 1.f + kLog2MinAlpha;
    set_extent(out, 1.f);
}

// Fills both records and the rectangle of surfel g and returns how many tiles it touches.
int prepare_surfel(Workspace& w, const SurfelArrays& s, int64_t g) {
    if (s.radii[g] <= 0) return 0;
    SurfelRecord& r = w.surfels[g];
    r.log2_opacity = std::log2(s.opacities[g]);
    const float reach = 2.f * kLn2 * (r.log2_opacity - kLog2MinAlpha) * (1.f + kReachSlack);  // of |s|^2
    const float tilt2 = tilt_squared(s.ray_transforms + 9 * g);
    if (!(reach > 0.f && tilt2 < kLargestTilt2)) return 0;
    r.filter_x = s.means2d[2 * g], r.filter_y = s.means2d[2 * g + 1];
    set_surface(r, s, g);
    SplatRecord& bounds = w.records[g];
    set_ellipse(w, bounds, s, g, tilt2, reach);
    for (int k = 0; k < kSurfelChannels; k++) bounds.channels[k] = k < w.channels ? s.features[g * w.channels + k] : 0.f;
    for (int k = 0; k < kNormalSize; k++) bounds.channels[kSurfelChannels + k] = s.normals[g * kNormalSize + k];
    for (float value : bounds.channels)
        if (!std::isfinite(value)) return 0;  // a weight of zero times NaN would colour the whole block
    return touched_tiles(w, g);
}

}  // namespace

void bin_surfels(Workspace& w, const SurfelArrays& surfels) {
    start_bins(w);
    w.surfels.resize(w.count);
#pragma omp parallel for schedule(static) num_threads(w.threads)
    for (int64_t g = 0; g < w.count; g++) w.tiles_touched[g] = prepare_surfel(w, surfels, g);
    sort_into_tiles(w, surfels.depths);
}

}  // namespace closeup
