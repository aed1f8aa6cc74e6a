// From projected Gaussians to lists of ids per tile, front to back. See tiles/workspace.h for the whole picture.
#include <omp.h>

#include <algorithm>

#include "tiles/workspace.h"

namespace closeup {
namespace {

constexpr float kExtentSlack = 1e-3f;          // pixels: rounding may only ever enlarge a box
constexpr float kExtentSlackRelative = 1e-5f;
constexpr int kRadixBits = 11, kRadixSize = 1 << kRadixBits, kRadixPasses = 3;

// Pixel columns (or rows) whose centres lie within ``extent`` of ``center``, limited to the image, as tile bounds.
bool tile_range(float center, float extent, int size, int16_t& first, int16_t& last) {
    // The order of the arguments keeps a NaN, which then fails the comparison.
    const float low = std::max(std::ceil(center - extent - 0.5f), 0.f);
    const float high = std::min(std::floor(center + extent - 0.5f), static_cast<float>(size - 1));
    if (!(low <= high)) return false;
    first = static_cast<int16_t>(static_cast<int>(low) / kTileSize);
    last = static_cast<int16_t>(static_cast<int>(high) / kTileSize + 1);
    return true;
}

// Fills the record and the rectangle of Gaussian g and returns how many tiles it touches.
int prepare_splat(Workspace& w, const SplatArrays& s, int64_t g) {
    if (s.radii[g] <= 0) return 0;
    SplatRecord& r = w.records[g];
    const float* l = s.whitening + 3 * g;
    r.x = s.means2d[2 * g], r.y = s.means2d[2 * g + 1];
    r.l11 = kWhiteningScale * l[0], r.l21 = kWhiteningScale * l[1], r.l22 = kWhiteningScale * l[2];
    r.log2_opacity = std::log2(s.opacities[g]);
    const float reach = r.log2_opacity - kLog2MinAlpha;  // u^2 + v^2 <= reach
    if (!(reach > 0.f)) return 0;
    set_extent(r, reach);
    for (int k = 0; k < kMaxChannels; k++) {
        r.channels[k] = k < w.channels ? s.features[g * w.channels + k] : 0.f;
        if (!std::isfinite(r.channels[k])) return 0;  // a weight of zero times NaN would colour the whole block
    }
    return touched_tiles(w, g);
}

// Stable ascending sort of positive floats (their bits order like integers), carrying Gaussian ids.
void sort_by_depth(Workspace& w) {
    const size_t n = w.keys.size();
    w.keys_swap.resize(n);
    w.order_swap.resize(n);
    for (int pass = 0; pass < kRadixPasses; pass++) {
        const int shift = pass * kRadixBits;
        uint32_t starts[kRadixSize + 1] = {0};
        for (size_t i = 0; i < n; i++) starts[((w.keys[i] >> shift) & (kRadixSize - 1)) + 1]++;
        for (int i = 0; i < kRadixSize; i++) starts[i + 1] += starts[i];
        for (size_t i = 0; i < n; i++) {
            const uint32_t to = starts[(w.keys[i] >> shift) & (kRadixSize - 1)]++;
            w.keys_swap[to] = w.keys[i];
            w.order_swap[to] = w.order[i];
        }
        w.keys.swap(w.keys_swap);
        w.order.swap(w.order_swap);
    }
}

// Lists the Gaussians that touch a tile, with their depths as sort keys, and gives each its range of slots.
void collect_visible(Workspace& w, const float* depths) {
    w.keys.clear();
    w.order.clear();
    w.first_slot.resize(w.count + 1);
    int64_t total = 0;
    for (int64_t g = 0; g < w.count; g++) {
        w.first_slot[g] = total;
        if (!w.tiles_touched[g]) continue;
        total += w.tiles_touched[g];
        uint32_t key;
        memcpy(&key, depths + g, sizeof key);
        w.keys.push_back(key);
        w.order.push_back(static_cast<int32_t>(g));
    }
    w.first_slot[w.count] = total;
    w.entries.resize(total);
    w.slot_of_entry.resize(w.keep_lists ? total : 0);
}

template <class Visit>
void for_each_tile(const Workspace& w, int32_t g, Visit visit) {
    const TileRect r = w.rects[g];
    for (int y = r.y0; y < r.y1; y++)
        for (int x = r.x0; x < r.x1; x++) visit(y * w.tiles_x + x);
}

// Asks for what belongs to a Gaussian a little further back: in depth order they lie anywhere.
template <class T>
void prefetch_ordered(const Workspace& w, int64_t i, int64_t end, const Buffer<T>& by_gaussian) {
    constexpr int64_t kAhead = 16;
    if (i + kAhead < end) __builtin_prefetch(&by_gaussian[w.order[i + kAhead]]);
}

// Turns the counts per thread and tile into the first entry of each, tile-major, so that depth order survives.
void histogram_to_starts(Workspace& w, int threads) {
    const int tiles = w.tiles();
    int64_t sum = 0;
    for (int t = 0; t < tiles; t++) {
        w.first_entry[t] = sum;
        for (int k = 0; k < threads; k++) {
            int64_t& cell = w.histogram[static_cast<size_t>(k) * tiles + t];
            const int64_t here = cell;
            cell = sum;
            sum += here;
        }
    }
    w.first_entry[tiles] = sum;
}

// Counting sort of the depth-ordered Gaussians into tiles.
void assign_tiles(Workspace& w) {
    const int tiles = w.tiles();
    const int64_t visible = static_cast<int64_t>(w.order.size());
    w.first_entry.resize(tiles + 1);
    w.histogram.assign(static_cast<size_t>(w.threads) * tiles, 0);
#pragma omp parallel num_threads(w.threads)
    {
        const int threads = omp_get_num_threads(), me = omp_get_thread_num();
        const int64_t begin = visible * me / threads, end = visible * (me + 1) / threads;
        int64_t* next = &w.histogram[static_cast<size_t>(me) * tiles];
        for (int64_t i = begin; i < end; i++) {
            prefetch_ordered(w, i, end, w.rects);
            for_each_tile(w, w.order[i], [&](int tile) { next[tile]++; });
        }
#pragma omp barrier
#pragma omp single
        histogram_to_starts(w, threads);
        for (int64_t i = begin; i < end; i++) {
            const int32_t g = w.order[i];
            prefetch_ordered(w, i, end, w.rects);
            prefetch_ordered(w, i, end, w.first_slot);
            int64_t slot = w.first_slot[g];
            for_each_tile(w, g, [&](int tile) {
                const int64_t entry = next[tile]++;
                w.entries[entry] = g;
                if (w.keep_lists) w.slot_of_entry[entry] = slot++;
            });
        }
    }
}

}  // namespace

void set_extent(SplatRecord& r, float reach) {
    const float inverse_l11 = 1.f / r.l11, inverse_l22 = 1.f / r.l22, shear = r.l21 * inverse_l11 * inverse_l22;
    const float extent_x = std::sqrt(reach * (inverse_l11 * inverse_l11 + shear * shear));
    r.tip_dy = shear * inverse_l22 * reach / extent_x;
    r.extent_x = extent_x * (1.f + kExtentSlackRelative) + kExtentSlack;
    r.extent_y = std::sqrt(reach) * inverse_l22 * (1.f + kExtentSlackRelative) + kExtentSlack;
}

int touched_tiles(Workspace& w, int64_t g) {
    const SplatRecord& r = w.records[g];
    TileRect& rect = w.rects[g];
    if (!tile_range(r.x, r.extent_x, w.width, rect.x0, rect.x1)) return 0;
    if (!tile_range(r.y, r.extent_y, w.height, rect.y0, rect.y1)) return 0;
    return (rect.x1 - rect.x0) * (rect.y1 - rect.y0);
}

void start_bins(Workspace& w) {
    w.tiles_x = (w.width + kTileSize - 1) / kTileSize;
    w.tiles_y = (w.height + kTileSize - 1) / kTileSize;
    w.records.resize(w.count);
    w.rects.resize(w.count);
    w.tiles_touched.resize(w.count);
}

void sort_into_tiles(Workspace& w, const float* depths) {
    collect_visible(w, depths);
    sort_by_depth(w);
    assign_tiles(w);
    if (static_cast<int>(w.lists.size()) < w.tiles()) w.lists.resize(w.tiles());
    w.chunks.assign(w.tiles(), 0);
    w.scratch.resize(w.threads);
}

void bin_splats(Workspace& w, const SplatArrays& splats) {
    start_bins(w);
#pragma omp parallel for schedule(static) num_threads(w.threads)
    for (int64_t g = 0; g < w.count; g++) w.tiles_touched[g] = prepare_splat(w, splats, g);
    sort_into_tiles(w, splats.depths);
}

}  // namespace closeup
