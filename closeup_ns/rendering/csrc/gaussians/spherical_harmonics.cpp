// Spherical harmonics for 16 Gaussians at a time. A Gaussian's coefficients are one row of up to 48 floats in memory;
// register transposes turn 16 rows into one vector per coefficient, and gradients back into rows.
#include "gaussians/spherical_harmonics.h"

#include <algorithm>
#include <vector>

namespace closeup {
namespace {

constexpr int kMaxBases = 16, kMaxRow = kMaxBases * 3;
constexpr int kBlockOfGaussians = 1024;  // the camera's gradient is summed per block, then over blocks in order
constexpr float kTinySquare = 1e-30f;

constexpr float kC0 = 0.28209479177387814f, kC1 = 0.4886025119029199f;
constexpr float kC2xy = 1.0925484305920792f, kC2z = 0.31539156525252005f, kC2xx = 0.5462742152960396f;
constexpr float kC3a = 0.5900435899266435f, kC3b = 2.890611442640554f, kC3c = 0.4570457994644658f;
constexpr float kC3d = 0.3731763325901154f, kC3e = 1.445305721320277f;

constexpr int bases_of(int degree) { return (degree + 1) * (degree + 1); }

struct Direction { Lanes x, y, z, inverse_length; };

template <int kDegree>
CLOSEUP_INLINE void basis(const Direction& d, Lanes* b) {
    const Lanes x = d.x, y = d.y, z = d.z;
    b[0] = broadcast(kC0);
    if (kDegree < 1) return;
    b[1] = -kC1 * y, b[2] = kC1 * z, b[3] = -kC1 * x;
    if (kDegree < 2) return;
    const Lanes xx = x * x, yy = y * y, zz = z * z, xy = x * y;
    b[4] = kC2xy * xy, b[5] = -kC2xy * (y * z), b[6] = kC2z * fma(broadcast(3.f), zz, broadcast(-1.f));
    b[7] = -kC2xy * (x * z), b[8] = kC2xx * (xx - yy);
    if (kDegree < 3) return;
    const Lanes five_zz = 5.f * zz, three = broadcast(3.f);
    b[9] = -kC3a * (y * fma(three, xx, -yy)), b[10] = kC3b * (xy * z), b[11] = -kC3c * (y * (five_zz - broadcast(1.f)));
    b[12] = kC3d * (z * (five_zz - three)), b[13] = -kC3c * (x * (five_zz - broadcast(1.f)));
    b[14] = kC3e * (z * (xx - yy)), b[15] = -kC3a * (x * fma(-three, yy, xx));
}

// Sum over bases of d_basis[k] times the gradient of basis k with respect to the unit direction.
template <int kDegree>
CLOSEUP_INLINE void direction_gradient(const Direction& d, const Lanes* g, Lanes* out) {
    const Lanes x = d.x, y = d.y, z = d.z;
    out[0] = -kC1 * g[3], out[1] = -kC1 * g[1], out[2] = kC1 * g[2];
    if (kDegree < 2) return;
    out[0] = out[0] + kC2xy * (y * g[4] - z * g[7]) + (2.f * kC2xx) * (x * g[8]);
    out[1] = out[1] + kC2xy * (x * g[4] - z * g[5]) - (2.f * kC2xx) * (y * g[8]);
    out[2] = out[2] + (6.f * kC2z) * (z * g[6]) - kC2xy * (y * g[5] + x * g[7]);
    if (kDegree < 3) return;
    const Lanes xx = x * x, yy = y * y, five_zz = 5.f * z * z, xy = x * y, one = broadcast(1.f);
    const Lanes difference = 3.f * (xx - yy), ten_z = 10.f * z;
    out[0] = out[0] - kC3a * fma(6.f * xy, g[9], difference * g[15]) + kC3b * (y * z * g[10]) - kC3c * ((five_zz - one) * g[13]) +
             (2.f * kC3e) * (x * z * g[14]);
    out[1] = out[1] - kC3a * fma(difference, g[9], -6.f * xy * g[15]) + kC3b * (x * z * g[10]) - kC3c * ((five_zz - one) * g[11]) -
             (2.f * kC3e) * (y * z * g[14]);
    out[2] = out[2] + kC3b * (xy * g[10]) - kC3c * (ten_z * fma(y, g[11], x * g[13])) + (3.f * kC3d) * ((five_zz - one) * g[12]) +
             kC3e * ((xx - yy) * g[14]);
}

struct Group {
    int64_t begin;
    int count;
    Mask visible;
    bool any_visible;
};

Group make_group(const ShadeInput& in, int64_t begin, int64_t end) {
    Group group = {begin, static_cast<int>(std::min<int64_t>(kLanes, end - begin)), {}, false};
    alignas(64) float visible[kLanes] = {0};
    for (int i = 0; i < group.count; i++) visible[i] = in.radii[begin + i] > 0 ? 1.f : 0.f;
    group.visible = above(load(visible), zero());
    group.any_visible = any(group.visible);
    return group;
}

Direction direction_of(const ShadeInput& in, const Group& group) {
    alignas(64) float lanes[3][kLanes];
    for (int i = 0; i < kLanes; i++) {
        const int64_t record = group.begin + std::min(i, group.count - 1);
        for (int k = 0; k < 3; k++) lanes[k][i] = in.means[record * 3 + k] - in.camera[k];
    }
    const Lanes x = load(lanes[0]), y = load(lanes[1]), z = load(lanes[2]);
    const Lanes square = maximum(fma(x, x, fma(y, y, z * z)), broadcast(kTinySquare));
    const Lanes inverse = 1.f / square_root(square);
    return {x * inverse, y * inverse, z * inverse, inverse};
}

// rows[i] of the group become columns[f] = float f of each row.
template <int kRow>
CLOSEUP_INLINE void load_rows(const float* array, int stride, const Group& group, Lanes* columns) {
    constexpr int kSegments = (kRow + kLanes - 1) / kLanes;
    alignas(64) float rows[kLanes][kSegments * kLanes] = {};
    for (int i = 0; i < group.count; i++) memcpy(rows[i], array + (group.begin + i) * stride, kRow * sizeof(float));
    for (int s = 0; s < kSegments; s++) {
        for (int i = 0; i < kLanes; i++) columns[s * kLanes + i] = load(rows[i] + s * kLanes);
        transpose(columns + s * kLanes);
    }
}

// The opposite; floats of a row beyond kRow become zero.
template <int kRow>
CLOSEUP_INLINE void store_rows(float* array, int stride, const Group& group, Lanes* columns) {
    constexpr int kSegments = (kRow + kLanes - 1) / kLanes;
    alignas(64) float rows[kLanes][kSegments * kLanes];
    for (int f = kRow; f < kSegments * kLanes; f++) columns[f] = zero();
    for (int s = 0; s < kSegments; s++) {
        transpose(columns + s * kLanes);
        for (int i = 0; i < kLanes; i++) store(rows[i] + s * kLanes, columns[s * kLanes + i]);
    }
    for (int i = 0; i < group.count; i++) {
        float* row = array + (group.begin + i) * stride;
        memcpy(row, rows[i], kRow * sizeof(float));
        if (stride > kRow) memset(row + kRow, 0, (stride - kRow) * sizeof(float));
    }
}

template <int kDegree>
void forward_group(const ShadeInput& in, const Group& group, float* colors) {
    constexpr int kBases = bases_of(kDegree), kRow = 3 * kBases;
    Lanes coefficients[kMaxRow], b[kMaxBases], rgb[kLanes];
    load_rows<kRow>(in.coefficients, 3 * in.bases, group, coefficients);
    basis<kDegree>(direction_of(in, group), b);
    for (int c = 0; c < 3; c++) {
        Lanes sum = broadcast(0.5f);
        for (int k = 0; k < kBases; k++) sum = fma(b[k], coefficients[3 * k + c], sum);
        // sum - sum is 0, or NaN where the sum is not finite: a clamp would make a colour of it, the blend leaves NaN out.
        rgb[c] = keep(group.visible, maximum(sum, zero()) + (sum - sum));
    }
    store_rows<3>(colors, 3, group, rgb);
}

template <int kDegree>
void backward_group(const ShadeInput& in, const Group& group, const float* colors, const float* d_colors, float* d_coefficients,
                    float* d_means, Lanes* d_camera) {
    constexpr int kBases = bases_of(kDegree), kRow = 3 * kBases;
    Lanes color[kLanes], d_color[kLanes], coefficients[kMaxRow], b[kMaxBases];
    load_rows<3>(colors, 3, group, color);
    load_rows<3>(d_colors, 3, group, d_color);
    Mask counts = group.visible;  // also: a finite colour, since a coefficient of NaN makes NaN of a gradient of zero
    for (int c = 0; c < 3; c++) counts = both(counts, at_least(color[c], zero()));  // NaN is not
    for (int c = 0; c < 3; c++) d_color[c] = keep(both(counts, above(color[c], zero())), d_color[c]);
    load_rows<kRow>(in.coefficients, 3 * in.bases, group, coefficients);
    const Direction d = direction_of(in, group);
    basis<kDegree>(d, b);
    Lanes d_basis[kMaxBases], d_mean[kLanes];
    for (int k = 0; k < kBases; k++) {
        Lanes* c = coefficients + 3 * k;
        d_basis[k] = fma(c[0], d_color[0], fma(c[1], d_color[1], c[2] * d_color[2]));
        for (int i = 0; i < 3; i++) c[i] = keep(counts, b[k] * d_color[i]);
    }
    store_rows<kRow>(d_coefficients, 3 * in.bases, group, coefficients);
    for (int i = 0; i < 3; i++) d_mean[i] = zero();
    if (kDegree > 0) {
        direction_gradient<kDegree>(d, d_basis, d_mean);
        const Lanes radial = fma(d_mean[0], d.x, fma(d_mean[1], d.y, d_mean[2] * d.z));
        const Lanes unit[3] = {d.x, d.y, d.z};
        for (int i = 0; i < 3; i++) {
            d_mean[i] = keep(counts, fnma(radial, unit[i], d_mean[i]) * d.inverse_length);
            d_camera[i] = d_camera[i] - d_mean[i];
        }
    }
    store_rows<3>(d_means, 3, group, d_mean);
}

template <int kDegree>
void forward_all(const ShadeInput& in, float* colors, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t begin = 0; begin < in.count; begin += kLanes) {
        const Group group = make_group(in, begin, in.count);
        if (group.any_visible) forward_group<kDegree>(in, group, colors);
        else memset(colors + 3 * begin, 0, 3 * group.count * sizeof(float));
    }
}

template <int kDegree>
void backward_all(const ShadeInput& in, const float* colors, const float* d_colors, float* d_coefficients, float* d_means,
                  float* d_camera, int threads) {
    const int64_t blocks = (in.count + kBlockOfGaussians - 1) / kBlockOfGaussians;
    std::vector<float> partial(blocks * 3);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t block = 0; block < blocks; block++) {
        Lanes sum[3] = {zero(), zero(), zero()};
        const int64_t last = std::min<int64_t>(in.count, (block + 1) * kBlockOfGaussians);
        for (int64_t begin = block * kBlockOfGaussians; begin < last; begin += kLanes) {
            const Group group = make_group(in, begin, last);
            if (group.any_visible) {
                backward_group<kDegree>(in, group, colors, d_colors, d_coefficients, d_means, sum);
            } else {
                memset(d_coefficients + 3 * in.bases * begin, 0, 3 * in.bases * group.count * sizeof(float));
                memset(d_means + 3 * begin, 0, 3 * group.count * sizeof(float));
            }
        }
        for (int k = 0; k < 3; k++) partial[block * 3 + k] = horizontal_sum(sum[k]);
    }
    for (int k = 0; d_camera && k < 3; k++) {
        double total = 0;
        for (int64_t block = 0; block < blocks; block++) total += partial[block * 3 + k];
        d_camera[k] = static_cast<float>(total);
    }
}

}  // namespace

void shade_forward(const ShadeInput& in, float* colors, int threads) {
    if (in.degree == 0) forward_all<0>(in, colors, threads);
    else if (in.degree == 1) forward_all<1>(in, colors, threads);
    else if (in.degree == 2) forward_all<2>(in, colors, threads);
    else forward_all<3>(in, colors, threads);
}

void shade_backward(const ShadeInput& in, const float* colors, const float* d_colors, float* d_coefficients, float* d_means,
                    float* d_camera, int threads) {
    auto run = in.degree == 0 ? backward_all<0> : in.degree == 1 ? backward_all<1> : in.degree == 2 ? backward_all<2> : backward_all<3>;
    run(in, colors, d_colors, d_coefficients, d_means, d_camera, threads);
}

}  // namespace closeup
