// Fused SSIM. One pass over strips of rows filters the five moments separably and keeps, per valid pixel, the derivative
// of its SSIM with respect to the three moments that contain the image; a second pass filters those back (the transpose).
#include "ssim.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include "lanes.h"

namespace closeup {
namespace {

constexpr float kC1 = 1e-4f, kC2 = 9e-4f;  // (0.01 * 1)^2, (0.03 * 1)^2
constexpr int kHalo = kSsimTaps - 1;
constexpr int kStrip = 32;                 // output rows per task
constexpr int kMoments = 5;                // mean a, mean b, aa, bb, ab
constexpr int kDerivatives = 3;            // with respect to mean a, aa, ab

struct Job {
    int height, width, channels, valid_height, valid_width, stride;
    const float *image, *reference, *window;
    std::vector<float> derivatives;        // channel, derivative, valid row, stride

    size_t derivative_row(int channel, int derivative, int row) const {
        return (static_cast<size_t>(channel * kDerivatives + derivative) * valid_height + row) * stride;
    }
};

void load_row(const Job& job, const float* image, int channel, int row, float* out) {
    const float* in = image + static_cast<size_t>(row) * job.width * job.channels + channel;
    for (int x = 0; x < job.width; x++) out[x] = in[static_cast<size_t>(x) * job.channels];
}

// Horizontal window sums of the five moments of one row, into moments[m * plane + x].
void filter_row(const Job& job, const float* a, const float* b, float* moments, size_t plane) {
    for (int x = 0; x < job.valid_width; x += kLanes) {
        Lanes m[kMoments];
        for (Lanes& value : m) value = zero();
        for (int k = 0; k < kSsimTaps; k++) {
            const Lanes va = load(a + x + k), vb = load(b + x + k), weight = broadcast(job.window[k]);
            const Lanes wa = weight * va, wb = weight * vb;
            m[0] = m[0] + wa, m[1] = m[1] + wb;
            m[2] = fma(wa, va, m[2]), m[3] = fma(wb, vb, m[3]), m[4] = fma(wa, vb, m[4]);
        }
        for (int i = 0; i < kMoments; i++) store(moments + i * plane + x, m[i]);
    }
}

// SSIM of 16 pixels from their window moments, and its derivatives.
Lanes ssim_of(const Lanes* m, Lanes* derivatives) {
    const Lanes a = m[0], b = m[1], two = broadcast(2.f);
    const Lanes variances = fnma(a, a, m[2]) + fnma(b, b, m[3]), covariance = fnma(a, b, m[4]);
    const Lanes means_top = fma(two * a, b, broadcast(kC1)), means_bottom = fma(a, a, fma(b, b, broadcast(kC1)));
    const Lanes spread_top = fma(two, covariance, broadcast(kC2)), spread_bottom = variances + broadcast(kC2);
    const Lanes inverse_means = 1.f / means_bottom, inverse_spread = 1.f / spread_bottom, inverse = inverse_means * inverse_spread;
    const Lanes value = means_top * spread_top * inverse;
    derivatives[0] = two * b * (spread_top - means_top) * inverse + two * a * value * (inverse_spread - inverse_means);
    derivatives[1] = -value * inverse_spread;
    derivatives[2] = two * means_top * inverse;
    return value;
}

// Sum of SSIM over output rows [first, last) of a channel, summed in a fixed order.
double filter_strip(Job& job, int channel, int first, int last, float* scratch) {
    const size_t plane = static_cast<size_t>(kStrip + kHalo) * job.stride;
    float *row_a = scratch + kMoments * plane, *row_b = row_a + job.stride + kLanes;
    for (int r = 0; r < last - first + kHalo; r++) {
        load_row(job, job.image, channel, first + r, row_a);
        load_row(job, job.reference, channel, first + r, row_b);
        filter_row(job, row_a, row_b, scratch + static_cast<size_t>(r) * job.stride, plane);
    }
    double total = 0;
    for (int y = first; y < last; y++)
        for (int x = 0; x < job.valid_width; x += kLanes) {
            Lanes m[kMoments], derivatives[kDerivatives];
            for (int i = 0; i < kMoments; i++) {
                m[i] = zero();
                for (int k = 0; k < kSsimTaps; k++)
                    m[i] = fma(broadcast(job.window[k]), load(scratch + i * plane + static_cast<size_t>(y - first + k) * job.stride + x), m[i]);
            }
            alignas(64) float lanes[kLanes] = {0};
            store(lanes, ssim_of(m, derivatives));
            const int inside = std::min(kLanes, job.valid_width - x);
            for (int i = 0; i < inside; i++) total += lanes[i];
            if (job.derivatives.empty()) continue;
            for (int d = 0; d < kDerivatives; d++) {
                store(lanes, derivatives[d]);
                memcpy(&job.derivatives[job.derivative_row(channel, d, y) + x], lanes, inside * sizeof(float));
            }
        }
    return total;
}

// Gradient of the sum of SSIM for one row of a channel: the window, transposed, over the derivatives.
void gradient_row(const Job& job, int channel, int row, float scale, float* scratch, float* gradient) {
    const int padded = job.stride + 2 * kLanes;
    std::fill(scratch, scratch + kDerivatives * padded, 0.f);
    const int first = std::max(0, row - job.valid_height + 1), last = std::min(kHalo, row);
    for (int d = 0; d < kDerivatives; d++)
        for (int x = 0; x < job.valid_width; x += kLanes) {
            Lanes sum = zero();
            for (int k = first; k <= last; k++)
                sum = fma(broadcast(job.window[k]), load(&job.derivatives[job.derivative_row(channel, d, row - k) + x]), sum);
            store(scratch + d * padded + kLanes + x, sum);
        }
    const size_t offset = static_cast<size_t>(row) * job.width * job.channels + channel;
    for (int x = 0; x < job.width; x += kLanes) {
        alignas(64) float lanes[kDerivatives][kLanes];
        for (int d = 0; d < kDerivatives; d++) {
            Lanes sum = zero();
            for (int k = 0; k < kSsimTaps; k++) sum = fma(broadcast(job.window[k]), load(scratch + d * padded + kLanes + x - k), sum);
            store(lanes[d], sum);
        }
        for (int i = 0; i < std::min(kLanes, job.width - x); i++) {
            const size_t at = offset + static_cast<size_t>(x + i) * job.channels;
            gradient[at] = scale * (lanes[0][i] + 2.f * job.image[at] * lanes[1][i] + job.reference[at] * lanes[2][i]);
        }
    }
}

}  // namespace

double ssim_with_gradient(int height, int width, int channels, const float* image, const float* reference, const float* window,
                          float* gradient, int threads) {
    Job job = {height, width, channels, height - kHalo, width - kHalo, (width + 2 * kLanes - 1) / kLanes * kLanes,
               image, reference, window, {}};
    if (gradient) job.derivatives.assign(job.derivative_row(channels, 0, 0), 0.f);
    const int strips = (job.valid_height + kStrip - 1) / kStrip;
    std::vector<double> sums(static_cast<size_t>(channels) * strips);
    const double count = static_cast<double>(channels) * job.valid_height * job.valid_width;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> scratch(static_cast<size_t>(kMoments) * (kStrip + kHalo) * job.stride + 2 * (job.stride + kLanes));
#pragma omp for schedule(dynamic, 1)
        for (int task = 0; task < channels * strips; task++) {
            const int first = task % strips * kStrip;
            sums[task] = filter_strip(job, task / strips, first, std::min(job.valid_height, first + kStrip), scratch.data());
        }
        if (gradient) {
#pragma omp for schedule(static)
            for (int task = 0; task < channels * height; task++)
                gradient_row(job, task / height, task % height, static_cast<float>(1. / count), scratch.data(), gradient);
        }
    }
    double total = 0;
    for (double sum : sums) total += sum;
    return total / count;
}

}  // namespace closeup
