// Gradients of the blend, front to back over the lists that forward kept. See workspace.h for the whole picture.
//
// For a pixel with loss L, let w_i = T_i alpha_i be the weight of Gaussian i, g_i = dL/dchannels . channels_i, and
// R_i = sum over j > i of w_j g_j + T_final (dL/dchannels . background - dL/dalpha): all that comes from behind i. Then
//     dL/dalpha_i = T_i g_i - R_i / (1 - alpha_i)           (Kerbl et al. 2023, supplement; gsplat, Ye et al. 2024, Sec. 5)
// R starts as the pixel's total, which the forward image gives, and loses w_i g_i at each step.
#include <omp.h>

#include "block_lists.h"

namespace closeup {
namespace {

template <int kChannels>
struct TileState {
    alignas(64) float transmittance[kBlocks][kLanes];
    alignas(64) float behind[kBlocks][kLanes];  // R above
    alignas(64) float d_channels[kBlocks][kChannels][kLanes];
};

// dL/dchannels and dL/dalpha of the blend itself, from those of the image (whose depth may be divided by alpha).
template <int kChannels>
void start_tile(const Workspace& w, const Tile& tile, const ImageGradients& image, TileState<kChannels>& state) {
    memset(&state, 0, sizeof state);
    prefetch_pixels(w, tile, image.channels, w.channels);
    prefetch_pixels(w, tile, image.d_channels, w.channels);
    prefetch_pixels(w, tile, image.alphas, 1);
    if (image.d_alphas) prefetch_pixels(w, tile, image.d_alphas, 1);
    const Lanes one = broadcast(1.f);
    for (int b = 0; b < kBlocks; b++) {
        alignas(64) float values[kChannels][kLanes] = {{0}}, alphas[kLanes] = {0}, d_alphas[kLanes] = {0};
        load_pixels<kChannels>(w, tile, b, image.channels, values);
        load_pixels<kChannels>(w, tile, b, image.d_channels, state.d_channels[b]);
        for_each_pixel(w, tile, b, [&](int lane, int64_t pixel) {
            alphas[lane] = image.alphas[pixel];
            state.transmittance[b][lane] = 1.f;
        });
        if (image.d_alphas) for_each_pixel(w, tile, b, [&](int lane, int64_t pixel) { d_alphas[lane] = image.d_alphas[pixel]; });
        const Lanes alpha = load(alphas);
        Lanes total = zero(), d_alpha = load(d_alphas);
        for (int k = 0; k < w.channels; k++) total = fma(load(state.d_channels[b][k]), load(values[k]), total);
        if (w.expected_depth) {  // d (raw / alpha): the product with raw is unchanged
            const int k = w.channels - 1;
            const Mask drawn = above(alpha, zero());
            const Lanes d = keep(drawn, load(state.d_channels[b][k]) / select(drawn, alpha, one));
            d_alpha = fnma(d, load(values[k]), d_alpha);
            store(state.d_channels[b][k], d);
        }
        store(state.behind[b], fnma(one - alpha, d_alpha, total));
    }
}

// What 16 Gaussians do to the 16 pixels of a block: one vector of pixels each.
struct Contributions {
    Lanes weights[kLanes];     // dchannels_out / dchannels_in
    Lanes d_sigma[kLanes];     // dL/dsigma
    Lanes abs_x[kLanes], abs_y[kLanes];
};

struct BlockPixels { Lanes x, y; };

// Walks up to 16 entries of a list and fills their contributions; unused ones are zero.
template <int kChannels, bool kAbsolute>
CLOSEUP_INLINE void contribute(const TileSplat* splats, const uint16_t* list, int count, const BlockPixels& pixel,
                               const Lanes* d_channels, Lanes& transmittance, Lanes& behind, Contributions& out) {
    const Lanes min_power = broadcast(kLog2MinAlpha), max_alpha = broadcast(kMaxAlpha), stop = broadcast(kMinTransmittance);
    for (int j = 0; j < count; j++) {
        const TileSplat& s = splats[list[j]];
        const Lanes u = fnma(broadcast(s.l11), pixel.x, fnma(broadcast(s.l21), pixel.y, broadcast(s.u0)));
        const Lanes v = fnma(broadcast(s.l22), pixel.y, broadcast(s.v0));
        const Lanes power = fnma(u, u, fnma(v, v, broadcast(s.log2_opacity)));
        const Lanes full_alpha = exp2_lanes(power);
        const Lanes alpha = keep(at_least(power, min_power), minimum(full_alpha, max_alpha));
        const Lanes next = fnma(transmittance, alpha, transmittance);
        const Mask counts = above(next, stop);
        const Lanes weight = keep(counts, alpha * transmittance);
        Lanes g = d_channels[0] * broadcast(s.channels[0]);
        for (int k = 1; k < kChannels; k++) g = fma(d_channels[k], broadcast(s.channels[k]), g);
        behind = fnma(weight, g, behind);
        const Lanes d_alpha = fnma(behind, reciprocal(1.f - alpha), transmittance * g);
        const Mask differentiable = both(counts, at_most(full_alpha, max_alpha));  // no gradient where alpha is clamped
        out.weights[j] = weight;
        out.d_sigma[j] = keep(differentiable, -alpha * d_alpha);
        if (kAbsolute) {
            const Lanes size = absolute(out.d_sigma[j]);
            out.abs_x[j] = size * absolute(broadcast(s.l11) * u);
            out.abs_y[j] = size * absolute(fma(broadcast(s.l21), u, broadcast(s.l22) * v));
        }
        transmittance = next;
    }
    for (int j = count; j < kLanes; j++) {
        out.weights[j] = out.d_sigma[j] = zero();
        if (kAbsolute) out.abs_x[j] = out.abs_y[j] = zero();
    }
}

// Sums over the block's pixels of d_sigma times 1, x, y, xx, xy, yy (x, y in 0..3), for 16 Gaussians in the lanes.
struct PixelMoments { Lanes s, x, y, xx, xy, yy; };

CLOSEUP_INLINE PixelMoments pixel_moments(const Lanes* d_sigma) {  // d_sigma[pixel], transposed
    PixelMoments m = {zero(), zero(), zero(), zero(), zero(), zero()};
    for (int y = 0; y < kBlockSize; y++) {
        const Lanes* row = d_sigma + kBlockSize * y;
        const Lanes sum = (row[0] + row[1]) + (row[2] + row[3]);
        const Lanes first = fma(broadcast(3.f), row[3], fma(broadcast(2.f), row[2], row[1]));
        const Lanes second = fma(broadcast(9.f), row[3], fma(broadcast(4.f), row[2], row[1]));
        const Lanes fy = broadcast(static_cast<float>(y)), fyy = broadcast(static_cast<float>(y * y));
        m.s = m.s + sum, m.x = m.x + first, m.xx = m.xx + second;
        m.y = fma(fy, sum, m.y), m.xy = fma(fy, first, m.xy), m.yy = fma(fyy, sum, m.yy);
    }
    return m;
}

// The moments of d_sigma in whitened coordinates u = ub - l11 x - l21 y, v = vb - l22 y. All terms are small numbers,
// also for a needle a thousand pixels long: no cancellation, unlike moments of the pixel offsets.
CLOSEUP_INLINE void whitened_moments(const PixelMoments& m, const Lanes* splats, int block, Lanes* out) {
    const Lanes bx = broadcast(static_cast<float>(block_x(block))), by = broadcast(static_cast<float>(block_y(block)));
    const Lanes l11 = splats[2], l21 = splats[3], l22 = splats[4];
    const Lanes ub = fnma(l11, bx, fnma(l21, by, splats[0])), vb = fnma(l22, by, splats[1]);
    const Lanes du = fma(l11, m.x, l21 * m.y), dv = l22 * m.y;
    const Lanes duu = fma(l11, fma(l11, m.xx, 2.f * l21 * m.xy), l21 * l21 * m.yy);
    const Lanes duv = l22 * fma(l11, m.xy, l21 * m.yy), dvv = l22 * l22 * m.yy;
    out[kSum] = m.s;
    out[kU] = fma(ub, m.s, -du);
    out[kV] = fma(vb, m.s, -dv);
    out[kUU] = fma(ub, fma(ub, m.s, -2.f * du), duu);
    out[kUV] = fma(ub, fma(vb, m.s, -dv), fnma(vb, du, duv));
    out[kVV] = fma(vb, fma(vb, m.s, -2.f * dv), dvv);
}

// Reduces 16 Gaussians' contributions over the block and adds them to their gradient rows.
template <int kChannels, bool kAbsolute>
CLOSEUP_INLINE void add_to_rows(Contributions& c, const TileSplat* splats, const uint16_t* list, int count, int block,
                                const float d_channels[][kLanes], float* rows) {
    Lanes out[kLanes], seen[kLanes];
    for (Lanes& row : out) row = zero();
    transpose(c.weights);
    for (int k = 0; k < kChannels; k++) {
        Lanes even = zero(), odd = zero();
        for (int pixel = 0; pixel < kLanes; pixel += 2) {
            even = fma(c.weights[pixel], broadcast(d_channels[k][pixel]), even);
            odd = fma(c.weights[pixel + 1], broadcast(d_channels[k][pixel + 1]), odd);
        }
        out[k] = even + odd;
    }
    for (int j = 0; j < kLanes; j++) seen[j] = load(&splats[list[j < count ? j : count - 1]].u0);
    transpose(seen);
    transpose(c.d_sigma);
    Lanes* moments = out + kChannels;
    whitened_moments(pixel_moments(c.d_sigma), seen, block, moments);
    if (kAbsolute) {
        transpose(c.abs_x);
        transpose(c.abs_y);
        for (int pixel = 0; pixel < kLanes; pixel++) {
            moments[kAbsX] = moments[kAbsX] + c.abs_x[pixel];
            moments[kAbsY] = moments[kAbsY] + c.abs_y[pixel];
        }
    }
    transpose(out);
    for (int j = 0; j < count; j++) {
        float* row = rows + static_cast<size_t>(list[j]) * kGradientRow;
        store(row, load(row) + out[j]);
    }
}

template <int kChannels, bool kAbsolute>
void backward_block(const TileSplat* splats, const uint16_t* list, int count, int block, TileState<kChannels>& state, float* rows) {
    const BlockPixels pixel = {load(kLaneX) + broadcast(static_cast<float>(block_x(block))),
                               load(kLaneY) + broadcast(static_cast<float>(block_y(block)))};
    Lanes transmittance = load(state.transmittance[block]), behind = load(state.behind[block]), d_channels[kChannels];
    for (int k = 0; k < kChannels; k++) d_channels[k] = load(state.d_channels[block][k]);
    for (int j = 0; j < count; j += kLanes) {
        const int here = std::min(kLanes, count - j);
        Contributions c;
        contribute<kChannels, kAbsolute>(splats, list + j, here, pixel, d_channels, transmittance, behind, c);
        add_to_rows<kChannels, kAbsolute>(c, splats, list + j, here, block, state.d_channels[block], rows);
        if (!any(above(transmittance, broadcast(kMinTransmittance)))) break;
    }
    store(state.transmittance[block], transmittance);
    store(state.behind[block], behind);
}

// Hands a chunk's gradient rows over, each to its Gaussian's other rows.
void keep_rows(Workspace& w, int64_t first_entry, int count, const float* rows) {
    for (int i = 0; i < count; i++)
        store_past_cache(w.gradient_rows[w.slot_of_entry[first_entry + i]].values, load(rows + i * kGradientRow));
}

template <int kChannels, bool kAbsolute>
void backward_tile(Workspace& w, const Tile& tile, const ImageGradients& image, Scratch& scratch) {
    TileState<kChannels> state;
    start_tile(w, tile, image, state);
    scratch.splats.resize(kChunk);
    scratch.gradient_rows.resize(kChunk * kGradientRow);
    float* rows = scratch.gradient_rows.data();
    for (int chunk = 0; tile.begin + static_cast<int64_t>(chunk) * kChunk < tile.end; chunk++) {
        const int64_t first = tile.begin + static_cast<int64_t>(chunk) * kChunk;
        const int count = static_cast<int>(std::min<int64_t>(kChunk, tile.end - first));
        memset(rows, 0, static_cast<size_t>(count) * kGradientRow * sizeof(float));
        if (chunk >= w.chunks[tile.index]) {  // hidden entirely
            keep_rows(w, first, count, rows);
            continue;
        }
        load_chunk<false>(w, tile, first, count, scratch.splats.data(), [](int, uint64_t) {});
        const ChunkLists& lists = w.lists[tile.index][chunk];
        for (int b = 0; b < kBlocks; b++) {
            const int entries = static_cast<int>(lists.offsets[b + 1] - lists.offsets[b]);
            if (entries)
                backward_block<kChannels, kAbsolute>(scratch.splats.data(), lists.entries.data() + lists.offsets[b], entries, b,
                                                     state, rows);
        }
        keep_rows(w, first, count, rows);
    }
    publish_stores();
}

// Sums Gaussian g's rows in their fixed order and converts moments to gradients.
template <int kChannels>
void gather_gradient(const Workspace& w, int64_t g, float opacity, const SplatGradients& out) {
    Lanes sum = zero();
    for (int64_t slot = w.first_slot[g]; slot < w.first_slot[g + 1]; slot++)
        sum = sum + load(w.gradient_rows[slot].values);
    alignas(64) float row[kLanes];
    store(row, sum);
    const float* m = row + kChannels;
    const SplatRecord empty = {};
    const bool touched = w.tiles_touched[g] > 0;
    const SplatRecord& r = touched ? w.records[g] : empty;
    // sigma = unscale * (u^2 + v^2) / 2 in the record's scaled whitening; the offset is mean - pixel.
    constexpr float unscale = 2.f * kLn2;
    for (int k = 0; k < w.channels; k++) out.features[g * w.channels + k] = row[k];
    out.opacities[g] = touched ? -m[kSum] / opacity : 0.f;
    out.means2d[2 * g] = unscale * r.l11 * m[kU];
    out.means2d[2 * g + 1] = unscale * (r.l21 * m[kU] + r.l22 * m[kV]);
    // dL/dcovariance = -1/2 W^T M W with the whitening W and the whitened second moments M; xy stands for two elements.
    constexpr float scale = -0.5f * unscale * unscale;
    out.covariances[3 * g] = scale * r.l11 * r.l11 * m[kUU];
    out.covariances[3 * g + 1] = 2.f * scale * r.l11 * (r.l21 * m[kUU] + r.l22 * m[kUV]);
    out.covariances[3 * g + 2] = scale * (r.l21 * r.l21 * m[kUU] + 2.f * r.l21 * r.l22 * m[kUV] + r.l22 * r.l22 * m[kVV]);
    if (!out.absolute) return;
    out.absolute[2 * g] = unscale * m[kAbsX];
    out.absolute[2 * g + 1] = unscale * m[kAbsY];
}

template <int kChannels>
void backward_all(Workspace& w, const ImageGradients& image, const float* opacities, const SplatGradients& out) {
    const int tiles = w.tiles();
    w.gradient_rows.resize(w.entries.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(w.threads)
    for (int t = 0; t < tiles; t++) {
        const Tile tile(w, t);
        Scratch& scratch = w.scratch[omp_get_thread_num()];
        if (out.absolute) backward_tile<kChannels, true>(w, tile, image, scratch);
        else backward_tile<kChannels, false>(w, tile, image, scratch);
    }
#pragma omp parallel for schedule(static) num_threads(w.threads)
    for (int64_t g = 0; g < w.count; g++) gather_gradient<kChannels>(w, g, opacities[g], out);
}

}  // namespace

void rasterize_backward(Workspace& w, const ImageGradients& image, const float* opacities, const SplatGradients& out) {
    if (w.channels == 1) return backward_all<1>(w, image, opacities, out);
    if (w.channels <= 3) return backward_all<3>(w, image, opacities, out);
    if (w.channels == 4) return backward_all<4>(w, image, opacities, out);
    backward_all<kMaxChannels>(w, image, opacities, out);
}

}  // namespace closeup
