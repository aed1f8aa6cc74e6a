// Pixels stay interleaved as (r, g, b, alpha): a window along x is then a filter whose taps are four floats apart, and one
// vector holds four pixels. Forward: box means of every row, then rows are blurred along y and x. Backward runs the same
// two passes in opposite order. A row is one thread's work and is summed in a fixed order.
#include "images/gather.h"

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "tiles/buffer.h"
#include "lanes/lanes.h"

namespace closeup {
namespace {

constexpr int kPlanes = 4;             // r, g, b, alpha
constexpr float kMinAlpha = 1e-10f;    // depth is divided by no less

struct WeightedRow { const float* row; float weight; };

// Rows of the intermediate image, padded to whole vectors.
struct Rows {
    int stride;
    Buffer<float> values;

    explicit Rows(const GatherShape& s) : stride((s.width * kPlanes + kLanes - 1) / kLanes * kLanes) {
        values.resize(static_cast<size_t>(stride) * s.height);
    }
    float* operator[](int y) { return values.data() + static_cast<size_t>(y) * stride; }
};

int mirrored(int i, int size) { return i < 0 ? -i : i >= size ? 2 * (size - 1) - i : i; }

size_t first_sample(const GatherShape& s, int y, int j) { return (static_cast<size_t>(y) * s.factor + j) * s.source_width; }

// Block means of one row of pixels; with four channels also the depth, straight into ``out``.
template <int kChannels>
void average_row(const GatherShape& s, int y, const float* render, const float* alphas, float* means, float* out) {
    const float scale = 1.f / static_cast<float>(s.factor * s.factor);
    for (int x = 0; x < s.width; x++) {
        float sum[kPlanes] = {0}, depth = 0.f;
        for (int j = 0; j < s.factor; j++) {
            const size_t first = first_sample(s, y, j) + static_cast<size_t>(x) * s.factor;
            for (size_t i = first; i < first + s.factor; i++) {
                for (int c = 0; c < 3; c++) sum[c] += render[i * kChannels + c];
                sum[3] += alphas[i];
                if (kChannels == 4) depth += render[i * kChannels + kChannels - 1] * alphas[i];
            }
        }
        for (int c = 0; c < kPlanes; c++) means[x * kPlanes + c] = scale * sum[c];
        if (kChannels == 4) out[x * kChannels + kChannels - 1] = scale * depth / std::max(scale * sum[3], kMinAlpha);
    }
}

void sum_rows(const std::vector<WeightedRow>& rows, int stride, float* out) {
    for (int x = 0; x < stride; x += kLanes) {
        Lanes sum = zero();
        for (const WeightedRow& r : rows) sum = fma(broadcast(r.weight), load(r.row + x), sum);
        store(out + x, sum);
    }
}

// out[x] = sum over k of taps[k] in[x + k], for ``count`` floats; reads and writes up to a vector beyond.
void correlate(const GatherShape& s, const float* in, int count, float* out) {
    for (int x = 0; x < count; x += kLanes) {
        Lanes sum = zero();
        for (int k = 0; k <= 2 * s.reach; k++) sum = fma(broadcast(s.taps[k]), load(in + x + k * kPlanes), sum);
        store(out + x, sum);
    }
}

// Blurs row y of the means along y and x and hands it out. ``padded`` and ``blurred``: scratch.
void blur_row(const GatherShape& s, int y, Rows& means, std::vector<WeightedRow>& rows, float* padded, float* blurred,
              float* out, float* out_alphas) {
    rows.clear();
    for (int k = 0; k <= 2 * s.reach; k++) rows.push_back({means[mirrored(y + k - s.reach, s.height)], s.taps[k]});
    float* inner = padded + s.reach * kPlanes;
    sum_rows(rows, means.stride, inner);
    for (int i = 1; i <= s.reach; i++) {
        memcpy(inner - i * kPlanes, inner + i * kPlanes, kPlanes * sizeof(float));
        memcpy(inner + (s.width - 1 + i) * kPlanes, inner + (s.width - 1 - i) * kPlanes, kPlanes * sizeof(float));
    }
    correlate(s, padded, s.width * kPlanes, blurred);
    for (int x = 0; x < s.width; x++) {
        for (int c = 0; c < 3; c++) out[x * s.channels + c] = blurred[x * kPlanes + c];
        out_alphas[x] = blurred[x * kPlanes + 3];
    }
}

// The transpose of the blur along x. ``padded`` has 2 reach pixels of zeros before the row and behind it.
void unblur_row(const GatherShape& s, const float* d_out, const float* d_out_alphas, float* padded, float* spread, float* d_row) {
    float* inner = padded + 2 * s.reach * kPlanes;
    for (int x = 0; x < s.width; x++) {
        for (int c = 0; c < 3; c++) inner[x * kPlanes + c] = d_out[x * s.channels + c];
        inner[x * kPlanes + 3] = d_out_alphas ? d_out_alphas[x] : 0.f;
    }
    correlate(s, padded, (s.width + 2 * s.reach) * kPlanes, spread);
    const float* center = spread + s.reach * kPlanes;
    memcpy(d_row, center, s.width * kPlanes * sizeof(float));
    for (int i = 1; i <= s.reach; i++)
        for (int c = 0; c < kPlanes; c++) {
            d_row[i * kPlanes + c] += center[c - i * kPlanes];
            d_row[(s.width - 1 - i) * kPlanes + c] += center[(s.width - 1 + i) * kPlanes + c];
        }
}

// The rows whose blur along y reads row y, directly or as a mirror image of a row outside, and how much.
void rows_that_read(const GatherShape& s, int y, Rows& d_rows, std::vector<WeightedRow>& rows) {
    rows.clear();
    const int images[3] = {y, -y, 2 * (s.height - 1) - y};
    for (int i = 0; i < 3; i++) {
        if (i > 0 && images[i] == y) continue;  // the outermost rows are not repeated
        for (int k = 0; k <= 2 * s.reach; k++) {
            const int reader = images[i] + s.reach - k;
            if (reader >= 0 && reader < s.height) rows.push_back({d_rows[reader], s.taps[k]});
        }
    }
}

// The transpose of average_row.
template <int kChannels>
void spread_row(const GatherShape& s, int y, const float* render, const float* alphas, const float* d_means, const float* d_out,
                float* d_render, float* d_alphas) {
    const float scale = 1.f / static_cast<float>(s.factor * s.factor);
    for (int x = 0; x < s.width; x++) {
        float d_mean[kPlanes], d_weighted = 0.f;
        for (int c = 0; c < kPlanes; c++) d_mean[c] = scale * d_means[x * kPlanes + c];
        if (kChannels == 4) {
            float alpha = 0.f, depth = 0.f;
            for (int j = 0; j < s.factor; j++) {
                const size_t first = first_sample(s, y, j) + static_cast<size_t>(x) * s.factor;
                for (size_t i = first; i < first + s.factor; i++) {
                    alpha += alphas[i];
                    depth += render[i * kChannels + kChannels - 1] * alphas[i];
                }
            }
            const float divisor = std::max(scale * alpha, kMinAlpha);
            d_weighted = scale * d_out[x * kChannels + kChannels - 1] / divisor;
            if (scale * alpha >= kMinAlpha) d_mean[3] -= d_weighted * scale * depth / divisor;
        }
        for (int j = 0; j < s.factor; j++) {
            const size_t first = first_sample(s, y, j) + static_cast<size_t>(x) * s.factor;
            for (size_t i = first; i < first + s.factor; i++) {
                for (int c = 0; c < 3; c++) d_render[i * kChannels + c] = d_mean[c];
                d_alphas[i] = d_mean[3];
                if (kChannels < 4) continue;
                d_render[i * kChannels + kChannels - 1] = d_weighted * alphas[i];
                d_alphas[i] += d_weighted * render[i * kChannels + kChannels - 1];
            }
        }
    }
}

// Each thread's two rows and its list of weighted rows. Allocated before the threads start: an exception may not leave one.
struct RowScratch {
    std::vector<float> first, second;
    std::vector<WeightedRow> rows;

