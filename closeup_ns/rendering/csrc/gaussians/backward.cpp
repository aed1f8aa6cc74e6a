// Gradients of the blend, front to back over the lists that forward kept. See tiles/workspace.h for the whole picture.
//
// For a pixel with loss L, let w_i = T_i alpha_i be the weight of Gaussian i, g_i = dL/dchannels . channels_i, and
// R_i = sum over j > i of w_j g_j - T_final dL/dalpha: all that comes from behind i. Then
//     dL/dalpha_i = T_i g_i - R_i / (1 - alpha_i)           (Kerbl et al. 2023, supplement; gsplat, Ye et al. 2024, Sec. 5)
// R starts as the pixel's total, which the forward image gives, and loses w_i g_i at each step.
#include "tiles/moments.h"
#include "tiles/tile_walk.h"

namespace closeup {
namespace {

template <int kChannels>
struct TileState {
    alignas(64) float transmittance[kBlocks][kLanes];
    alignas(64) float behind[kBlocks][kLanes];  // R above
    alignas(64) float d_channels[kBlocks][kChannels][kLanes];
};

template <int kChannels>
void start_tile(const Workspace& w, const Tile& tile, const ImageGradients& image, TileState<kChannels>& state) {
    memset(&state, 0, sizeof state);
    prefetch_image(w, tile, image);
    for (int b = 0; b < kBlocks; b++) {
        alignas(64) float alphas[kLanes];
        start_block<kChannels>(w, tile, b, image, state.d_channels[b], state.behind[b], alphas);
        for_each_pixel(w, tile, b, [&](int lane, int64_t) { state.transmittance[b][lane] = 1.f; });
    }
}

// What 16 Gaussians do to the 16 pixels of a block: one vector of pixels each.
struct Contributions {
    Lanes weights[kLanes];     // dchannels_out / dchannels_in
    Lanes d_sigma[kLanes];     // dL/dsigma
    Lanes abs_x[kLanes], abs_y[kLanes];
};

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
        const Mask drawn = at_least(power, min_power);
        const Lanes alpha = keep(drawn, minimum(full_alpha, max_alpha));
        const Lanes next = fnma(transmittance, alpha, transmittance);
        const Mask counts = above(next, stop);
        const Lanes weight = keep(counts, alpha * transmittance);
        Lanes g = d_channels[0] * broadcast(s.channels[0]);
        for (int k = 1; k < kChannels; k++) g = fma(d_channels[k], broadcast(s.channels[k]), g);
        behind = fnma(weight, g, behind);
        const Lanes d_alpha = fnma(behind, reciprocal(1.f - alpha), transmittance * g);
        // No gradient where alpha is clamped, nor, from a loss that is NaN at this pixel, where nothing is drawn.
        const Mask differentiable = both(both(drawn, counts), at_most(full_alpha, max_alpha));
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

// Reduces 16 Gaussians' contributions over the block and adds them to their gradient rows.
template <int kChannels, bool kAbsolute>
CLOSEUP_INLINE void add_to_rows(Contributions& c, const TileSplat* splats, const uint16_t* list, int count, int block,
                                const float d_channels[][kLanes], bool finite, float* rows) {
    Lanes out[kLanes], seen[kLanes];
    for (Lanes& row : out) row = zero();
    transpose(c.weights);
    for (int k = 0; k < kChannels; k++) out[k] = loss_sums(c.weights, d_channels[k], finite);
    load_listed(splats, list, count, seen);
    transpose(c.d_sigma);
    Lanes* moments = out + kChannels;
    whitened_moments(c.d_sigma, seen, block, moments);
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
    const BlockPixels pixel = block_pixels(block);
    Lanes transmittance = load(state.transmittance[block]), behind = load(state.behind[block]), d_channels[kChannels];
    for (int k = 0; k < kChannels; k++) d_channels[k] = load(state.d_channels[block][k]);
    const bool finite = all_finite(state.d_channels[block], kChannels);
    for (int j = 0; j < count; j += kLanes) {
        const int here = std::min(kLanes, count - j);
        Contributions c;
        contribute<kChannels, kAbsolute>(splats, list + j, here, pixel, d_channels, transmittance, behind, c);
        add_to_rows<kChannels, kAbsolute>(c, splats, list + j, here, block, state.d_channels[block], finite, rows);
        if (!any(above(transmittance, broadcast(kMinTransmittance)))) break;
    }
    store(state.transmittance[block], transmittance);
    store(state.behind[block], behind);
}

template <int kChannels, bool kAbsolute>
void backward_tile(Workspace& w, const Tile& tile, const ImageGradients& image, Scratch& scratch) {
    TileState<kChannels> state;
    start_tile(w, tile, image, state);
    scratch.splats.resize(kChunk);
    TileSplat* splats = scratch.splats.data();
    fill_gradient_rows<1>(
        w, tile, scratch,
        [&](int64_t begin, int count) { load_chunk<false>(w, tile, begin, count, splats, [](int, uint64_t) {}); },
        [&](const uint16_t* list, int count, int block, float* rows) {
            backward_block<kChannels, kAbsolute>(splats, list, count, block, state, rows);
        });
}

// Sums Gaussian g's rows in their fixed order and converts moments to gradients.
template <int kChannels>
void gather_gradient(const Workspace& w, int64_t g, float opacity, const SplatGradients& out) {
    alignas(64) float row[kLanes];
    sum_rows<1>(w, g, row);
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
    covariance_gradient(r, m + kUU, out.covariances + 3 * g);
    if (!out.absolute) return;
    out.absolute[2 * g] = unscale * m[kAbsX];
    out.absolute[2 * g + 1] = unscale * m[kAbsY];
}

template <int kChannels>
void backward_all(Workspace& w, const ImageGradients& image, const float* opacities, const SplatGradients& out) {
    w.gradient_rows.resize(w.entries.size());
    run_tiles(w, [&](const Tile& tile, Scratch& scratch) {
        if (out.absolute) backward_tile<kChannels, true>(w, tile, image, scratch);
        else backward_tile<kChannels, false>(w, tile, image, scratch);
    });
#pragma omp parallel for schedule(static) num_threads(w.threads)
    for (int64_t g = 0; g < w.count; g++) gather_gradient<kChannels>(w, g, opacities[g], out);
}

}  // namespace

void rasterize_backward(Workspace& w, const ImageGradients& image, const float* opacities, const SplatGradients& out) {
#ifndef CLOSEUP_WIDEST_ONLY
    if (w.channels <= 3) return backward_all<3>(w, image, opacities, out);
    if (w.channels == 4) return backward_all<4>(w, image, opacities, out);
#endif
    backward_all<kMaxChannels>(w, image, opacities, out);
}

}  // namespace closeup
