// Samples of a row are sorted by their place within a pixel, interleaved as (r, g, b, alpha): the window along x is then a
// filter for each place whose taps are four floats apart, and one vector holds four pixels. Forward: the rows under the
// window are summed, then filtered along x. Backward runs the transposes in opposite order. A row is one thread's work and
// is summed in a fixed order.
#include "images/gather.h"

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "lanes/lanes.h"
#include "tiles/buffer.h"

namespace closeup {
namespace {

constexpr int kPlanes = 4;           // r, g, b, alpha
constexpr float kMinAlpha = 1e-10f;  // depth is divided by no less

struct WeightedRow { const float* row; float weight; };

int length(const GatherShape& s) { return s.factor + 2 * s.reach; }
int samples_along(const GatherShape& s, int pixels) { return pixels * s.factor; }
// Pixels by which the window reaches into later ones.
int pixels_beyond(const GatherShape& s) { return (length(s) - 1) / s.factor; }
int mirrored(int i, int size) { return i < 0 ? -i : i >= size ? 2 * (size - 1) - i : i; }

void sum_rows(const std::vector<WeightedRow>& rows, int count, float* out) {
    int x = 0;
    for (; x + kLanes <= count; x += kLanes) {
        Lanes sum = zero();
        for (const WeightedRow& r : rows) sum = fma(broadcast(r.weight), load(r.row + x), sum);
        store(out + x, sum);
    }
    for (; x < count; x++) {
        out[x] = 0.f;
        for (const WeightedRow& r : rows) out[x] += r.weight * r.row[x];
    }
}

// Alpha, and depth weighted by alpha, over the samples of a pixel.
struct Block { float alpha = 0.f, depth = 0.f; };

Block sum_block(const GatherShape& s, int y, int x, const float* render, const float* alphas) {
    Block sum;
    for (int j = 0; j < s.factor; j++) {
        const size_t first = (static_cast<size_t>(y) * s.factor + j) * s.source_width + static_cast<size_t>(x) * s.factor;
        for (size_t i = first; i < first + s.factor; i++) {
            sum.alpha += alphas[i];
            sum.depth += render[i * s.channels + 3] * alphas[i];
        }
    }
    return sum;
}

// What one thread works with. Allocated before the threads start: an exception may not leave one.
struct Scratch {
    int stride;  // floats of a row of pixels, the window's reach included
    std::vector<float> colors, alphas, places, pixels;
    std::vector<WeightedRow> rows;

