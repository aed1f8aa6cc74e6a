// Blends each tile's surfels front to back, as gaussians/forward.cpp does with 3D Gaussians. See records.h and tiles/workspace.h.
//
// Distortion (Huang et al. 2024, Eq. 13 with gsplat's z-depths): L = sum over i of 2 w_i (z_i A_i - D_i), where A_i and
// D_i are the sums of w_j and w_j z_j over j < i.
#include "surfels/tile.h"

namespace closeup {
namespace {

// The pixels of one tile while it is blended.
template <int kChannels>
struct TileState : TileLight {
    alignas(64) float channels[kBlocks][kChannels][kLanes];
    alignas(64) float normals[kBlocks][kNormalSize][kLanes];
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
    state.first_depth = tile_depth(w, tile);
}

// What one block's pixels have gathered, in registers.
template <int kChannels>
struct Gathered {
    Lanes channels[kChannels], normals[kNormalSize], depth, distort;
};

template <int kChannels>
CLOSEUP_INLINE void take(const TileState<kChannels>& state, int block, Gathered<kChannels>& sum) {
    for (int k = 0; k < kChannels; k++) sum.channels[k] = load(state.channels[block][k]);
    for (int k = 0; k < kNormalSize; k++) sum.normals[k] = load(state.normals[block][k]);
    sum.depth = load(state.depth[block]), sum.distort = load(state.distort[block]);
}

template <int kChannels>
CLOSEUP_INLINE void put_back(const Gathered<kChannels>& sum, int block, TileState<kChannels>& state) {
    for (int k = 0; k < kChannels; k++) store(state.channels[block][k], sum.channels[k]);
    for (int k = 0; k < kNormalSize; k++) store(state.normals[block][k], sum.normals[k]);
    store(state.depth[block], sum.depth), store(state.distort[block], sum.distort);
}

// Adds a surfel that has ``weight`` behind ``transmittance``. ``last`` is the channel that is depth.
template <int kChannels, bool kDistortion>
CLOSEUP_INLINE void add_surfel(const TileSurfel& s, int last, float first_depth, Lanes weight, Lanes transmittance,
                               Gathered<kChannels>& sum) {
    for (int k = 0; k < kChannels; k++) sum.channels[k] = fma(weight, broadcast(s.channels[k]), sum.channels[k]);
    for (int k = 0; k < kNormalSize; k++) sum.normals[k] = fma(weight, broadcast(s.normal[k]), sum.normals[k]);
    if (!kDistortion) return;
    const Lanes depth = broadcast(s.channels[last] - first_depth);
    sum.distort = fma(weight, fma(depth, 1.f - transmittance, -sum.depth), sum.distort);
    sum.depth = fma(weight, depth, sum.depth);
}

// Blends ``count`` entries of a block's list; returns whether any pixel still lets light through.
template <int kChannels, bool kDistortion>
CLOSEUP_INLINE bool blend_block(const TileSurfel* surfels, const uint16_t* list, int count, int block, int last,
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
        const Mask counts = above(next, stop);
        const Lanes weight = keep(counts, alpha * transmittance);
        add_surfel<kChannels, kDistortion>(s, last, state.first_depth, weight, transmittance, sum);
        final_transmittance = select(counts, next, final_transmittance);
        transmittance = next;
        if (j % kCheckEvery == kCheckEvery - 1 && !any(above(transmittance, stop))) break;
    }
    store(state.transmittance[block], transmittance);
    store(state.final_transmittance[block], final_transmittance);
    put_back(sum, block, state);
    return any(above(transmittance, stop));
}

template <int kChannels, bool kDistortion>
void finish_tile(Workspace& w, const Tile& tile, TileState<kChannels>& state, const SurfelImage& image) {
    for (int b = 0; b < kBlocks; b++) {
        finish_block<kChannels>(w, tile, b, state.channels[b], state.final_transmittance[b], image.blend);
        for_each_pixel(w, tile, b, [&](int lane, int64_t pixel) {
            for (int k = 0; k < kNormalSize; k++) image.normals[pixel * kNormalSize + k] = state.normals[b][k][lane];
            if (!kDistortion) return;
            w.offset_depths[pixel] = state.depth[b][lane];  // for backward
            image.distort[pixel] = 2.f * state.distort[b][lane];
        });
    }
}

template <int kChannels, bool kDistortion>
void forward_tile(Workspace& w, const Tile& tile, const SurfelImage& image, Scratch& scratch) {
    TileState<kChannels> state;
    start_tile(w, tile, state);
    scratch.surfels.resize(kChunk);
    TileSurfel* surfels = scratch.surfels.data();
    const int last = w.channels - 1;
    walk_front_to_back(
        w, tile, scratch, state.alive,
        [&](int64_t begin, int count, auto visit) { load_surfel_chunk<true>(w, tile, begin, count, surfels, visit); },
        [&](const uint16_t* list, int count, int block) {
            return blend_block<kChannels, kDistortion>(surfels, list, count, block, last, state);
        });
    finish_tile<kChannels, kDistortion>(w, tile, state, image);
}

template <int kChannels, bool kDistortion>
void forward_all(Workspace& w, const SurfelImage& image) {
    const int64_t pixels = static_cast<int64_t>(w.width) * w.height;
    w.offset_depths.resize(image.distort ? pixels : 0);
    run_tiles(w, [&](const Tile& tile, Scratch& scratch) { forward_tile<kChannels, kDistortion>(w, tile, image, scratch); });
}

template <int kChannels>
void forward_with_channels(Workspace& w, const SurfelImage& image) {
    if (image.distort) return forward_all<kChannels, true>(w, image);
    forward_all<kChannels, false>(w, image);
}

}  // namespace

void rasterize_surfels_forward(Workspace& w, const SurfelImage& image) {
#ifndef CLOSEUP_WIDEST_ONLY
    if (w.channels <= 3) return forward_with_channels<3>(w, image);
#endif
    forward_with_channels<kSurfelChannels>(w, image);
}

}  // namespace closeup
