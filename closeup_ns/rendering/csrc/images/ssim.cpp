// Fused SSIM. Images stay interleaved: a window along x is then a filter whose taps are ``channels`` floats apart, and all
// channels go through the same vector code. One pass over strips of rows filters four moments separably (a ring of 11
// filtered rows suffices) and keeps, per valid value, the derivative of its SSIM with respect to the three moments that
// contain the image. A second pass filters those back with the same window, which is the transpose.
#include "images/ssim.h"

#include <omp.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "tiles/buffer.h"
#include "lanes/lanes.h"

namespace closeup {
namespace {

constexpr float kC1 = 1e-4f, kC2 = 9e-4f;  // (0.01 * 1)^2, (0.03 * 1)^2
constexpr int kHalo = kSsimTaps - 1;
constexpr int kStrip = 64;                 // output rows per task
constexpr int kMoments = 4;                // a, b, aa + bb, ab: SSIM contains the variances only as their sum
constexpr int kDerivatives = 3;            // with respect to the moments a, aa + bb, ab

struct Job {
    int height, channels;
    int row, valid_row, stride;            // floats in a row, in a valid row, in a padded row
    int valid_height;
    const float *image, *reference, *window;
    Buffer<float> derivatives;             // derivative, valid row, stride

    size_t derivative_row(int derivative, int y) const {
        return (static_cast<size_t>(derivative) * valid_height + y) * stride;
    }
};

// Horizontal window sums of the moments of one row, into moments[m * stride + x]. ``samples``: scratch of that size.
void filter_row(const Job& job, int y, float* samples, float* moments) {
    const size_t offset = static_cast<size_t>(y) * job.row;
    float *a = samples, *b = a + job.stride, *squares = b + job.stride, *products = squares + job.stride;
    memcpy(a, job.image + offset, job.row * sizeof(float));  // a padded copy: vectors read past the end
    memcpy(b, job.reference + offset, job.row * sizeof(float));
    for (int x = 0; x < job.row; x += kLanes) {
        const Lanes va = load(a + x), vb = load(b + x);
        store(squares + x, fma(va, va, vb * vb));
        store(products + x, va * vb);
    }
    for (int x = 0; x < job.valid_row; x += kLanes) {
        Lanes m[kMoments];
        for (Lanes& value : m) value = zero();
        for (int k = 0; k < kSsimTaps; k++) {
            const Lanes weight = broadcast(job.window[k]);
            const float* sample = samples + x + k * job.channels;
            for (int i = 0; i < kMoments; i++) m[i] = fma(weight, load(sample + i * job.stride), m[i]);
        }
        for (int i = 0; i < kMoments; i++) store(moments + i * job.stride + x, m[i]);
    }
}

// SSIM of 16 values from their window moments, and its derivatives.
CLOSEUP_INLINE Lanes ssim_of(const Lanes* m, Lanes* derivatives) {
    const Lanes a = m[0], b = m[1], two = broadcast(2.f);
    const Lanes variances = fnma(a, a, fnma(b, b, m[2])), covariance = fnma(a, b, m[3]);
    const Lanes means_top = fma(two * a, b, broadcast(kC1)), means_bottom = fma(a, a, fma(b, b, broadcast(kC1)));
    const Lanes spread_top = fma(two, covariance, broadcast(kC2)), spread_bottom = variances + broadcast(kC2);
    const Lanes inverse = 1.f / (means_bottom * spread_bottom);
    const Lanes inverse_means = inverse * spread_bottom, inverse_spread = inverse * means_bottom;
    const Lanes value = means_top * spread_top * inverse;
    derivatives[0] = two * (b * (spread_top - means_top) * inverse + a * value * (inverse_spread - inverse_means));
    derivatives[1] = -value * inverse_spread;
    derivatives[2] = two * means_top * inverse;
    return value;
}

// SSIM of one output row, from the ring of filtered rows that starts at slot y % kSsimTaps; returns its sum.
double finish_row(Job& job, int y, const float* ring) {
    const size_t slot_size = static_cast<size_t>(kMoments) * job.stride;
    const float* rows[kSsimTaps];
    for (int k = 0; k < kSsimTaps; k++) rows[k] = ring + (y + k) % kSsimTaps * slot_size;
    double total = 0;
    for (int x = 0; x < job.valid_row; x += kLanes) {
        Lanes m[kMoments], derivatives[kDerivatives];
        for (int i = 0; i < kMoments; i++) {
            m[i] = zero();
            for (int k = 0; k < kSsimTaps; k++) m[i] = fma(broadcast(job.window[k]), load(rows[k] + i * job.stride + x), m[i]);
        }
        alignas(64) float lanes[kLanes];
        store(lanes, ssim_of(m, derivatives));
        const int inside = std::min(kLanes, job.valid_row - x);
        float sum = 0.f;
        for (int i = 0; i < inside; i++) sum += lanes[i];
        total += sum;
        if (job.derivatives.empty()) continue;
        for (int d = 0; d < kDerivatives; d++) {
            if (inside < kLanes) {  // beyond the valid row: nothing on the way back
                store(lanes, derivatives[d]);
                for (int i = inside; i < kLanes; i++) lanes[i] = 0.f;
                derivatives[d] = load(lanes);
            }
            store(&job.derivatives[job.derivative_row(d, y) + x], derivatives[d]);
        }
    }
    return total;
}

// Sum of SSIM over output rows [first, last), in a fixed order.
double filter_strip(Job& job, int first, int last, float* ring) {
    const size_t slot_size = static_cast<size_t>(kMoments) * job.stride;
    float* samples = ring + kSsimTaps * slot_size;
    double total = 0;
    for (int y = first; y < last + kHalo; y++) {
        filter_row(job, y, samples, ring + y % kSsimTaps * slot_size);
        if (y - kHalo >= first) total += finish_row(job, y - kHalo, ring);
    }
    return total;
}

// Gradient of 16 values, from the derivatives filtered along y; ``padded`` floats lie between one derivative and the next.
CLOSEUP_INLINE Lanes gradient_of(const Job& job, const float* filtered, int padded, Lanes a, Lanes b) {
    Lanes back[kDerivatives];
    for (Lanes& value : back) value = zero();
    for (int k = 0; k < kSsimTaps; k++)
        for (int d = 0; d < kDerivatives; d++)
            back[d] = fma(broadcast(job.window[k]), load(filtered + d * padded - k * job.channels), back[d]);
    return fma(b, back[2], fma(2.f * a, back[1], back[0]));
}

// Gradient of the sum of SSIM for one row of the image: the window, transposed, over the derivatives.
void gradient_row(const Job& job, int y, float scale, float* scratch, float* gradient) {
    const int margin = kHalo * job.channels + kLanes, padded = job.stride + margin;
    const int first = std::max(0, y - job.valid_height + 1), last = std::min(kHalo, y);
    for (int d = 0; d < kDerivatives; d++) {
        const float* rows[kSsimTaps] = {nullptr};
        for (int k = first; k <= last; k++) rows[k] = &job.derivatives[job.derivative_row(d, y - k)];
        for (int x = 0; x < job.valid_row; x += kLanes) {
            Lanes sum = zero();
            for (int k = first; k <= last; k++) sum = fma(broadcast(job.window[k]), load(rows[k] + x), sum);
            store(scratch + d * padded + margin + x, sum);
        }
    }
    const size_t offset = static_cast<size_t>(y) * job.row;
    const float *image = job.image + offset, *reference = job.reference + offset, *filtered = scratch + margin;
    float* out = gradient + offset;
    int x = 0;
    for (; x + kLanes <= job.row; x += kLanes)
        store(out + x, scale * gradient_of(job, filtered + x, padded, load(image + x), load(reference + x)));
    const size_t rest = (job.row - x) * sizeof(float);  // the last few must not touch what lies beyond the row
    alignas(64) float a[kLanes] = {0}, b[kLanes] = {0};
    memcpy(a, image + x, rest);
    memcpy(b, reference + x, rest);
    store(a, scale * gradient_of(job, filtered + x, padded, load(a), load(b)));
    memcpy(out + x, a, rest);
}

void all_gradients(const Job& job, float scale, float* gradient, int threads) {
    // Zeros on both sides of the valid row: no derivative comes from there. Allocated before the threads start: an
    // exception may not leave one.
    const size_t size = static_cast<size_t>(kDerivatives) * (job.stride + kHalo * job.channels + kLanes);
    std::vector<std::vector<float>> scratches(threads, std::vector<float>(size));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int y = 0; y < job.height; y++) gradient_row(job, y, scale, scratches[omp_get_thread_num()].data(), gradient);
}

}  // namespace

