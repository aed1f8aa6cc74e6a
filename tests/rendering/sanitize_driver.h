// The kernels' C interface as the sanitizer driver calls it, hostile random numbers, and the check that outputs are written.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <vector>

extern "C" {
const char* closeup_lanes();
void* closeup_workspace_take();
void closeup_workspace_return(void* workspace);
int closeup_project_forward(int64_t, const float*, const float*, const float*, const float*, const float*, float*, float*, float*,
                            float*, int32_t*, float*, float*, int);
int closeup_project_backward(int64_t, const float*, const float*, const float*, const float*, const float*, const int32_t*,
                             const float*, const float*, const float*, const float*, float*, float*, float*, float*, float*, int);
int closeup_shade_forward(int64_t, int, int, const float*, const float*, const int32_t*, const float*, float*, int);
int closeup_shade_backward(int64_t, int, int, const float*, const float*, const int32_t*, const float*, const float*, const float*,
                           float*, float*, float*, int);
int closeup_raster_forward(void*, int64_t, int, int, int, int, int, const float*, const float*, const float*, const float*,
                           const float*, const int32_t*, float*, float*, int);
int closeup_raster_backward(void*, const float*, const float*, const float*, const float*, const float*, float*, float*, float*,
                            float*, float*, int);
int closeup_project_surfels_forward(int64_t, const float*, const float*, const float*, const float*, const float*, float*, float*,
                                    float*, float*, float*, float*, float*, int32_t*, float*, float*, int);
int closeup_project_surfels_backward(int64_t, const float*, const float*, const float*, const float*, const float*, const int32_t*,
                                     const float*, const float*, const float*, const float*, const float*, const float*,
                                     const float*, float*, float*, float*, float*, float*, int);
int closeup_surfel_forward(void*, int64_t, int, int, int, int, int, const float*, const float*, const float*, const float*,
                           const float*, const float*, const float*, const float*, const float*, const float*, const int32_t*,
                           float*, float*, float*, float*, int);
int closeup_surfel_backward(void*, const float*, const float*, const float*, const float*, const float*, const float*, const float*,
                            const float*, const float*, float*, float*, float*, float*, float*, float*, float*, float*, int);
int closeup_ssim(int, int, int, const float*, const float*, const float*, float*, double*, int);
int closeup_gather_forward(int, int, int, int, int, int, const float*, const float*, const float*, float*, float*, int);
int closeup_gather_backward(int, int, int, int, int, int, const float*, const float*, const float*, const float*, const float*,
                            float*, float*, int);
}

namespace sanitize {

using Floats = std::vector<float>;
using Ints = std::vector<int32_t>;

constexpr uint32_t kUnwritten = 0x7fc0dead;  // a NaN that no arithmetic makes
constexpr int32_t kUnwrittenInt = 0x5a5a5a5a;

inline Floats unwritten(size_t size) {
    float marker;
    std::memcpy(&marker, &kUnwritten, sizeof marker);
    return Floats(size, marker);
}

inline void fail(const char* what) {
    std::fprintf(stderr, "sanitize_driver: %s\n", what);
    std::abort();
}

inline void written(std::initializer_list<const Floats*> outputs) {
    for (const Floats* output : outputs)
        for (const float& value : *output) {
            uint32_t bits;
            std::memcpy(&bits, &value, sizeof bits);
            if (bits == kUnwritten) fail("an output element was never written");
        }
}

inline void check(int status) {
    if (status != 0) fail("out of memory");
}

// Numbers that depend on the seed alone.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed * 2654435761u + 88172645463325252u) {}

    float uniform() {
        state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
        return static_cast<float>(state_ >> 40) / 16777216.f;
    }
    float normal() { return std::sqrt(-2.f * std::log(1.f - uniform())) * std::cos(6.2831853f * uniform()); }
    Floats normals(size_t size, float scale) {
        Floats values(size);
        for (float& value : values) value = scale * normal();
        return values;
    }
    // Replaces a share of the values by what no kernel should be given.
    void break_some(Floats& values, float share) {
        constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
        const float hostile[] = {nan, inf, -inf, 3e38f, -3e38f, 1e20f, 1e-40f, 0.f, -0.f, -1.f};
        for (float& value : values)
            if (uniform() < share) value = hostile[static_cast<int>(uniform() * 10.f)];
    }

  private:
    uint64_t state_;
};

// What a render needs, hostile or not.
struct Scene {
    const char* name;
    int64_t count = 100;
    int width = 45, height = 37, channels = 4, degree = 3, bases = 16;
    float eps2d = 0.3f, near_plane = 0.01f, distance = 3.f, size = 0.15f, spread = 1.f, opacity = -1.f, radius_clip = 0.f;
    bool needles = false, antialiased = false, expected_depth = false, absolute = false, keep_lists = true;
    float broken = 0.f;             // share of values that are NaN, infinite, huge or denormal
    bool broken_gradients = false;  // in what comes back from the loss, too
};

struct Gaussians { Floats means, quats, scales, opacities, coefficients, camera, position; };

// Random numbers in place of what comes back from the loss.
inline Floats loss_gradient(Random& random, const Scene& s, size_t size) {
    Floats values = random.normals(size, 1.f);
    random.break_some(values, s.broken_gradients ? 0.02f : 0.f);
    return values;
}

// The same Gaussians as surfels, through every function of the surfels' interface (sanitize_driver_surfels.cpp).
void render_surfels(Random& random, const Scene& s, const Gaussians& g, int threads);

}  // namespace sanitize