    explicit Scratch(const GatherShape& s) : stride((s.width + 2 * pixels_beyond(s)) * kPlanes + 2 * kLanes) {
        colors.resize(static_cast<size_t>(samples_along(s, s.width)) * kPlanes);
        alphas.resize(samples_along(s, s.width));
        places.resize(static_cast<size_t>(stride) * s.factor);
        pixels.resize(stride);
        rows.reserve(3 * static_cast<size_t>(length(s)));  // a row and its two mirror images
    }
    float* place(int i) { return places.data() + static_cast<size_t>(i) * stride; }
};

void gather_row(const GatherShape& s, int y, const float* render, const float* alphas, Scratch& work, float* out, float* out_alphas) {
    const int across = samples_along(s, s.width), down = samples_along(s, s.height);
    for (const bool of_alphas : {false, true}) {
        const int channels = of_alphas ? 1 : s.channels;
        work.rows.clear();
        for (int j = 0; j < length(s); j++) {
            const size_t sample = static_cast<size_t>(mirrored(y * s.factor + j - s.reach, down)) * s.source_width;
            work.rows.push_back({(of_alphas ? alphas : render) + sample * channels, s.window[j]});
        }
        sum_rows(work.rows, across * channels, of_alphas ? work.alphas.data() : work.colors.data());
    }
    for (int i = 0; i < across + 2 * s.reach; i++) {
        const int sample = mirrored(i - s.reach, across);
        float* to = work.place(i % s.factor) + i / s.factor * kPlanes;
        for (int c = 0; c < 3; c++) to[c] = work.colors[sample * s.channels + c];
        to[3] = work.alphas[sample];
    }
    for (int x = 0; x < s.width * kPlanes; x += kLanes) {
        Lanes sum = zero();
        for (int i = 0; i < length(s); i++)
            sum = fma(broadcast(s.window[i]), load(work.place(i % s.factor) + i / s.factor * kPlanes + x), sum);
        store(work.pixels.data() + x, sum);
    }
    for (int x = 0; x < s.width; x++) {
        for (int c = 0; c < 3; c++) out[x * s.channels + c] = work.pixels[x * kPlanes + c];
        out_alphas[x] = work.pixels[x * kPlanes + 3];
        if (s.channels < 4) continue;
        const Block sum = sum_block(s, y, x, render, alphas);
        const float area = static_cast<float>(s.factor * s.factor);
        out[x * s.channels + 3] = sum.depth / std::max(sum.alpha, area * kMinAlpha);
    }
}

// The transpose of the filter along x: gradients of a row of samples, interleaved, from those of a row of pixels.
void spread_row(const GatherShape& s, const float* d_out, const float* d_out_alphas, Scratch& work, float* d_row) {
    const int beyond = pixels_beyond(s), across = samples_along(s, s.width);
    std::fill(work.pixels.begin(), work.pixels.end(), 0.f);
    float* inner = work.pixels.data() + beyond * kPlanes;
    for (int x = 0; x < s.width; x++) {
        for (int c = 0; c < 3; c++) inner[x * kPlanes + c] = d_out[x * s.channels + c];
        inner[x * kPlanes + 3] = d_out_alphas ? d_out_alphas[x] : 0.f;
    }
    for (int place = 0; place < s.factor; place++)
        for (int x = 0; x < (s.width + beyond) * kPlanes; x += kLanes) {
            Lanes sum = zero();
            for (int i = place; i < length(s); i += s.factor)
                sum = fma(broadcast(s.window[i]), load(inner - i / s.factor * kPlanes + x), sum);
            store(work.place(place) + x, sum);
        }
    std::fill(d_row, d_row + across * kPlanes, 0.f);
    for (int i = 0; i < across + 2 * s.reach; i++) {
        const float* from = work.place(i % s.factor) + i / s.factor * kPlanes;
        for (int c = 0; c < kPlanes; c++) d_row[mirrored(i - s.reach, across) * kPlanes + c] += from[c];
    }
}

// The rows of pixels whose window reads a row of samples, directly or as a mirror image of one outside, and how much.
void rows_that_read(const GatherShape& s, int sample, const float* d_rows, std::vector<WeightedRow>& rows) {
    const int down = samples_along(s, s.height), images[3] = {sample, -sample, 2 * (down - 1) - sample};
    rows.clear();
    for (int i = 0; i < 3; i++) {
        if (i > 0 && images[i] == sample) continue;  // the outermost rows are not repeated
        for (int j = 0; j < length(s); j++) {
            const int start = images[i] + s.reach - j;  // the first sample of the pixel
            if (start < 0 || start % s.factor != 0 || start >= down) continue;
            const size_t stride = static_cast<size_t>(samples_along(s, s.width)) * kPlanes;
            rows.push_back({d_rows + start / s.factor * stride, s.window[j]});
        }
    }
}

// Gradients of a row of samples as they are laid out outside, and those of depth.
void finish_row(const GatherShape& s, int sample, const float* render, const float* alphas, const float* d_samples, const float* d_out,
                float* d_render, float* d_alphas) {
    const size_t first = static_cast<size_t>(sample) * s.source_width;
    const int y = sample / s.factor;
    for (int x = 0; x < samples_along(s, s.width); x++) {
        const size_t at = first + x;
        for (int c = 0; c < 3; c++) d_render[at * s.channels + c] = d_samples[x * kPlanes + c];
        d_alphas[at] = d_samples[x * kPlanes + 3];
        if (s.channels < 4) continue;
        const Block sum = sum_block(s, y, x / s.factor, render, alphas);
        const float least = static_cast<float>(s.factor * s.factor) * kMinAlpha, divisor = std::max(sum.alpha, least);
        const float d_depth = d_out[(static_cast<size_t>(y) * s.width + x / s.factor) * s.channels + 3] / divisor;
        d_render[at * s.channels + 3] = d_depth * alphas[at];
        d_alphas[at] += d_depth * render[at * s.channels + 3];
        if (sum.alpha >= least) d_alphas[at] -= d_depth * sum.depth / divisor;
    }
}

std::vector<Scratch> make_scratches(const GatherShape& s, int threads) {
    std::vector<Scratch> scratches;
    for (int i = 0; i < threads; i++) scratches.emplace_back(s);
    return scratches;
}

}  // namespace

void gather_forward(const GatherShape& s, const float* render, const float* alphas, float* out, float* out_alphas, int threads) {
    std::vector<Scratch> scratches = make_scratches(s, threads);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < s.height; y++) {
        const size_t first = static_cast<size_t>(y) * s.width;
        gather_row(s, y, render, alphas, scratches[omp_get_thread_num()], out + first * s.channels, out_alphas + first);
    }
}

void gather_backward(const GatherShape& s, const float* render, const float* alphas, const float* d_out,
                     const float* d_out_alphas, float* d_render, float* d_alphas, int threads) {
    const size_t stride = static_cast<size_t>(samples_along(s, s.width)) * kPlanes;
    Buffer<float> d_rows(stride * s.height);
    std::vector<Scratch> scratches = make_scratches(s, threads);
#pragma omp parallel num_threads(threads)
    {
        Scratch& work = scratches[omp_get_thread_num()];
#pragma omp for schedule(static)
        for (int y = 0; y < s.height; y++) {
            const size_t first = static_cast<size_t>(y) * s.width;
            spread_row(s, d_out + first * s.channels, d_out_alphas ? d_out_alphas + first : nullptr, work, &d_rows[y * stride]);
        }
#pragma omp for schedule(static)
        for (int sample = 0; sample < samples_along(s, s.height); sample++) {
            rows_that_read(s, sample, d_rows.data(), work.rows);
            sum_rows(work.rows, static_cast<int>(stride), work.colors.data());
            finish_row(s, sample, render, alphas, work.colors.data(), d_out, d_render, d_alphas);
        }
    }
}

}  // namespace closeup
