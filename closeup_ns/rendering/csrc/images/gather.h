// From a supersampled render to pixels: the mean of each factor x factor block, then a separable blur, and the adjoint.
#pragma once

namespace closeup {

// height x width are the pixels that come out; a row of the render is source_width samples. channels is 3 (colour) or
// 4 (and expected depth). taps holds 2 reach + 1 weights, symmetric; reach is below both sides. The border is mirrored
// without repeating the outermost pixel.
struct GatherShape {
    int height, width, channels, factor, source_width, reach;
    const float* taps;
};

// Colour and alpha are averaged and blurred; depth is averaged with the samples' alphas as weights and not blurred.
void gather_forward(const GatherShape& shape, const float* render, const float* alphas, float* out, float* out_alphas, int threads);

// render and alphas are read for depth only and may be null where channels is 3; d_out_alphas may be null.
void gather_backward(const GatherShape& shape, const float* render, const float* alphas, const float* d_out,
                     const float* d_out_alphas, float* d_render, float* d_alphas, int threads);

}  // namespace closeup
