// Structural similarity (Wang et al. 2004) with its gradient: 11-tap Gaussian window, valid padding, data range 1.
#pragma once

namespace closeup {

constexpr int kSsimTaps = 11;

// Mean SSIM of two interleaved images of height x width x channels, each side at least kSsimTaps. ``gradient`` (may be
// null) receives the derivative of the mean with respect to the first image.
double ssim_with_gradient(int height, int width, int channels, const float* image, const float* reference, const float* window,
                          float* gradient, int threads);

}  // namespace closeup
