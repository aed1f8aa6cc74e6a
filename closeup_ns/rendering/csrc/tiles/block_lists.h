// The inside of a tile: pixel coordinates of its blocks, Gaussians seen from it, and which blocks each one reaches.
#pragma once

#include <algorithm>

#include "tiles/workspace.h"

namespace closeup {

// Lane i of a block is the pixel (i % 4, i / 4).
alignas(64) constexpr float kLaneX[kLanes] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3};
alignas(64) constexpr float kLaneY[kLanes] = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
constexpr float kSpanSlack = 2e-3f;    // pixels: rounding may only ever enlarge a row's span
constexpr float kAlmostOne = 0.9999f;  // truncate(x + this) is ceil(x), or one less within 1e-4 of a whole number

struct Tile {
    int index, left, top;    // pixels
    int64_t begin, end;      // entries

    Tile(const Workspace& w, int tile)
        : index(tile), left(tile % w.tiles_x * kTileSize), top(tile / w.tiles_x * kTileSize),
          begin(w.first_entry[tile]), end(w.first_entry[tile + 1]) {}
};

CLOSEUP_INLINE int block_x(int block) { return block % kBlocksPerRow * kBlockSize; }
CLOSEUP_INLINE int block_y(int block) { return block / kBlocksPerRow * kBlockSize; }

struct BlockPixels { Lanes x, y; };  // relative to the tile's first pixel

CLOSEUP_INLINE BlockPixels block_pixels(int block) {
    return {load(kLaneX) + broadcast(static_cast<float>(block_x(block))), load(kLaneY) + broadcast(static_cast<float>(block_y(block)))};
}

// Calls visit(lane, pixel index in the image) for each pixel of a block that lies in the image.
template <class Visit>
CLOSEUP_INLINE void for_each_pixel(const Workspace& w, const Tile& tile, int block, Visit visit) {
    const int x0 = tile.left + block_x(block), y0 = tile.top + block_y(block);
    const int columns = std::min(kBlockSize, w.width - x0), rows = std::min(kBlockSize, w.height - y0);
    const auto visit_all = [&](int width, int height) __attribute__((always_inline)) {
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++)
                visit(y * kBlockSize + x, static_cast<int64_t>(y0 + y) * w.width + x0 + x);
    };
    if (columns == kBlockSize && rows == kBlockSize) visit_all(kBlockSize, kBlockSize);  // constants: unrolled
    else visit_all(columns, rows);
}

// Asks for a tile's pixels ahead of their use. Blocks read them in pieces too short for the hardware to see a pattern.
CLOSEUP_INLINE void prefetch_pixels(const Workspace& w, const Tile& tile, const float* image, int channels) {
    constexpr int kFloatsPerLine = 16;
    const int columns = std::min(kTileSize, w.width - tile.left), rows = std::min(kTileSize, w.height - tile.top);
    for (int y = 0; y < rows; y++) {
        const float* row = image + (static_cast<int64_t>(tile.top + y) * w.width + tile.left) * channels;
        for (int i = 0; i < columns * channels; i += kFloatsPerLine) __builtin_prefetch(row + i);
    }
}

// Calls work(channels per pixel), as a constant where the image has exactly kChannels: its loops are then unrolled.
template <int kChannels, class Work>
CLOSEUP_INLINE void with_channels(const Workspace& w, Work work) {
    if (w.channels == kChannels) work(kChannels);
    else work(w.channels);
}

// The channels of a block's pixels, interleaved in ``image``, as lanes. Lanes outside the image are left alone.
template <int kChannels>
CLOSEUP_INLINE void load_pixels(const Workspace& w, const Tile& tile, int block, const float* image, float (*out)[kLanes]) {
    with_channels<kChannels>(w, [&](int channels) __attribute__((always_inline)) {
        for_each_pixel(w, tile, block, [&](int lane, int64_t pixel) __attribute__((always_inline)) {
            for (int k = 0; k < channels; k++) out[k][lane] = image[pixel * channels + k];
        });
    });
}

