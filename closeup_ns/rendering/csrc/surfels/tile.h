// Surfels inside a tile: seen from it, and where a pixel's ray meets them. See records.h for the formulas.
#pragma once

#include "surfels/blend.h"
#include "tiles/tile_walk.h"

namespace closeup {

// Writes up to 16 surfels as TileSurfels.
CLOSEUP_INLINE void store_tile_surfels(const Workspace& w, const int32_t* ids, int count, Lanes origin_x, Lanes origin_y,
                                       TileSurfel* out) {
    Lanes s[kLanes];
    load_records(w.surfels, ids, count, s);
    const Lanes gx = s[0] - origin_x, gy = s[1] - origin_y;
    Lanes rows[kLanes];
    rows[0] = fma(s[2], gx, s[3] * gy);
    rows[1] = s[4] * gy;
    for (int k = 2; k < 8; k++) rows[k] = s[k];
    rows[8] = kFilterScale * (s[8] - origin_x), rows[9] = kFilterScale * (s[9] - origin_y);
    for (int k = 10; k < kLanes; k++) rows[k] = zero();
    transpose(rows);
    for (int i = 0; i < count; i++) {
        store(&out[i].u0, rows[i]);
        store(out[i].ellipse, load(&w.records[ids[i]].x));
    }
}

// load_chunk of tiles/block_lists.h for surfels.
template <bool kWithMasks, class Visit>
CLOSEUP_INLINE void load_surfel_chunk(const Workspace& w, const Tile& tile, int64_t begin, int count, TileSurfel* out, Visit visit) {
    const Lanes origin_x = broadcast(tile.left + 0.5f), origin_y = broadcast(tile.top + 0.5f);
    for (int i = 0; i < count; i += kLanes) {
        const int32_t* ids = &w.entries[begin + i];
        const int here = std::min(kLanes, count - i);
        prefetch_records(w, w.surfels, begin + i);
        prefetch_records(w, w.records, begin + i);
        store_tile_surfels(w, ids, here, origin_x, origin_y, out + i);
        if (!kWithMasks) continue;
        SplatLanes ellipses;
        load_records(w.records, ids, here, ellipses.field);
        visit_masks(ellipses, ellipses.x() - origin_x, ellipses.y() - origin_y, i, here, visit);
    }
}

// Depths in a tile are measured from its first surfel's (any channel that is the last one, that is): distortion depends
// on their differences only, which would lose their digits beside the distance of the scene.
CLOSEUP_INLINE float tile_depth(const Workspace& w, const Tile& tile) {
    return tile.begin < tile.end ? w.records[w.entries[tile.begin]].channels[w.channels - 1] : 0.f;
}

// The pixels of a block, relative to the tile's first, and scaled as TileSurfel::filter_x is.
struct SurfelPixels { Lanes x, y, filter_x, filter_y; };

CLOSEUP_INLINE SurfelPixels surfel_pixels(int block) {
    const BlockPixels pixel = block_pixels(block);
    return {pixel.x, pixel.y, kFilterScale * pixel.x, kFilterScale * pixel.y};
}

struct Hit {
    Lanes inverse_w;      // depth of the hit in centre depths
    Lanes surface;        // log2(e) |s|^2 / 2
    Lanes dx, dy, filter; // scaled means2d - pixel, and its square: log2(e) |pixel - means2d|^2
    Lanes power;          // log2 of alpha
};

CLOSEUP_INLINE Hit hit_surfel(const TileSurfel& s, const SurfelPixels& pixel) {
    Hit hit;
    const Lanes u = fnma(broadcast(s.l11), pixel.x, fnma(broadcast(s.l21), pixel.y, broadcast(s.u0)));
    const Lanes v = fnma(broadcast(s.l22), pixel.y, broadcast(s.v0));
    const Lanes w = fnma(broadcast(s.h1), u, fnma(broadcast(s.h2), v, broadcast(1.f)));
    hit.inverse_w = reciprocal(maximum(w, broadcast(kMinDepthRatio)));
    hit.surface = fma(u, u, v * v) * (hit.inverse_w * hit.inverse_w);
    hit.dx = broadcast(s.filter_x) - pixel.filter_x, hit.dy = broadcast(s.filter_y) - pixel.filter_y;
    hit.filter = fma(hit.dx, hit.dx, hit.dy * hit.dy);
    hit.power = broadcast(s.log2_opacity) - minimum(hit.surface, hit.filter);
    return hit;
}

}  // namespace closeup
