// Sums over a block's pixels for 16 Gaussians at once. Arrays that backward fills Gaussian by Gaussian, one vector of
// pixels each, are transposed first: then a vector is one pixel and its lanes are the Gaussians.
#pragma once

#include "tiles/block_lists.h"

namespace closeup {

// Sums over the block's pixels of d_sigma[pixel] times 1, u, v, uu, uv, vv in whitened coordinates u = u0 - l11 x - l21 y,
// v = v0 - l22 y, for 16 Gaussians in the lanes. Every factor is formed at its pixel: it is small where the Gaussian is
// drawn, also for a needle a thousand pixels long and for a dot of a thirtieth of a pixel. Sums over x and y put together
// afterwards would cancel for both.
CLOSEUP_INLINE void whitened_moments(const Lanes* d_sigma, const Lanes* splats, int block, Lanes* out) {
    const Lanes u0 = splats[0], v0 = splats[1], l11 = splats[2], l21 = splats[3], l22 = splats[4];
    for (int k = kSum; k <= kVV; k++) out[k] = zero();
    for (int y = 0; y < kBlockSize; y++) {
        const Lanes row = broadcast(static_cast<float>(block_y(block) + y));
        const Lanes row_u = fnma(l21, row, u0), v = fnma(l22, row, v0);
        Lanes sum = zero(), along_u = zero();
        for (int x = 0; x < kBlockSize; x++) {
            const Lanes u = fnma(l11, broadcast(static_cast<float>(block_x(block) + x)), row_u);
            const Lanes d = d_sigma[kBlockSize * y + x], du = d * u;
            sum = sum + d, along_u = along_u + du, out[kUU] = fma(du, u, out[kUU]);
        }
        const Lanes along_v = v * sum;
        out[kSum] = out[kSum] + sum, out[kU] = out[kU] + along_u, out[kV] = out[kV] + along_v;
        out[kUV] = fma(v, along_u, out[kUV]), out[kVV] = fma(v, along_v, out[kVV]);
    }
}

// Sum over the pixels of weights[pixel] * factors[pixel].
CLOSEUP_INLINE Lanes weighted_sums(const Lanes* weights, const float* factors) {
    Lanes even = zero(), odd = zero();
    for (int pixel = 0; pixel < kLanes; pixel += 2) {
        even = fma(weights[pixel], broadcast(factors[pixel]), even);
        odd = fma(weights[pixel + 1], broadcast(factors[pixel + 1]), odd);
    }
    return even + odd;
}

// The same where a factor is not finite, without the pixels where nothing is drawn: their weight of zero would make NaN of
// it. A loss that is broken at a pixel thus concerns only what the pixel shows.
CLOSEUP_INLINE Lanes drawn_sums(const Lanes* weights, const float* factors) {
    Lanes sum = zero();
    for (int pixel = 0; pixel < kLanes; pixel++)
        sum = sum + keep(above(weights[pixel], zero()), weights[pixel] * broadcast(factors[pixel]));
    return sum;
}

// Whether the loss's gradients, ``count`` rows of a block's pixels, are all finite.
CLOSEUP_INLINE bool all_finite(const float (*rows)[kLanes], int count) {
    Lanes broken = zero();
    for (int k = 0; k < count; k++) broken = broken + (load(rows[k]) - load(rows[k]));  // 0, or NaN
    return horizontal_sum(broken) == 0.f;
}

// weighted_sums, or drawn_sums where some factor of the block is not finite.
CLOSEUP_INLINE Lanes loss_sums(const Lanes* weights, const float* factors, bool finite) {
    return finite ? weighted_sums(weights, factors) : drawn_sums(weights, factors);
}

// The first cache lines of up to 16 listed Gaussians as lanes, field by field; missing ones repeat the last.
template <class Seen>
CLOSEUP_INLINE void load_listed(const Seen* seen, const uint16_t* list, int count, Lanes* out) {
    for (int j = 0; j < kLanes; j++) out[j] = load(&seen[list[j < count ? j : count - 1]].u0);
    transpose(out);
}

CLOSEUP_INLINE void prefetch_image(const Workspace& w, const Tile& tile, const ImageGradients& image) {
    prefetch_pixels(w, tile, image.channels, w.channels);
    prefetch_pixels(w, tile, image.d_channels, w.channels);
    prefetch_pixels(w, tile, image.alphas, 1);
    if (image.d_alphas) prefetch_pixels(w, tile, image.d_alphas, 1);
}

// dL/dchannels of the blend itself in a block, from those of the image (whose depth may be divided by alpha), and
// ``behind``: the pixels' totals, R of gaussians/backward.cpp before the first Gaussian.
template <int kChannels>
CLOSEUP_INLINE void start_block(const Workspace& w, const Tile& tile, int block, const ImageGradients& image,
                                float (*d_channels)[kLanes], float* behind, float* alphas) {
    const Lanes one = broadcast(1.f);
    alignas(64) float values[kChannels][kLanes] = {{0}}, d_alphas[kLanes] = {0};
    store(alphas, zero());
    load_pixels<kChannels>(w, tile, block, image.channels, values);
    load_pixels<kChannels>(w, tile, block, image.d_channels, d_channels);
    for_each_pixel(w, tile, block, [&](int lane, int64_t pixel) { alphas[lane] = image.alphas[pixel]; });
    if (image.d_alphas) for_each_pixel(w, tile, block, [&](int lane, int64_t pixel) { d_alphas[lane] = image.d_alphas[pixel]; });
    const Lanes alpha = load(alphas);
    Lanes total = zero(), d_alpha = load(d_alphas);
    for (int k = 0; k < w.channels; k++) total = fma(load(d_channels[k]), load(values[k]), total);
    if (w.expected_depth) {  // d (raw / alpha): the product with raw is unchanged
        const int k = w.channels - 1;
        const Mask drawn = above(alpha, zero());
        const Lanes d = keep(drawn, load(d_channels[k]) / select(drawn, alpha, one));
        d_alpha = fnma(d, load(values[k]), d_alpha);
        store(d_channels[k], d);
    }
    store(behind, fnma(one - alpha, d_alpha, total));
}

// Sums Gaussian g's rows of kLines lines in their fixed order.
template <int kLines>
CLOSEUP_INLINE void sum_rows(const Workspace& w, int64_t g, float* row) {
    Lanes sum[kLines];
    for (Lanes& line : sum) line = zero();
    for (int64_t slot = w.first_slot[g]; slot < w.first_slot[g + 1]; slot++)
        for (int k = 0; k < kLines; k++) sum[k] = sum[k] + load(w.gradient_rows[slot * kLines + k].values);
    for (int k = 0; k < kLines; k++) store(row + k * kLanes, sum[k]);
}

// dL/dcovariance = -1/2 W^T M W with the whitening W and the whitened second moments M (uu, uv, vv); xy stands for two
// elements.
template <class Record>
CLOSEUP_INLINE void covariance_gradient(const Record& r, const float* m, float* out) {
    constexpr float unscale = 2.f * kLn2, scale = -0.5f * unscale * unscale;
    out[0] = scale * r.l11 * r.l11 * m[0];
    out[1] = 2.f * scale * r.l11 * (r.l21 * m[0] + r.l22 * m[1]);
    out[2] = scale * (r.l21 * r.l21 * m[0] + 2.f * r.l21 * r.l22 * m[1] + r.l22 * r.l22 * m[2]);
}

}  // namespace closeup
