// Gradients of the surfels' blend, front to back over the lists that forward kept, as gaussians/backward.cpp does for 3D Gaussians.
//
// What a unit of weight w_i of surfel i is worth to a pixel, G_i = dL/dw_i, has three parts: its channels and its normal
// against dL/dchannels and dL/dnormals, and for the distortion D (see forward.cpp)
//     dD/dw_i = 2 (2 (z_i A_i - D_i) + D_total - z_i A_total),   sum of w_i dD/dw_i = 2 D
//     dD/dz_i = 2 w_i (2 A_i - A_total + w_i)
// From there on it is as in gaussians/backward.cpp: what is behind i starts as the pixel's total of w_i G_i and loses w_i G_i at
// each step. dL/dsigma then goes to the surface or, where that is the smaller one, to the filter disc.
#include "tiles/moments.h"
#include "surfels/gradients.h"
#include "surfels/tile.h"

namespace closeup {
namespace {

template <int kChannels>
struct TileState {
    alignas(64) float transmittance[kBlocks][kLanes];
    alignas(64) float behind[kBlocks][kLanes];
    alignas(64) float d_channels[kBlocks][kChannels][kLanes];
    // The rest is for kGeometry only.
    alignas(64) float d_normals[kBlocks][kNormalSize][kLanes];
    alignas(64) float d_distort[kBlocks][kLanes];      // twice dL/dD
    alignas(64) float depth[kBlocks][kLanes];          // D_i above
    alignas(64) float total_depth[kBlocks][kLanes];
    alignas(64) float total_weight[kBlocks][kLanes];
    float first_depth;
};

// Fills dL/dnormals and the distortion's part, and adds what they are worth to the pixels' totals.
template <int kChannels>
void start_geometry(const Workspace& w, const Tile& tile, const SurfelImageGradients& image, int block, TileState<kChannels>& state) {
    for_each_pixel(w, tile, block, [&](int lane, int64_t pixel) {
        float total = 0.f;
        for (int k = 0; k < kNormalSize && image.d_normals; k++) {
            const float d = image.d_normals[pixel * kNormalSize + k];
            state.d_normals[block][k][lane] = d;
            total += d * image.normals[pixel * kNormalSize + k];
        }
        if (image.d_distort) {
            state.d_distort[block][lane] = 2.f * image.d_distort[pixel];
            state.total_depth[block][lane] = w.offset_depths[pixel];
            total += 2.f * image.d_distort[pixel] * image.distort[pixel];
        }
        state.behind[block][lane] += total;
    });
}

template <int kChannels, bool kGeometry>
void start_tile(const Workspace& w, const Tile& tile, const SurfelImageGradients& image, TileState<kChannels>& state) {
    memset(&state, 0, kGeometry ? sizeof state : offsetof(TileState<kChannels>, d_normals));
    prefetch_image(w, tile, image.blend);
    state.first_depth = tile_depth(w, tile);
    for (int b = 0; b < kBlocks; b++) {
        start_block<kChannels>(w, tile, b, image.blend, state.d_channels[b], state.behind[b], state.total_weight[b]);
        if (kGeometry) start_geometry(w, tile, image, b, state);
        for_each_pixel(w, tile, b, [&](int lane, int64_t) { state.transmittance[b][lane] = 1.f; });
    }
}

// What 16 surfels do to the 16 pixels of a block: one vector of pixels each.
struct Contributions {
    Lanes weights[kLanes];      // dchannels_out / dchannels_in
    Lanes surface[kLanes];      // dL/dsigma / W^2 where the surface draws
    Lanes perspective[kLanes];  // dL/dsigma (u^2 + v^2) / W^3 there; u, v scaled
    Lanes filter[kLanes];       // dL/dsigma where the filter disc draws
    Lanes depths[kLanes];       // distortion's part of dL/ddepth
};

// Distortion's part of dL/dw, and of dL/dz into ``d_depth``; advances D_i.
template <int kChannels>
CLOSEUP_INLINE Lanes distortion_gradient(const TileState<kChannels>& state, int block, float surfel_depth, Lanes weight,
                                         Lanes transmittance, Lanes& depth, Lanes& d_depth) {
    const Lanes z = broadcast(surfel_depth - state.first_depth), d_distort = load(state.d_distort[block]);
    const Lanes before = 1.f - transmittance, total_weight = load(state.total_weight[block]);
    const Lanes twice = fma(z, before, -depth), rest = fnma(z, total_weight, load(state.total_depth[block]));
    d_depth = keep(above(weight, zero()), d_distort * weight * (2.f * before - total_weight + weight));
    depth = fma(weight, z, depth);
    return d_distort * fma(broadcast(2.f), twice, rest);
}

// Splits dL/dsigma of a hit between surface and filter disc.
CLOSEUP_INLINE void split(const Hit& hit, Lanes d_sigma, int j, Contributions& out) {
    const Mask on_surface = at_most(hit.surface, hit.filter);
    const Lanes of_surface = keep(on_surface, d_sigma), scaled = of_surface * hit.inverse_w;
    out.surface[j] = scaled * hit.inverse_w;
    out.perspective[j] = keep(on_surface, scaled * hit.surface);
    out.filter[j] = d_sigma - of_surface;
}

// The pixels of a block between two surfels.
struct Front { Lanes transmittance, behind, depth; };

// Walks up to 16 entries of a list and fills their contributions; unused ones are zero.
template <int kChannels, bool kGeometry>
CLOSEUP_INLINE void contribute(const TileSurfel* surfels, const uint16_t* list, int count, int block, int last,
                               const SurfelPixels& pixel, const TileState<kChannels>& state, Front& front, Contributions& out) {
    const Lanes min_power = broadcast(kLog2MinAlpha), max_alpha = broadcast(kMaxAlpha), stop = broadcast(kMinTransmittance);
    for (int j = 0; j < count; j++) {
        const TileSurfel& s = surfels[list[j]];
        const Hit hit = hit_surfel(s, pixel);
        const Lanes full_alpha = exp2_lanes(hit.power);
        const Mask drawn = at_least(hit.power, min_power);
        const Lanes alpha = keep(drawn, minimum(full_alpha, max_alpha));
        const Lanes next = fnma(front.transmittance, alpha, front.transmittance);
        const Mask counts = above(next, stop);
        const Lanes weight = keep(counts, alpha * front.transmittance);
        Lanes g = load(state.d_channels[block][0]) * broadcast(s.channels[0]);
        for (int k = 1; k < kChannels; k++) g = fma(load(state.d_channels[block][k]), broadcast(s.channels[k]), g);
        if (kGeometry) {
            for (int k = 0; k < kNormalSize; k++) g = fma(load(state.d_normals[block][k]), broadcast(s.normal[k]), g);
            g = g + distortion_gradient(state, block, s.channels[last], weight, front.transmittance, front.depth, out.depths[j]);
        }
        front.behind = fnma(weight, g, front.behind);
        const Lanes d_alpha = fnma(front.behind, reciprocal(1.f - alpha), front.transmittance * g);
        // No gradient where alpha is clamped, nor, from a loss that is NaN at this pixel, where nothing is drawn.
        const Mask differentiable = both(both(drawn, counts), at_most(full_alpha, max_alpha));
        out.weights[j] = weight;
        split(hit, keep(differentiable, -alpha * d_alpha), j, out);
        front.transmittance = next;
    }
    for (int j = count; j < kLanes; j++)
        out.weights[j] = out.surface[j] = out.perspective[j] = out.filter[j] = out.depths[j] = zero();
}

// The second line of a gradient row, and distortion's part of the first.
template <int kChannels>
CLOSEUP_INLINE void add_geometry(Contributions& c, int block, int last, const TileState<kChannels>& state, bool finite,
                                 Lanes* first_line, Lanes* out) {
    for (int k = 0; k < kLanes; k++) out[k] = zero();
    for (int k = 0; k < kNormalSize; k++) out[k] = loss_sums(c.weights, state.d_normals[block][k], finite);
    transpose(c.depths);
    for (int pixel = 0; pixel < kLanes; pixel++) first_line[last] = first_line[last] + c.depths[pixel];
    transpose(out);
}

// Reduces 16 surfels' contributions over the block and adds them to their gradient rows.
template <int kChannels, bool kGeometry>
CLOSEUP_INLINE void add_to_rows(Contributions& c, const TileSurfel* surfels, const uint16_t* list, int count, int block, int last,
                                const TileState<kChannels>& state, bool finite, float* rows) {
    Lanes out[kLanes], seen[kLanes], geometry[kLanes];
    for (Lanes& row : out) row = zero();
    transpose(c.weights);
    for (int k = 0; k < kChannels; k++) out[k] = loss_sums(c.weights, state.d_channels[block][k], finite);
    load_listed(surfels, list, count, seen);
    transpose(c.surface);
    transpose(c.perspective);
    transpose(c.filter);
    surfel_moments(c.surface, c.perspective, c.filter, seen, block, out + kChannels);
    if (kGeometry) add_geometry(c, block, last, state, finite, out, geometry);
    transpose(out);
    for (int j = 0; j < count; j++) {
        float* row = rows + list[j] * surfel_lines<kGeometry>() * kLanes;
        store(row, load(row) + out[j]);
        if (kGeometry) store(row + kLanes, load(row + kLanes) + geometry[j]);
    }
}

template <int kChannels, bool kGeometry>
void backward_block(const TileSurfel* surfels, const uint16_t* list, int count, int block, int last, TileState<kChannels>& state,
                    float* rows) {
    const SurfelPixels pixel = surfel_pixels(block);
    Front front = {load(state.transmittance[block]), load(state.behind[block]), zero()};
    if (kGeometry) front.depth = load(state.depth[block]);
    bool finite = all_finite(state.d_channels[block], kChannels);
    if (kGeometry) finite = finite && all_finite(state.d_normals[block], kNormalSize);
    for (int j = 0; j < count; j += kLanes) {
        const int here = std::min(kLanes, count - j);
        Contributions c;
        contribute<kChannels, kGeometry>(surfels, list + j, here, block, last, pixel, state, front, c);
        add_to_rows<kChannels, kGeometry>(c, surfels, list + j, here, block, last, state, finite, rows);
        if (!any(above(front.transmittance, broadcast(kMinTransmittance)))) break;
    }
    store(state.transmittance[block], front.transmittance);
    store(state.behind[block], front.behind);
    if (kGeometry) store(state.depth[block], front.depth);
}

template <int kChannels, bool kGeometry>
void backward_tile(Workspace& w, const Tile& tile, const SurfelImageGradients& image, Scratch& scratch) {
    TileState<kChannels> state;
    start_tile<kChannels, kGeometry>(w, tile, image, state);
    scratch.surfels.resize(kChunk);
    TileSurfel* surfels = scratch.surfels.data();
    const int last = w.channels - 1;
    fill_gradient_rows<surfel_lines<kGeometry>()>(
        w, tile, scratch,
        [&](int64_t begin, int count) { load_surfel_chunk<false>(w, tile, begin, count, surfels, [](int, uint64_t) {}); },
        [&](const uint16_t* list, int count, int block, float* rows) {
            backward_block<kChannels, kGeometry>(surfels, list, count, block, last, state, rows);
        });
}

template <int kChannels, bool kGeometry>
void backward_all(Workspace& w, const SurfelImageGradients& image, const float* opacities, const SurfelGradients& out) {
    w.gradient_rows.resize(w.entries.size() * surfel_lines<kGeometry>());
    run_tiles(w, [&](const Tile& tile, Scratch& scratch) { backward_tile<kChannels, kGeometry>(w, tile, image, scratch); });
#pragma omp parallel for schedule(static) num_threads(w.threads)
    for (int64_t g = 0; g < w.count; g++) gather_surfel_gradient<kChannels, kGeometry>(w, g, opacities[g], out);
}

template <int kChannels>
void backward_with_channels(Workspace& w, const SurfelImageGradients& image, const float* opacities, const SurfelGradients& out) {
    if (image.d_normals || image.d_distort) return backward_all<kChannels, true>(w, image, opacities, out);
    backward_all<kChannels, false>(w, image, opacities, out);
}

}  // namespace

void rasterize_surfels_backward(Workspace& w, const SurfelImageGradients& image, const float* opacities,
                                const SurfelGradients& out) {
#ifndef CLOSEUP_WIDEST_ONLY
    if (w.channels <= 3) return backward_with_channels<3>(w, image, opacities, out);
#endif
    backward_with_channels<kSurfelChannels>(w, image, opacities, out);
}

}  // namespace closeup