// The opposite.
template <int kChannels>
CLOSEUP_INLINE void store_pixels(const Workspace& w, const Tile& tile, int block, const float (*in)[kLanes], float* image) {
    with_channels<kChannels>(w, [&](int channels) __attribute__((always_inline)) {
        for_each_pixel(w, tile, block, [&](int lane, int64_t pixel) __attribute__((always_inline)) {
            for (int k = 0; k < channels; k++) image[pixel * channels + k] = in[k][lane];
        });
    });
}

// 16 records as lanes; each member is one field.
struct SplatLanes {
    Lanes field[kLanes];

    Lanes x() const { return field[0]; }
    Lanes y() const { return field[1]; }
    Lanes l11() const { return field[2]; }
    Lanes l21() const { return field[3]; }
    Lanes l22() const { return field[4]; }
    Lanes log2_opacity() const { return field[5]; }
    Lanes extent_x() const { return field[6]; }
    Lanes extent_y() const { return field[7]; }
    Lanes tip_dy() const { return field[8]; }
};

// Asks for the records that load_records will want a little later: ids are in depth order, so they lie anywhere.
template <class Record>
CLOSEUP_INLINE void prefetch_records(const Workspace& w, const Buffer<Record>& records, int64_t entry) {
    constexpr int kAhead = 2 * kLanes;
    const int64_t last = std::min(entry + kAhead + kLanes, static_cast<int64_t>(w.entries.size()));
    for (int64_t e = entry + kAhead; e < last; e++) __builtin_prefetch(&records[w.entries[e]]);
}

// Loads up to 16 records by id as lanes, field by field; missing ones repeat the last.
template <class Record>
CLOSEUP_INLINE void load_records(const Buffer<Record>& records, const int32_t* ids, int count, Lanes* out) {
    for (int i = 0; i < kLanes; i++) out[i] = load(&records[ids[std::min(i, count - 1)]].x);
    transpose(out);
}

// Writes the 16 Gaussians as TileSplats; gx, gy are their centres relative to the tile's first pixel centre.
CLOSEUP_INLINE void store_tile_splats(const SplatLanes& s, Lanes gx, Lanes gy, TileSplat* out) {
    Lanes rows[kLanes];
    rows[0] = fma(s.l11(), gx, s.l21() * gy);
    rows[1] = s.l22() * gy;
    rows[2] = s.l11(), rows[3] = s.l21(), rows[4] = s.l22(), rows[5] = s.log2_opacity();
    for (int k = 6; k < kLanes; k++) rows[k] = s.field[k];
    transpose(rows);
    for (int i = 0; i < kLanes; i++) store(&out[i].u0, rows[i]);
}

// For one row of blocks, 16 Gaussians at once: bit b of the (whole-number) result says that block column b is reached.
// ``top`` is centre y minus the row's first pixel y. The span of x over the 4 pixel rows has its extreme either at the
// first or last of them, or at the ellipse's tip where that lies between.
CLOSEUP_INLINE Lanes reached_columns(const SplatLanes& s, Lanes gx, Lanes top, Lanes reach, Lanes inverse_l11) {
    const Lanes bottom = top - broadcast(kBlockSize - 1.f), extent_y = s.extent_y(), shear = s.l21() * inverse_l11;
    const Mask touched = both(at_most(bottom, extent_y), at_least(top, -extent_y));
    const Lanes high_dy = minimum(top, extent_y), low_dy = maximum(bottom, -extent_y);
    const Lanes high_v = s.l22() * high_dy, low_v = s.l22() * low_dy;
    const Lanes high_half = inverse_l11 * square_root(maximum(fnma(high_v, high_v, reach), zero()));
    const Lanes low_half = inverse_l11 * square_root(maximum(fnma(low_v, low_v, reach), zero()));
    const Lanes high_mid = fma(shear, high_dy, gx), low_mid = fma(shear, low_dy, gx);
    Lanes right = maximum(high_mid + high_half, low_mid + low_half);
    Lanes left = minimum(high_mid - high_half, low_mid - low_half);
    const Lanes tip = s.tip_dy();
    right = select(both(at_most(low_dy, tip), at_most(tip, high_dy)), gx + s.extent_x(), right);
    left = select(both(at_most(low_dy, -tip), at_most(-tip, high_dy)), gx - s.extent_x(), left);
    const Lanes limit = broadcast(kTileSize - 1.f);
    const Mask overlaps = both(touched, both(at_least(right, -broadcast(kSpanSlack)), at_most(left, limit + broadcast(kSpanSlack))));
    left = minimum(maximum(left - broadcast(kSpanSlack), zero()), limit);
    right = minimum(maximum(right + broadcast(kSpanSlack), zero()), limit);
    const Lanes first = truncate(left + broadcast(kAlmostOne)), last = truncate(right);
    const Lanes column = broadcast(1.f / kBlockSize);
    const Lanes bits = exp2_whole(truncate(last * column) + broadcast(1.f)) - exp2_whole(truncate(first * column));
    return keep(both(overlaps, at_most(first, last)), bits);
}

