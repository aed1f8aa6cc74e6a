// The rasteriser's data flow and the memory that one render owns.
//
//   projection.cpp            spherical_harmonics.cpp
//   Gaussians -> 2D mean,     coefficients -> RGB
//   whitening, opacity                |
//            |________________________|
//                     v
//   binning.cpp    [ SplatRecord x N ]   one 64-byte cache line per Gaussian
//                     |  radix sort of N depths, then a counting sort into tiles
//                     v
//                  tile 0: 7 3 9 ..   tile 1: 3 4 ..      "entries": Gaussian ids in depth order, tile after tile
//                     |
//   block_lists.h     v            32 x 32 pixels, 8 x 8 blocks of 4 x 4 pixels; a block is one 16-lane vector
//                  +--+--+--+..    For 16 Gaussians at once: which blocks does the ellipse alpha >= 1/255 reach?
//                  |  |##|##|      One 64-bit mask each, spread into one short list per block.
//                  +--+--+--+      Work then goes only where something is drawn.
//                  |  |  |##|
//                  +--+--+--+
//                     |
//   forward.cpp       v            walks a block's list front to back; transmittance and colour stay in registers
//                  image, alpha
//                     :            (autograd)
//   backward.cpp      v            walks the same lists front to back again. The light that arrives from behind a
//                  one gradient    Gaussian is the pixel's total minus what came before it, so nothing is divided out
//                  row per entry   of the transmittance. 16 Gaussians' gradients are reduced by register transposes.
//                     |
//                     v            rows lie by Gaussian; each sums its own, in a fixed order
//                  gradients per Gaussian
//
// Results are bitwise the same for any number of threads: a tile is one thread's work, a Gaussian's sum is one
// thread's work, and no atomic addition happens anywhere.
//
// Screen-space shape. A conic A dx^2 + 2 B dx dy + C dy^2 loses all digits for long needles, where its terms cancel.
// We carry its whitening instead: u = l11 dx + l21 dy, v = l22 dy, sigma = (u^2 + v^2) / 2, which is never negative.
// It comes straight from the covariance (xx, xy, yy):  l11 = sqrt(yy / det), l21 = -xy / sqrt(yy det), l22 = 1 / sqrt(yy).
// Records hold it scaled, so that alpha = 2^(log2_opacity - u^2 - v^2).
#pragma once

#include <cstdint>
#include <vector>

#include "tiles/buffer.h"
#include "lanes/lanes.h"
#include "surfels/records.h"

// With CLOSEUP_WIDEST_ONLY the blends for the most channels serve every count: each of the others costs the sanitizers'
// compiler (tests/rendering/sanitize.py) ten seconds and more, and differs in a loop bound.

