// How forward and backward go through the entries of a tile: chunk by chunk, and in each chunk block by block. What a
// Gaussian is, a splat or a surfel, is the business of the two functions that they are given.
#pragma once

#include <omp.h>

#include <atomic>
#include <new>

#include "tiles/block_lists.h"

namespace closeup {

// Calls run(tile, the thread's scratch) for every tile, each in one thread. std::bad_alloc where memory ran out in any.
template <class Run>
void run_tiles(Workspace& w, Run run) {
    const int tiles = w.tiles();
    std::atomic<bool> out_of_memory{false};  // no exception may leave a thread of an OpenMP region
#pragma omp parallel for schedule(dynamic, 1) num_threads(w.threads)
    for (int t = 0; t < tiles; t++) {
        try {
            run(Tile(w, t), w.scratch[omp_get_thread_num()]);
        } catch (const std::bad_alloc&) {
            out_of_memory.store(true, std::memory_order_relaxed);
        }
    }
    if (out_of_memory) throw std::bad_alloc();
}

// The light that reaches the pixels of a tile from behind what has been blended.
struct TileLight {
    alignas(64) float transmittance[kBlocks][kLanes];        // runs on past the stop, which ends a block early
    alignas(64) float final_transmittance[kBlocks][kLanes];
    uint64_t alive = 0;                                      // blocks that still let light through
};

inline void start_light(const Workspace& w, const Tile& tile, TileLight& light) {
    memset(light.transmittance, 0, sizeof light.transmittance);  // pixels outside the image are finished already
    for (int b = 0; b < kBlocks; b++) {
        for (float& value : light.final_transmittance[b]) value = 1.f;
        for_each_pixel(w, tile, b, [&](int lane, int64_t) {
            light.transmittance[b][lane] = 1.f;
            light.alive |= 1ull << b;
        });
    }
}

// Writes the channels and alphas of a block.
template <int kChannels>
CLOSEUP_INLINE void finish_block(const Workspace& w, const Tile& tile, int block, float (*channels)[kLanes],
                                 const float* final_transmittance, const ImageArrays& image) {
    const Lanes alpha = broadcast(1.f) - load(final_transmittance);
    if (w.expected_depth) {
        float* depth = channels[w.channels - 1];
        store(depth, load(depth) / select(above(alpha, zero()), alpha, broadcast(1.f)));
    }
    alignas(64) float alphas[kLanes];
    store(alphas, alpha);
    store_pixels<kChannels>(w, tile, block, channels, image.channels);
    for_each_pixel(w, tile, block, [&](int lane, int64_t pixel) { image.alphas[pixel] = alphas[lane]; });
}

// Keeps a chunk's block lists for backward, packed.
inline void keep_lists(Workspace& w, int tile, const uint16_t* lists, const int* counts) {
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

// For each chunk: load(first entry, count, visit) prepares its Gaussians and calls visit(index, mask of the blocks it
// reaches); then blend(list, count, block) for each block that is alive and has entries. It returns whether the block
// stays alive.
template <class Load, class Blend>
CLOSEUP_INLINE void walk_front_to_back(Workspace& w, const Tile& tile, Scratch& scratch, uint64_t& alive, Load load, Blend blend) {
    scratch.lists.resize(kBlocks * kChunk);
    uint16_t* lists = scratch.lists.data();
    for (int64_t begin = tile.begin; begin < tile.end && alive; begin += kChunk) {
        const int count = static_cast<int>(std::min<int64_t>(kChunk, tile.end - begin));
        int counts[kBlocks] = {0};
        load(begin, count, [&](int index, uint64_t mask) {
            for (mask &= alive; mask; mask &= mask - 1) {
                const int b = __builtin_ctzll(mask);
                lists[b * kChunk + counts[b]++] = static_cast<uint16_t>(index);
            }
        });
        if (w.keep_lists) keep_lists(w, tile.index, lists, counts);
        for (int b = 0; b < kBlocks; b++)
            if (counts[b] && !blend(lists + b * kChunk, counts[b], b)) alive &= ~(1ull << b);
    }
}

// Hands a chunk's gradient rows, kLines lines each, over to their Gaussians.
template <int kLines>
CLOSEUP_INLINE void hand_over_rows(Workspace& w, int64_t first_entry, int count, const float* rows) {
    for (int i = 0; i < count; i++)
        for (int k = 0; k < kLines; k++)
            store_past_cache(w.gradient_rows[w.slot_of_entry[first_entry + i] * kLines + k].values, load(rows + (i * kLines + k) * kLanes));
}

// Walks over the lists that forward kept and fills gradient rows: load(first entry, count), then
// visit(list, count, block, rows of the chunk), which adds to them.
template <int kLines, class Load, class Visit>
CLOSEUP_INLINE void fill_gradient_rows(Workspace& w, const Tile& tile, Scratch& scratch, Load load, Visit visit) {
    scratch.gradient_rows.resize(kChunk * kLines * kLanes);
    float* rows = scratch.gradient_rows.data();
    for (int chunk = 0; tile.begin + static_cast<int64_t>(chunk) * kChunk < tile.end; chunk++) {
        const int64_t first = tile.begin + static_cast<int64_t>(chunk) * kChunk;
        const int count = static_cast<int>(std::min<int64_t>(kChunk, tile.end - first));
        memset(rows, 0, static_cast<size_t>(count) * kLines * kLanes * sizeof(float));
        if (chunk < w.chunks[tile.index]) {  // else it is hidden entirely
            load(first, count);
            const ChunkLists& lists = w.lists[tile.index][chunk];
            for (int b = 0; b < kBlocks; b++) {
                const int entries = static_cast<int>(lists.offsets[b + 1] - lists.offsets[b]);
                if (entries) visit(lists.entries.data() + lists.offsets[b], entries, b, rows);
            }
        }
        hand_over_rows<kLines>(w, first, count, rows);
    }
    publish_stores();
}

}  // namespace closeup
