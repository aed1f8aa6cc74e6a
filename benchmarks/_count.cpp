// Counts what a render has to do at the least, by brute force over each Gaussian's box: slow, plain, and independent of
// the kernels that are measured.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

constexpr int kBlockSize = 4;               // pixels; one block is one vector of 16 lanes
constexpr double kMinAlpha = 1.0 / 255.0, kMaxAlpha = 0.999, kMinTransmittance = 1e-4;

struct Splat { double x, y, a, b, c, opacity; };
struct Range { int first, last; };  // blocks, both included

Range blocks_within(double center, double extent, int size) {
    const int first = static_cast<int>(std::max(0.0, std::floor(center - extent))) / kBlockSize;
    const int last = static_cast<int>(std::min(size - 1.0, std::floor(center + extent))) / kBlockSize;
    return {first, center + extent < 0 ? first - 1 : last};
}

class Counter {
  public:
    int64_t pairs = 0, entries = 0;

    Counter(int width, int height) : width_(width), height_(height), transmittance_(size_t(width) * height, 1.0) {}

    void add(const Splat& s) {
        const double determinant = s.a * s.c - s.b * s.b, reach = 2.0 * std::log(s.opacity / kMinAlpha);
        if (!(determinant > 0.0) || !(reach >= 0.0)) return;
        const Range columns = blocks_within(s.x, std::sqrt(reach * s.c / determinant), width_);
        const Range rows = blocks_within(s.y, std::sqrt(reach * s.a / determinant), height_);
        for (int row = rows.first; row <= rows.last; row++)
            for (int column = columns.first; column <= columns.last; column++) add_to_block(s, column, row);
    }

  private:
    int width_, height_;
    std::vector<double> transmittance_;

    // A pair counts where its weight enters the image; an entry where it reaches a pixel of a block that is still open.
    void add_to_block(const Splat& s, int column, int row) {
        bool reached = false, open = false;
        const int right = std::min(width_, (column + 1) * kBlockSize), bottom = std::min(height_, (row + 1) * kBlockSize);
        for (int y = row * kBlockSize; y < bottom; y++)
            for (int x = column * kBlockSize; x < right; x++) {
                double& transmittance = transmittance_[size_t(y) * width_ + x];
                open |= transmittance > kMinTransmittance;
                const double dx = s.x - (x + 0.5), dy = s.y - (y + 0.5);
                const double sigma = 0.5 * (s.a * dx * dx + s.c * dy * dy) + s.b * dx * dy;
                const double alpha = std::min(kMaxAlpha, s.opacity * std::exp(-sigma));
                if (alpha < kMinAlpha) continue;
                reached = true;
                transmittance *= 1.0 - alpha;
                pairs += transmittance > kMinTransmittance;
            }
        entries += reached && open;
    }
};

}  // namespace

// order [count]: Gaussians front to back. means2d [N,2], conics [N,3], opacities [N]; out: pairs, then block entries.
extern "C" __attribute__((visibility("default"))) void closeup_count_work(int64_t count, const int64_t* order, const float* means2d,
                                                                          const float* conics, const float* opacities, int width,
                                                                          int height, int64_t* out) {
    Counter counter(width, height);
    for (int64_t i = 0; i < count; i++) {
        const int64_t g = order[i];
        counter.add({means2d[2 * g], means2d[2 * g + 1], conics[3 * g], conics[3 * g + 1], conics[3 * g + 2], opacities[g]});
    }
    out[0] = counter.pairs;
    out[1] = counter.entries;
}
