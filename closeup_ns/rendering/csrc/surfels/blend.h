// The stages of the surfels' blend; records.h explains them.
#pragma once

#include "tiles/workspace.h"

namespace closeup {

// Pointers into the caller's arrays, all row-major and contiguous; see c_api.cpp for the shapes.
struct SurfelArrays {
    const float *centers, *covariances, *whitening, *perspective, *means2d, *ray_transforms, *opacities, *depths, *features, *normals;
    const int32_t* radii;
};
struct SurfelImage {
    ImageArrays blend;
    float *normals, *distort;  // the last may be null
};
// Images, and their gradients: null where nobody uses one, but for those of the channels.
struct SurfelImageGradients {
    ImageGradients blend;
    const float *normals, *distort, *d_normals, *d_distort;
};
struct SurfelGradients {
    float *centers, *covariances, *perspective, *means2d, *densify, *opacities, *features, *normals;
};

void bin_surfels(Workspace& w, const SurfelArrays& surfels);
void rasterize_surfels_forward(Workspace& w, const SurfelImage& image);
void rasterize_surfels_backward(Workspace& w, const SurfelImageGradients& image, const float* opacities,
                                const SurfelGradients& out);

}  // namespace closeup