namespace closeup {

constexpr int kTileSize = 32;
constexpr int kBlockSize = 4;
constexpr int kBlocksPerRow = kTileSize / kBlockSize;
constexpr int kBlocks = kBlocksPerRow * kBlocksPerRow;
constexpr int kChunk = 512;        // entries of a tile that are spread into block lists at a time: they fit the cache
constexpr int kMaxChannels = 7;    // what is left of a cache line
constexpr int kGradientRow = 16;   // floats per gradient row: channels, then the Moment values below

constexpr float kLog2MinAlpha = -7.994353436858858f;  // log2(1 / 255): fainter is skipped
constexpr float kMaxAlpha = 0.999f;
constexpr float kMinTransmittance = 1e-4f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr float kWhiteningScale = 0.8493218002880191f;  // sqrt(log2(e) / 2): exp(-s^2 / 2) = 2^(-(scale s)^2)

// A projected Gaussian. The order of the fields is the order of the lanes after a transpose.
struct alignas(64) SplatRecord {
    float x, y;               // pixels
    float l11, l21, l22;      // scaled whitening
    float log2_opacity;
    float extent_x, extent_y; // half the box of the ellipse alpha >= 1/255, slightly enlarged
    float tip_dy;             // y distance from the centre to the ellipse's rightmost point
    float channels[kMaxChannels];
};
static_assert(sizeof(SplatRecord) == 64, "one cache line");

// The same Gaussian seen from a tile: whitened coordinates of the tile's first pixel centre.
struct alignas(64) TileSplat {
    float u0, v0, l11, l21, l22, log2_opacity, unused[3];
    float channels[kMaxChannels];
};
static_assert(sizeof(TileSplat) == 64, "one cache line");

// What a gradient row holds after the channels. u and v are scaled whitened offsets of mean - pixel.
enum Moment { kSum, kU, kV, kUU, kUV, kVV, kAbsX, kAbsY };

struct alignas(64) GradientRow { float values[kGradientRow]; };

// Block lists of one chunk of a tile: entries of block b are entries[offsets[b] .. offsets[b + 1]).
struct ChunkLists {
    Buffer<uint16_t> entries;
    uint32_t offsets[kBlocks + 1];
};

struct TileRect { int16_t x0, x1, y0, y1; };  // tiles x0 <= x < x1, y0 <= y < y1

// Per-thread scratch.
struct Scratch {
    Buffer<TileSplat> splats;
    Buffer<TileSurfel> surfels;
    Buffer<uint16_t> lists;  // kBlocks lists of kChunk
    Buffer<float> gradient_rows;  // of one chunk
};

struct Workspace {
    int width = 0, height = 0, tiles_x = 0, tiles_y = 0, channels = 0, threads = 1;
    int64_t count = 0;                    // Gaussians
    bool keep_lists = false;              // backward will follow
    bool expected_depth = false;          // the last channel is divided by alpha
    Buffer<SplatRecord> records;          // by Gaussian
    Buffer<SurfelRecord> surfels;         // by Gaussian, 2DGS only, as is the next
    Buffer<float> offset_depths;          // by pixel: the blended depth, measured from surfels/tile.h's tile_depth
    Buffer<TileRect> rects;               // by Gaussian
    Buffer<int32_t> tiles_touched;        // by Gaussian
    Buffer<int64_t> first_slot;           // by Gaussian: where its gradient rows begin, one per tile it touches
    Buffer<int32_t> entries;              // Gaussian ids, tile after tile, front to back
    Buffer<int64_t> slot_of_entry;        // by entry: its gradient row
    Buffer<int64_t> first_entry;          // by tile
    std::vector<std::vector<ChunkLists>> lists;  // by tile, by chunk; capacity is kept between renders
    std::vector<int> chunks;              // by tile: how many of them are in use
    Buffer<GradientRow> gradient_rows;    // by slot: a Gaussian's rows lie side by side (2DGS: one or two per slot)
    Buffer<uint32_t> keys, keys_swap;     // depth sort
    Buffer<int32_t> order, order_swap;
    std::vector<int64_t> histogram;       // by thread and tile
    std::vector<Scratch> scratch;         // by thread

    int tiles() const { return tiles_x * tiles_y; }
};

// Pointers into the caller's arrays, all row-major and contiguous; see c_api.cpp for the shapes.
struct SplatArrays {
    const float *means2d, *whitening, *opacities, *depths, *features;
    const int32_t* radii;
};
struct ImageArrays { float *channels, *alphas; };
struct ImageGradients { const float *channels, *alphas, *d_channels, *d_alphas; };
struct SplatGradients { float *means2d, *covariances, *opacities, *features, *absolute; };

// One render's lists: start_bins, then touched_tiles for every Gaussian, then sort_into_tiles. bin_splats is all of it.
void start_bins(Workspace& w);
int touched_tiles(Workspace& w, int64_t g);  // sets the rectangle of the record's box; how many tiles it has
void sort_into_tiles(Workspace& w, const float* depths);
void set_extent(SplatRecord& r, float reach);  // the box of the ellipse u^2 + v^2 <= reach
void bin_splats(Workspace& w, const SplatArrays& splats);
void rasterize_forward(Workspace& w, const ImageArrays& image);
void rasterize_backward(Workspace& w, const ImageGradients& image, const float* opacities, const SplatGradients& out);

}  // namespace closeup
