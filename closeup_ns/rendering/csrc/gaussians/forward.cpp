// Blends each tile's Gaussians front to back. See tiles/workspace.h for the whole picture.
#include "tiles/tile_walk.h"

namespace closeup {
namespace {

// The pixels of one tile while it is blended.
template <int kChannels>
struct TileState : TileLight {
    alignas(64) float channels[kBlocks][kChannels][kLanes];
};

// Blends ``count`` entries of a block's list; returns whether any pixel still lets light through.
template <int kChannels>
CLOSEUP_INLINE bool blend_block(const TileSplat* splats, const uint16_t* list, int count, int block, TileState<kChannels>& state) {
    const BlockPixels pixel = block_pixels(block);
    const Lanes min_power = broadcast(kLog2MinAlpha), max_alpha = broadcast(kMaxAlpha), stop = broadcast(kMinTransmittance);
    Lanes transmittance = load(state.transmittance[block]), final_transmittance = load(state.final_transmittance[block]);
    Lanes channels[kChannels];
    for (int k = 0; k < kChannels; k++) channels[k] = load(state.channels[block][k]);
    constexpr int kCheckEvery = 16;
    for (int j = 0; j < count; j++) {
        const TileSplat& s = splats[list[j]];
        const Lanes u = fnma(broadcast(s.l11), pixel.x, fnma(broadcast(s.l21), pixel.y, broadcast(s.u0)));
        const Lanes v = fnma(broadcast(s.l22), pixel.y, broadcast(s.v0));
        const Lanes power = fnma(u, u, fnma(v, v, broadcast(s.log2_opacity)));
        const Lanes alpha = keep(at_least(power, min_power), minimum(exp2_lanes(power), max_alpha));
        const Lanes next = fnma(transmittance, alpha, transmittance);
        const Mask counts = above(next, stop);
        const Lanes weight = keep(counts, alpha * transmittance);
        for (int k = 0; k < kChannels; k++) channels[k] = fma(weight, broadcast(s.channels[k]), channels[k]);
        final_transmittance = select(counts, next, final_transmittance);
        transmittance = next;
        if (j % kCheckEvery == kCheckEvery - 1 && !any(above(transmittance, stop))) break;
    }
    store(state.transmittance[block], transmittance);
    store(state.final_transmittance[block], final_transmittance);
    for (int k = 0; k < kChannels; k++) store(state.channels[block][k], channels[k]);
    return any(above(transmittance, stop));
}

template <int kChannels>
void forward_tile(Workspace& w, const Tile& tile, const ImageArrays& image, Scratch& scratch) {
    TileState<kChannels> state;
    start_light(w, tile, state);
    memset(state.channels, 0, sizeof state.channels);
    scratch.splats.resize(kChunk);
    TileSplat* splats = scratch.splats.data();
    walk_front_to_back(
        w, tile, scratch, state.alive,
        [&](int64_t begin, int count, auto visit) { load_chunk<true>(w, tile, begin, count, splats, visit); },
        [&](const uint16_t* list, int count, int block) { return blend_block(splats, list, count, block, state); });
    for (int b = 0; b < kBlocks; b++)
        finish_block<kChannels>(w, tile, b, state.channels[b], state.final_transmittance[b], image);
}

template <int kChannels>
void forward_all(Workspace& w, const ImageArrays& image) {
    run_tiles(w, [&](const Tile& tile, Scratch& scratch) { forward_tile<kChannels>(w, tile, image, scratch); });
}

}  // namespace

void rasterize_forward(Workspace& w, const ImageArrays& image) {
#ifndef CLOSEUP_WIDEST_ONLY
    if (w.channels <= 3) return forward_all<3>(w, image);
    if (w.channels == 4) return forward_all<4>(w, image);
#endif
    forward_all<kMaxChannels>(w, image);
}

}  // namespace closeup
