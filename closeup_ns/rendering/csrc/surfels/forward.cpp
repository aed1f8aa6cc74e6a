// Blends each tile's surfels front to back, as gaussians/forward.cpp does with 3D Gaussians. See records.h and tiles/workspace.h.
//
// Distortion (Huang et al. 2024, Eq. 13 with gsplat's z-depths): L = sum over i of 2 w_i (z_i A_i - D_i), where A_i and
// D_i are the sums of w_j and w_j z_j over j < i.
#include "surfels/tile.h"

namespace closeup {
namespace {

constexpr float kHalfway = 0.5f;  // transmittance at the median depth

// The pixels of one tile while it is blended.
template <int kChannels>
struct TileState : TileLight {
    alignas(64) float channels[kBlocks][kChannels][kLanes];
    alignas(64) float normals[kBlocks][kNormalSize][kLanes];
    alignas(64) float median[kBlocks][kLanes];   // entry of the tile; -1 for none
    alignas(64) float depth[kBlocks][kLanes];    // D above, measured from first_depth
    alignas(64) float distort[kBlocks][kLanes];
    float first_depth;
};

template <int kChannels>
void start_tile(const Workspace& w, const Tile& tile, TileState<kChannels>& state) {
    start_light(w, tile, state);
    memset(state.channels, 0, sizeof state.channels);
    memset(state.normals, 0, sizeof state.normals);
    memset(state.depth, 0, sizeof state.depth);
    memset(state.distort, 0, sizeof state.distort);
    for (float(&block)[kLanes] : state.median)
        for (float& entry : block) entry = -1.f;
    state.first_depth = tile_depth(w, tile);
}

// What one block's pixels have gathered, in registers.
template <int kChannels>
struct Gathered {
    Lanes channels[kChannels], normals[kNormalSize], median, depth, distort;
};

template <int kChannels>
CLOSEUP_INLINE void take(const TileState<kChannels>& state, int block, Gathered<kChannels>& sum) {
    for (int k = 0; k < kChannels; k++) sum.channels[k] = load(state.channels[block][k]);
    for (int k = 0; k < kNormalSize; k++) sum.normals[k] = load(state.normals[block][k]);
    sum.median = load(state.median[block]), sum.depth = load(state.depth[block]), sum.distort = load(state.distort[block]);
}

template <int kChannels>
CLOSEUP_INLINE void put_back(const Gathered<kChannels>& sum, int block, TileState<kChannels>& state) {
    for (int k = 0; k < kChannels; k++) store(state.channels[block][k], sum.channels[k]);
    for (int k = 0; k < kNormalSize; k++) store(state.normals[block][k], sum.normals[k]);
    store(state.median[block], sum.median), store(state.depth[block], sum.depth), store(state.distort[block], sum.distort);
}

// Adds a surfel that has ``weight`` behind ``transmittance``. ``last`` is the channel that is depth.
template <int kChannels, Extra kExtra>
CLOSEUP_INLINE void add_surfel(const TileSurfel& s, int entry, int last, float first_depth, Lanes weight, Mask counts,
                               Lanes transmittance, Gathered<kChannels>& sum) {
    for (int k = 0; k < kChannels; k++) sum.channels[k] = fma(weight, broadcast(s.channels[k]), sum.channels[k]);
    for (int k = 0; k < kNormalSize; k++) sum.normals[k] = fma(weight, broadcast(s.normal[k]), sum.normals[k]);
    if (kExtra == Extra::kNone) return;
    const Mask before_median = both(counts, above(transmittance, broadcast(kHalfway)));
    sum.median = select(before_median, broadcast(static_cast<float>(entry)), sum.median);
    if (kExtra != Extra::kMedianAndDistortion) return;
    const Lanes depth = broadcast(s.channels[last] - first_depth);
    sum.distort = fma(weight, fma(depth, 1.f - transmittance, -sum.depth), sum.distort);
    sum.depth = fma(weight, depth, sum.depth);
}

// Blends ``count`` entries of a block's list; returns whether any pixel still lets light through.
template <int kChannels, Extra kExtra>
CLOSEUP_INLINE bool blend_block(const TileSurfel* surfels, const uint16_t* list, int count, int block, int first_entry, int last,
                                TileState<kChannels>& state) {
    const SurfelPixels pixel = surfel_pixels(block);
    const Lanes min_power = broadcast(kLog2MinAlpha), max_alpha = broadcast(kMaxAlpha), stop = broadcast(kMinTransmittance);
    Lanes transmittance = load(state.transmittance[block]), final_transmittance = load(state.final_transmittance[block]);
    Gathered<kChannels> sum;
    take(state, block, sum);
    constexpr int kCheckEvery = 16;
    for (int j = 0; j < count; j++) {
        const TileSurfel& s = surfels[list[j]];
        const Lanes power = hit_surfel(s, pixel).power;
        const Lanes alpha = keep(at_least(power, min_power), minimum(exp2_lanes(power), max_alpha));
        const Lanes next = fnma(transmittance, alpha, transmittance);
        const Mask open = above(next, stop), counts = both(open, at_least(power, min_power));
        const Lanes weight = keep(open, alpha * transmittance);
        add_surfel<kChannels, kExtra>(s, first_entry + list[j], last, state.first_depth, weight, counts, transmittance, sum);
        final_transmittance = select(open, next, final_transmittance);
        transmittance = next;
        if (j % kCheckEvery == kCheckEvery - 1 && !any(above(transmittance, stop))) break;
    }
    store(state.transmittance[block], transmittance);
    store(state.final_transmittance[block], final_transmittance);
    put_back(sum, block, state);
    return any(above(transmittance, stop));
}

// Writes the median depth and the distortion of a pixel, and keeps what backward needs of them.
template <int kChannels, Extra kExtra>
void finish_extras(Workspace& w, const Tile& tile, const TileState<kChannels>& state, int block, int lane, int64_t pixel,
                   const SurfelImage& image) {
    if (kExtra == Extra::kNone) return;
    const int32_t entry = static_cast<int32_t>(state.median[block][lane]);
    w.median_entries[pixel] = entry;
    image.median[pixel] = entry < 0 ? 0.f : w.records[w.entries[tile.begin + entry]].channels[w.channels - 1];
    if (kExtra != Extra::kMedianAndDistortion) return;
    w.offset_depths[pixel] = state.depth[block][lane];
    image.distort[pixel] = 2.f * state.distort[block][lane];
}

template <int kChannels, Extra kExtra>
void finish_tile(Workspace& w, const Tile& tile, TileState<kChannels>& state, const SurfelImage& image) {
    for (int b = 0; b < kBlocks; b++) {
        finish_block<kChannels>(w, tile, b, state.channels[b], state.final_transmittance[b], image.blend);
        for_each_pixel(w, tile, b, [&](int lane, int64_t pixel) {
            for (int k = 0; k < kNormalSize; k++) image.normals[pixel * kNormalSize + k] = state.normals[b][k][lane];
            finish_extras<kChannels, kExtra>(w, tile, state, b, lane, pixel, image);
        });
    }
}

template <int kChannels, Extra kExtra>
void forward_tile(Workspace& w, const Tile& tile, const SurfelImage& image, Scratch& scratch) {
    TileState<kChannels> state;
    start_tile(w, tile, state);
    scratch.surfels.resize(kChunk);
    TileSurfel* surfels = scratch.surfels.data();
    const int last = w.channels - 1;
    walk_front_to_back(
        w, tile, scratch, state.alive,
        [&](int64_t begin, int count, auto visit) { load_surfel_chunk<true>(w, tile, begin, count, surfels, visit); },
        [&](const uint16_t* list, int count, int block, int first_entry) {
            return blend_block<kChannels, kExtra>(surfels, list, count, block, first_entry, last, state);
        });
    finish_tile<kChannels, kExtra>(w, tile, state, image);
}

template <int kChannels, Extra kExtra>
void forward_all(Workspace& w, const SurfelImage& image) {
    const int64_t pixels = static_cast<int64_t>(w.width) * w.height;
    w.median_entries.resize(image.median ? pixels : 0);
    w.offset_depths.resize(image.distort ? pixels : 0);
    run_tiles(w, [&](const Tile& tile, Scratch& scratch) { forward_tile<kChannels, kExtra>(w, tile, image, scratch); });
}

template <int kChannels>
void forward_with_channels(Workspace& w, const SurfelImage& image) {
    if (image.distort) return forward_all<kChannels, Extra::kMedianAndDistortion>(w, image);
    if (image.median) return forward_all<kChannels, Extra::kMedian>(w, image);
    forward_all<kChannels, Extra::kNone>(w, image);
}

}  // namespace

void rasterize_surfels_forward(Workspace& w, const SurfelImage& image) {
#ifndef CLOSEUP_WIDEST_ONLY
    if (w.channels <= 3) return forward_with_channels<3>(w, image);
#endif
    forward_with_channels<kSurfelChannels>(w, image);
}

}  // namespace closeup
