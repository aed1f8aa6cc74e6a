// Blends each tile's Gaussians front to back. See workspace.h for the whole picture.
#include <omp.h>

#include "block_lists.h"

namespace closeup {
namespace {

// The pixels of one tile while it is blended.
template <int kChannels>
struct TileState {
    alignas(64) float transmittance[kBlocks][kLanes];      // runs on past the stop, which ends a block early
    alignas(64) float final_transmittance[kBlocks][kLanes];
    alignas(64) float channels[kBlocks][kChannels][kLanes];
    uint64_t alive = 0;                                    // blocks that still let light through
};

template <int kChannels>
void start_tile(const Workspace& w, const Tile& tile, TileState<kChannels>& state) {
    memset(state.transmittance, 0, sizeof state.transmittance);  // pixels outside the image are finished already
    memset(state.channels, 0, sizeof state.channels);
    for (int b = 0; b < kBlocks; b++) {
        for (float& value : state.final_transmittance[b]) value = 1.f;
        for_each_pixel(w, tile, b, [&](int lane, int64_t) {
            state.transmittance[b][lane] = 1.f;
            state.alive |= 1ull << b;
        });
    }
}

// Blends ``count`` entries of a block's list; returns whether any pixel still lets light through.
template <int kChannels>
CLOSEUP_INLINE bool blend_block(const TileSplat* splats, const uint16_t* list, int count, int block, TileState<kChannels>& state) {
    const Lanes px = load(kLaneX) + broadcast(static_cast<float>(block_x(block)));
    const Lanes py = load(kLaneY) + broadcast(static_cast<float>(block_y(block)));
    const Lanes min_power = broadcast(kLog2MinAlpha), max_alpha = broadcast(kMaxAlpha), stop = broadcast(kMinTransmittance);
    Lanes transmittance = load(state.transmittance[block]), final_transmittance = load(state.final_transmittance[block]);
    Lanes channels[kChannels];
    for (int k = 0; k < kChannels; k++) channels[k] = load(state.channels[block][k]);
    constexpr int kCheckEvery = 16;
    for (int j = 0; j < count; j++) {
        const TileSplat& s = splats[list[j]];
        const Lanes u = fnma(broadcast(s.l11), px, fnma(broadcast(s.l21), py, broadcast(s.u0)));
        const Lanes v = fnma(broadcast(s.l22), py, broadcast(s.v0));
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

// Keeps a chunk's block lists for backward, packed.
void keep_lists(Workspace& w, int tile, const uint16_t* lists, const int* counts) {
    const int chunk = w.chunks[tile]++;
    if (static_cast<int>(w.lists[tile].size()) <= chunk) w.lists[tile].emplace_back();
    ChunkLists& kept = w.lists[tile][chunk];
    uint32_t total = 0;
    for (int b = 0; b < kBlocks; b++) {
        kept.offsets[b] = total;
        total += counts[b];
    }
    kept.offsets[kBlocks] = total;
    kept.entries.resize(total);
    for (int b = 0; b < kBlocks; b++)
        memcpy(kept.entries.data() + kept.offsets[b], lists + b * kChunk, counts[b] * sizeof(uint16_t));
}

template <int kChannels>
void finish_tile(const Workspace& w, const Tile& tile, TileState<kChannels>& state, const float* background,
                 const ImageArrays& image) {
    for (int b = 0; b < kBlocks; b++) {
        float(*channels)[kLanes] = state.channels[b];
        const Lanes transmittance = load(state.final_transmittance[b]), alpha = broadcast(1.f) - transmittance;
        for (int k = 0; background && k < w.channels; k++)
            store(channels[k], fma(transmittance, broadcast(background[k]), load(channels[k])));
        if (w.expected_depth) {
            float* depth = channels[w.channels - 1];
            store(depth, load(depth) / select(above(alpha, zero()), alpha, broadcast(1.f)));
        }
        alignas(64) float alphas[kLanes];
        store(alphas, alpha);
        store_pixels<kChannels>(w, tile, b, channels, image.channels);
        for_each_pixel(w, tile, b, [&](int lane, int64_t pixel) { image.alphas[pixel] = alphas[lane]; });
    }
}

template <int kChannels>
void forward_tile(Workspace& w, const Tile& tile, const float* background, const ImageArrays& image, Scratch& scratch) {
    TileState<kChannels> state;
    start_tile(w, tile, state);
    scratch.splats.resize(kChunk);
    scratch.lists.resize(kBlocks * kChunk);
    uint16_t* lists = scratch.lists.data();
    for (int64_t begin = tile.begin; begin < tile.end && state.alive; begin += kChunk) {
        const int count = static_cast<int>(std::min<int64_t>(kChunk, tile.end - begin));
        int counts[kBlocks] = {0};
        load_chunk<true>(w, tile, begin, count, scratch.splats.data(), [&](int index, uint64_t mask) {
            for (mask &= state.alive; mask; mask &= mask - 1) {
                const int b = __builtin_ctzll(mask);
                lists[b * kChunk + counts[b]++] = static_cast<uint16_t>(index);
            }
        });
        if (w.keep_lists) keep_lists(w, tile.index, lists, counts);
        for (int b = 0; b < kBlocks; b++)
            if (counts[b] && !blend_block(scratch.splats.data(), lists + b * kChunk, counts[b], b, state))
                state.alive &= ~(1ull << b);
    }
    finish_tile(w, tile, state, background, image);
}

template <int kChannels>
void forward_all(Workspace& w, const float* background, const ImageArrays& image) {
    const int tiles = w.tiles();
#pragma omp parallel for schedule(dynamic, 1) num_threads(w.threads)
    for (int t = 0; t < tiles; t++)
        forward_tile<kChannels>(w, Tile(w, t), background, image, w.scratch[omp_get_thread_num()]);
}

}  // namespace

void rasterize_forward(Workspace& w, const float* background, const ImageArrays& image) {
    if (w.channels == 1) return forward_all<1>(w, background, image);
    if (w.channels <= 3) return forward_all<3>(w, background, image);
    if (w.channels == 4) return forward_all<4>(w, background, image);
    forward_all<kMaxChannels>(w, background, image);
}

}  // namespace closeup