    explicit RowScratch(const GatherShape& s) {
        const size_t size = static_cast<size_t>(s.width + 4 * s.reach) * kPlanes + 2 * kLanes;
        first.resize(size), second.resize(size);
        rows.reserve(3 * (2 * s.reach + 1));  // a row and its two mirror images
    }
};

std::vector<RowScratch> make_scratches(const GatherShape& s, int threads) {
    std::vector<RowScratch> scratches;
    for (int i = 0; i < threads; i++) scratches.emplace_back(s);
    return scratches;
}

}  // namespace

void gather_forward(const GatherShape& s, const float* render, const float* alphas, float* out, float* out_alphas, int threads) {
    Rows means(s);
    const auto average = s.channels == 4 ? average_row<4> : average_row<3>;
    const size_t row = static_cast<size_t>(s.width) * s.channels;
    std::vector<RowScratch> scratches = make_scratches(s, threads);
#pragma omp parallel num_threads(threads)
    {
        auto& [padded, blurred, rows] = scratches[omp_get_thread_num()];
#pragma omp for schedule(static)
        for (int y = 0; y < s.height; y++) {
            average(s, y, render, alphas, means[y], out + y * row);
            for (int i = s.width * kPlanes; i < means.stride; i++) means[y][i] = 0.f;
        }
#pragma omp for schedule(static)
        for (int y = 0; y < s.height; y++)
            blur_row(s, y, means, rows, padded.data(), blurred.data(), out + y * row, out_alphas + static_cast<size_t>(y) * s.width);
    }
}

void gather_backward(const GatherShape& s, const float* render, const float* alphas, const float* d_out,
                     const float* d_out_alphas, float* d_render, float* d_alphas, int threads) {
    Rows d_rows(s);
    const auto spread = s.channels == 4 ? spread_row<4> : spread_row<3>;
    const size_t row = static_cast<size_t>(s.width) * s.channels;
    std::vector<RowScratch> scratches = make_scratches(s, threads);
#pragma omp parallel num_threads(threads)
    {
        auto& [padded, scratch, rows] = scratches[omp_get_thread_num()];
#pragma omp for schedule(static)
        for (int y = 0; y < s.height; y++) {
            const float* d_row_alphas = d_out_alphas ? d_out_alphas + static_cast<size_t>(y) * s.width : nullptr;
            unblur_row(s, d_out + y * row, d_row_alphas, padded.data(), scratch.data(), d_rows[y]);
            for (int i = s.width * kPlanes; i < d_rows.stride; i++) d_rows[y][i] = 0.f;
        }
#pragma omp for schedule(static)
        for (int y = 0; y < s.height; y++) {
            rows_that_read(s, y, d_rows, rows);
            sum_rows(rows, d_rows.stride, scratch.data());
            spread(s, y, render, alphas, scratch.data(), d_out + y * row, d_render, d_alphas);
        }
    }
}

}  // namespace closeup