double ssim_with_gradient(int height, int width, int channels, const float* image, const float* reference, const float* window,
                          float* gradient, int threads) {
    Job job;
    job.height = height, job.channels = channels, job.valid_height = height - kHalo;
    job.row = width * channels, job.valid_row = (width - kHalo) * channels;
    job.stride = (job.row + 2 * kLanes + kLanes - 1) / kLanes * kLanes;
    job.image = image, job.reference = reference, job.window = window;
    static thread_local Buffer<float> kept_derivatives;  // fresh pages at each step would cost as much as a filter
    if (gradient) job.derivatives.swap(kept_derivatives);
    if (gradient) job.derivatives.resize(job.derivative_row(kDerivatives, 0));
    const int strips = (job.valid_height + kStrip - 1) / kStrip;
    std::vector<double> sums(strips);
    const size_t ring_size = static_cast<size_t>((kSsimTaps + 1) * kMoments) * job.stride;
    std::vector<std::vector<float>> rings(threads, std::vector<float>(ring_size));
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int s = 0; s < strips; s++) {
        float* ring = rings[omp_get_thread_num()].data();
        sums[s] = filter_strip(job, s * kStrip, std::min(job.valid_height, (s + 1) * kStrip), ring);
    }
    const double count = static_cast<double>(job.valid_height) * job.valid_row;
    if (gradient) all_gradients(job, static_cast<float>(1. / count), gradient, threads);
    if (gradient) job.derivatives.swap(kept_derivatives);
    double total = 0;
    for (double sum : sums) total += sum;
    return total / count;
}

}  // namespace closeup
