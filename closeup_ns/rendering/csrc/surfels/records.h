// Surfels, the flat Gaussians of 2D Gaussian Splatting (Huang et al. 2024), as the blend sees them.
//
// The data flow is that of tiles/workspace.h: an ellipse around everything that a surfel draws goes into a SplatRecord, so that
// tiles, depth order and block lists are found as for 3D Gaussians. What its pixels look like is in a second record.
//
//        disc s -> m + s1 t1 + s2 t2 in camera space, |s| = 1 one standard deviation
//              __
//           .-'  '-.        p0: the projected centre m
//          /   p0   \       cov = P P^T, P = d pixel / d s at p0: what a camera far away would see
//         |  m2d x   |      g: the perspective. A ray that leaves through the pixel p0 + d meets the disc's plane at
//          \        /          depth m.z / W,   W = 1 + g . d,   and at |s|^2 = (u^2 + v^2) / W^2
//           '-.__.-'           with (u, v) = d whitened by cov, as in tiles/workspace.h.
//                           m2d: middle of the box of the projected |s| = 1; the filter disc is centred there.
//
//     sigma = min(|s|^2 / 2, |pixel - m2d|^2)        a disc seen from the side still draws about a pixel
//
// We carry the whitening and h = Whitening^-T g instead of g: then W = 1 - h . (u, v) with (u, v) of p0 - pixel, and the
// three numbers share their rounding. |h| is how fast depth changes along the disc, in centre depths per standard
// deviation, and below 1: where the disc of one standard deviation reaches the camera plane, projection culls. So every
// pixel that draws, |s|^2 <= 2 ln 255, has W >= 1 / (1 + 3.33); see kMinDepthRatio.
//
// A disc seen from the side (whitening zero) draws its filter disc only.
#pragma once

#include <cstdint>

namespace closeup {

constexpr int kSurfelChannels = 4, kNormalSize = 3;  // they fill the 7 channels of a SplatRecord

// W is clamped to this. A pixel with W = 0.2 has |(u, v)| >= 0.8 and so |s|^2 >= 16 > 2 ln 255: it draws nothing, and
// nor does one with a smaller W, be it negative (the plane is hit behind the camera).
constexpr float kMinDepthRatio = 0.2f;
constexpr float kFilterScale = 1.2011224087864498f;  // sqrt(log2(e)): exp(-d^2) = 2^(-(scale d)^2)

// A projected surfel: one cache line beside its SplatRecord, which holds the channels and the normal.
struct alignas(64) SurfelRecord {
    float x, y;                // p0, pixels
    float l11, l21, l22;       // scaled whitening of cov
    float log2_opacity;
    float h1, h2;              // for the scaled whitening
    float filter_x, filter_y;  // means2d, pixels
    float unused[6];
};
static_assert(sizeof(SurfelRecord) == 64, "one cache line");

// The same surfel seen from a tile. The first line is made from a SurfelRecord, the second is a copy of its SplatRecord.
struct alignas(64) TileSurfel {
    float u0, v0, l11, l21, l22, log2_opacity, h1, h2;  // u0, v0: whitened p0 - the tile's first pixel centre
    float filter_x, filter_y;                           // kFilterScale (means2d - the tile's first pixel centre)
    float unused[6];
    float ellipse[9];
    float channels[kSurfelChannels];
    float normal[kNormalSize];
};
static_assert(sizeof(TileSurfel) == 128, "two cache lines");

}  // namespace closeup