// 64-bit masks of the blocks that each of 16 Gaussians reaches with alpha >= 1/255.
CLOSEUP_INLINE void block_masks(const SplatLanes& s, Lanes gx, Lanes gy, uint64_t* masks) {
    const Lanes inverse_l11 = broadcast(1.f) / s.l11();
    const Lanes reach = (s.log2_opacity() - broadcast(kLog2MinAlpha)) * broadcast(1.00001f);
    Lanes row[kBlocksPerRow];
    for (int r = 0; r < kBlocksPerRow; r++)
        row[r] = reached_columns(s, gx, gy - broadcast(static_cast<float>(r * kBlockSize)), reach, inverse_l11);
    // Three 8-bit rows fit exactly into a float's 24 bits.
    int32_t low[kLanes], middle[kLanes], high[kLanes];
    const Lanes second = broadcast(256.f), third = broadcast(65536.f);
    store_as_int(low, fma(third, row[2], fma(second, row[1], row[0])));
    store_as_int(middle, fma(third, row[5], fma(second, row[4], row[3])));
    store_as_int(high, fma(second, row[7], row[6]));
    for (int i = 0; i < kLanes; i++)
        masks[i] = static_cast<uint64_t>(low[i]) | static_cast<uint64_t>(middle[i]) << 24 | static_cast<uint64_t>(high[i]) << 48;
}

// Calls visit(index in the chunk, block mask) for ``count`` <= 16 Gaussians, the first of which has the index ``first``.
template <class Visit>
CLOSEUP_INLINE void visit_masks(const SplatLanes& s, Lanes gx, Lanes gy, int first, int count, Visit visit) {
    uint64_t masks[kLanes];
    block_masks(s, gx, gy, masks);
    for (int k = 0; k < count; k++) visit(first + k, masks[k]);
}

// Converts a chunk of a tile's entries to TileSplats. With ``visit``, also calls visit(index in the chunk, block mask).
template <bool kWithMasks, class Visit>
CLOSEUP_INLINE void load_chunk(const Workspace& w, const Tile& tile, int64_t begin, int count, TileSplat* out, Visit visit) {
    const Lanes origin_x = broadcast(tile.left + 0.5f), origin_y = broadcast(tile.top + 0.5f);
    for (int i = 0; i < count; i += kLanes) {
        const int here = std::min(kLanes, count - i);
        SplatLanes s;
        prefetch_records(w, w.records, begin + i);
        load_records(w.records, &w.entries[begin + i], here, s.field);
        const Lanes gx = s.x() - origin_x, gy = s.y() - origin_y;
        store_tile_splats(s, gx, gy, out + i);
        if (kWithMasks) visit_masks(s, gx, gy, i, here, visit);
    }
}

}  // namespace closeup
