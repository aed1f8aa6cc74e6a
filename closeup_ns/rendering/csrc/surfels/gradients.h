// From dL/dsigma of a block's pixels to a surfel's gradient row, and from its rows to its gradients.
//
// With the whitening L of cov (L^T L = cov^-1), (u, v) = L (p0 - pixel), h = L^-T g and W = 1 - h . (u, v):
//     sigma = (u^2 + v^2) / (2 W^2),    a = dL/dsigma / W^2,    b = dL/dW = -dL/dsigma (u^2 + v^2) / W^3
//     dL/dp0  = L^T sum a (u, v) - g sum b            dL/dg = -L^-1 sum b (u, v)
//     dL/dcov = -1/2 L^T (sum a (u, v)^T (u, v)) L
// Since W is linear in (u, v), the sum of dL/dsigma = a W^2 needs no moments of its own.
//
// gsplat's gradient_2dgs is m.z times the gradient of M[0:2, 2] of the ray transform M, the other seven entries fixed. That
// moves p0 by d, P by -d q^T (q = -P^T g) and hence cov by d (cov g)^T + (cov g) d^T and g by -g (g . d), so
//     densify = dL/dp0 + 2 dL/dcov cov g - g (g . dL/dg)
//             = L^T (sum a (u, v) - (sum a (u, v)^T (u, v)) h) - g sum b + g (h . sum b (u, v))
#pragma once

#include "tiles/moments.h"
#include "surfels/blend.h"

namespace closeup {

// A gradient row: the channels and then these; for kGeometry a second line with the normal.
enum SurfelMoment { kDSigma, kSurfaceU, kSurfaceV, kSurfaceUU, kSurfaceUV, kSurfaceVV, kTurn, kTurnU, kTurnV, kFilterDX, kFilterDY };
// Fields of a TileSurfel's first line.
enum SeenField { kSeenH1 = 6, kSeenH2, kSeenFilterX, kSeenFilterY };

template <bool kGeometry>
constexpr int surfel_lines() { return kGeometry ? 2 : 1; }

// Fills the moments of 16 surfels in the lanes from surface[pixel], perspective[pixel] and filter[pixel].
CLOSEUP_INLINE void surfel_moments(const Lanes* surface, const Lanes* perspective, const Lanes* filter, const Lanes* seen, int block,
                                   Lanes* out) {
    Lanes a[kVV + 1], b[kVV + 1];
    whitened_moments(surface, seen, block, a);
    whitened_moments(perspective, seen, block, b);
    const Lanes h1 = seen[kSeenH1], h2 = seen[kSeenH2];
    const Lanes linear = fma(h1, a[kU], h2 * a[kV]);
    const Lanes square = fma(h1, fma(h1, a[kUU], 2.f * h2 * a[kUV]), h2 * h2 * a[kVV]);
    out[kSurfaceU] = a[kU], out[kSurfaceV] = a[kV];
    out[kSurfaceUU] = a[kUU], out[kSurfaceUV] = a[kUV], out[kSurfaceVV] = a[kVV];
    out[kTurn] = b[kSum], out[kTurnU] = b[kU], out[kTurnV] = b[kV];
    const Lanes dx = seen[kSeenFilterX] * broadcast(1.f / kFilterScale) - broadcast(static_cast<float>(block_x(block)));
    const Lanes dy = seen[kSeenFilterY] * broadcast(1.f / kFilterScale) - broadcast(static_cast<float>(block_y(block)));
    out[kDSigma] = a[kSum] - 2.f * linear + square, out[kFilterDX] = zero(), out[kFilterDY] = zero();
    for (int pixel = 0; pixel < kLanes; pixel++) {
        out[kDSigma] = out[kDSigma] + filter[pixel];
        out[kFilterDX] = fma(filter[pixel], dx - broadcast(kLaneX[pixel]), out[kFilterDX]);
        out[kFilterDY] = fma(filter[pixel], dy - broadcast(kLaneY[pixel]), out[kFilterDY]);
    }
}

// sigma = kUnscale (u^2 + v^2) / (2 W^2) with the records' scaled whitening.
constexpr float kUnscale = 2.f * kLn2;

// Gradients that come through the surface, from the moments m of a surfel that has one.
inline void surface_gradients(const SurfelRecord& r, const float* m, int64_t g, const SurfelGradients& out) {
    const float turn = -kUnscale * m[kTurn], turn_u = -kUnscale * m[kTurnU], turn_v = -kUnscale * m[kTurnV];
    const float g1 = r.l11 * r.h1, g2 = r.l21 * r.h1 + r.l22 * r.h2, turn_h = turn_u * r.h1 + turn_v * r.h2;
    const auto turned_back = [&](float u, float v, float along_g, float* to) {
        to[0] = kUnscale * r.l11 * u + along_g * g1;
        to[1] = kUnscale * (r.l21 * u + r.l22 * v) + along_g * g2;
    };
    turned_back(m[kSurfaceU], m[kSurfaceV], -turn, out.centers + 2 * g);
    turned_back(m[kSurfaceU] - m[kSurfaceUU] * r.h1 - m[kSurfaceUV] * r.h2, m[kSurfaceV] - m[kSurfaceUV] * r.h1 - m[kSurfaceVV] * r.h2,
                turn_h - turn, out.densify + 2 * g);
    const float d_g2 = -turn_v / r.l22;
    out.perspective[2 * g] = -(turn_u + r.l21 * d_g2) / r.l11;
    out.perspective[2 * g + 1] = d_g2;
}

// Sums surfel g's rows in the fixed order of its slots and converts moments to gradients.
template <int kChannels, bool kGeometry>
void gather_surfel_gradient(const Workspace& w, int64_t g, float opacity, const SurfelGradients& out) {
    alignas(64) float row[2 * kLanes];
    sum_rows<surfel_lines<kGeometry>()>(w, g, row);
    if (!kGeometry) memset(row + kLanes, 0, kLanes * sizeof(float));
    const float *m = row + kChannels, *geometry = row + kLanes;
    const bool touched = w.tiles_touched[g] > 0;
    const SurfelRecord empty = {};
    const SurfelRecord& r = touched ? w.surfels[g] : empty;
    for (int k = 0; k < w.channels; k++) out.features[g * w.channels + k] = row[k];
    for (int k = 0; k < kNormalSize; k++) out.normals[g * kNormalSize + k] = geometry[k];
    out.opacities[g] = touched ? -m[kDSigma] / opacity : 0.f;
    for (int k = 0; k < 2; k++) {
        out.means2d[2 * g + k] = 2.f * m[kFilterDX + k];
        out.centers[2 * g + k] = out.densify[2 * g + k] = out.perspective[2 * g + k] = 0.f;
    }
    covariance_gradient(r, m + kSurfaceUU, out.covariances + 3 * g);
    if (r.l11 > 0.f) surface_gradients(r, m, g, out);
}

}  // namespace closeup
