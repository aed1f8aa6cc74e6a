// The C interface of the surfels' blend; conventions as in c_api.cpp.
#include "c_api.h"
#include "surfel_blend.h"

using closeup::Workspace;

// centers, perspective, means2d [N,2], covariances, whitening, normals [N,3], ray_transforms [N,3,3], opacities, depths,
// radii [N], features [N,D] with D <= 4, background [D] or null; channels [H,W,D], alphas [H,W], normal_image [H,W,3],
// distort, median [H,W] or null. Distortion needs the median.
CLOSEUP_API int closeup_surfel_forward(void* workspace, int64_t n, int d, int width, int height, int keep_lists,
                                       int expected_depth, const float* centers, const float* covariances, const float* whitening,
                                       const float* perspective, const float* means2d, const float* ray_transforms,
                                       const float* opacities, const float* depths, const float* features, const float* normals,
                                       const int32_t* radii, const float* background, float* channels, float* alphas,
                                       float* normal_image, float* distort, float* median, int threads) {
    return closeup::guarded([&] {
        Workspace& w = *static_cast<Workspace*>(workspace);
        w.count = n, w.channels = d, w.width = width, w.height = height;
        w.keep_lists = keep_lists, w.expected_depth = expected_depth, w.threads = threads;
        bin_surfels(w, {centers, covariances, whitening, perspective, means2d, ray_transforms, opacities, depths, features, normals, radii});
        rasterize_surfels_forward(w, background, {{channels, alphas}, normal_image, distort, median});
    });
}

// After closeup_surfel_forward with keep_lists on the same workspace. Images as there (distort may be null); d_* as their
// images, null where nobody uses one, d_channels excepted; the gradients' shapes are those of the inputs, densify [N,2];
// absolute [N,2] may be null.
CLOSEUP_API int closeup_surfel_backward(void* workspace, const float* channels, const float* alphas, const float* normal_image,
                                        const float* distort, const float* d_channels,
                                        const float* d_alphas, const float* d_normal_image, const float* d_distort,
                                        const float* d_median, const float* opacities, float* d_centers, float* d_covariances,
                                        float* d_perspective, float* d_means2d, float* d_densify, float* d_opacities,
                                        float* d_features, float* d_normals, float* absolute, int threads) {
    return closeup::guarded([&] {
        Workspace& w = *static_cast<Workspace*>(workspace);
        w.threads = threads;
        w.scratch.resize(threads);
        rasterize_surfels_backward(
            w, {{channels, alphas, d_channels, d_alphas}, normal_image, distort, d_normal_image, d_distort, d_median}, opacities,
            {d_centers, d_covariances, d_perspective, d_means2d, d_densify, d_opacities, d_features, d_normals, absolute});
    });
}
