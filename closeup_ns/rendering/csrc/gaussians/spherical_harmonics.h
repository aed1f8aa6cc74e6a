// View-dependent colour: real spherical harmonics of degree 0 to 3, plus gsplat's +0.5 and clamp at zero.
#pragma once

#include <cstdint>

#include "lanes/lanes.h"

namespace closeup {

// coefficients: count x bases x 3, of which the first (degree + 1)^2 bases are used.
struct ShadeInput {
    int64_t count;
    int bases, degree;
    const float *means, *coefficients;
    const int32_t* radii;           // 0: culled, its colour is 0
    float camera[3];                // world position
};

void shade_forward(const ShadeInput& in, float* colors, int threads);

// d_camera (3 floats) may be null.
void shade_backward(const ShadeInput& in, const float* colors, const float* d_colors, float* d_coefficients, float* d_means,
                    float* d_camera, int threads);

}  // namespace closeup
