// From a supersampled render to pixels: each is a sum of samples with the weights of a separable window, and the adjoint.
#pragma once

namespace closeup {

// height x width are the pixels that come out; a row of the render is source_width samples. channels is 3 (colour) or
// 4 (and expected depth). window holds factor + 2 reach weights, symmetric: a pixel's own factor samples and reach more on
// each side; reach is below both sides in samples. The border is mirrored without repeating the outermost sample.
struct GatherShape {
    int height, width, channels, factor, source_width, reach;
    const float* window;
};

// Depth is averaged over the pixel's own samples with their alphas as weights.
void gather_forward(const GatherShape& shape, const float* render, const float* alphas, float* out, float* out_alphas, int threads);

// render and alphas are read for depth only and may be null where channels is 3; d_out_alphas may be null.
void gather_backward(const GatherShape& shape, const float* render, const float* alphas, const float* d_out,
                     const float* d_out_alphas, float* d_render, float* d_alphas, int threads);

}  // namespace closeup
