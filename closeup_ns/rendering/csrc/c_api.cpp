// The plain C interface that kernels.py calls through ctypes: raw pointers into contiguous float32 / int32 tensors.
// C is one camera; N Gaussians; D channels; H x W pixels. Every function returns 0, or 1 where memory ran out.
#include <cstring>
#include <mutex>
#include <new>

#include "gaussians/spherical_harmonics.h"
#include "images/gather.h"
#include "images/ssim.h"
#include "projection/projection.h"
#include "surfels/blend.h"
#include "surfels/projection.h"
#include "tiles/workspace.h"

#define CLOSEUP_API extern "C" __attribute__((visibility("default")))

namespace {

using closeup::Camera;
using closeup::Workspace;

template <class Work>
int guarded(Work work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

Camera camera_from(const float* values) {
    Camera camera;
    memcpy(&camera, values, sizeof camera);
    return camera;
}

// Finished renders hand their memory to the next one: fresh pages would cost more than the sorting does.
constexpr size_t kIdleWorkspaces = 4;
std::mutex idle_mutex;
std::vector<Workspace*>& idle = *new std::vector<Workspace*>;  // never destroyed: a thread may render while Python ends

}  // namespace

CLOSEUP_API const char* closeup_lanes() { return CLOSEUP_LANES_NAME; }

CLOSEUP_API void* closeup_workspace_take() {
    const std::lock_guard<std::mutex> lock(idle_mutex);
    if (idle.empty()) return new (std::nothrow) Workspace();
    Workspace* workspace = idle.back();
    idle.pop_back();
    return workspace;
}

CLOSEUP_API void closeup_workspace_return(void* workspace) {
    const std::lock_guard<std::mutex> lock(idle_mutex);
    if (idle.size() < kIdleWorkspaces) idle.push_back(static_cast<Workspace*>(workspace));
    else delete static_cast<Workspace*>(workspace);
}

// In: means [N,3], quats [N,4], scales [N,3], opacities [N]. Out: means2d [N,2], covariances [N,3], depths [N],
// opacities [N] (compensated), radii [N], whitening, conics [N,3].
CLOSEUP_API int closeup_project_forward(int64_t n, const float* camera, const float* means, const float* quats, const float* scales,
                                        const float* opacities, float* means2d, float* covariances, float* depths,
                                        float* seen_opacities, int32_t* radii, float* whitening, float* conics, int threads) {
    return guarded([&] {
        project_forward(n, camera_from(camera), {means, quats, scales, opacities},
                        {means2d, covariances, whitening, conics, depths, seen_opacities, radii}, threads);
    });
}

CLOSEUP_API int closeup_project_backward(int64_t n, const float* camera, const float* means, const float* quats, const float* scales,
                                         const float* opacities, const int32_t* radii, const float* d_means2d,
                                         const float* d_covariances, const float* d_depths, const float* d_seen_opacities,
                                         float* d_means, float* d_quats, float* d_scales, float* d_opacities, float* d_viewmat,
                                         int threads) {
    return guarded([&] {
        project_backward(n, camera_from(camera), {means, quats, scales, opacities}, radii,
                         {d_means2d, d_covariances, d_depths, d_seen_opacities},
                         {d_means, d_quats, d_scales, d_opacities, d_viewmat}, threads);
    });
}

// coefficients [N,bases,3], position [3] of the camera; colors [N,3].
CLOSEUP_API int closeup_shade_forward(int64_t n, int bases, int degree, const float* means, const float* coefficients,
                                      const int32_t* radii, const float* position, float* colors, int threads) {
    return guarded([&] {
        closeup::shade_forward(closeup::ShadeInput{n, bases, degree, means, coefficients, radii, {position[0], position[1], position[2]}}, colors, threads);
    });
}

CLOSEUP_API int closeup_shade_backward(int64_t n, int bases, int degree, const float* means, const float* coefficients,
                                       const int32_t* radii, const float* position, const float* colors, const float* d_colors,
                                       float* d_coefficients, float* d_means, float* d_position, int threads) {
    return guarded([&] {
        closeup::shade_backward(closeup::ShadeInput{n, bases, degree, means, coefficients, radii, {position[0], position[1], position[2]}}, colors, d_colors,
                       d_coefficients, d_means, d_position, threads);
    });
}

// features [N,D]; channels [H,W,D], alphas [H,W].
CLOSEUP_API int closeup_raster_forward(void* workspace, int64_t n, int d, int width, int height, int keep_lists, int expected_depth,
                                       const float* means2d, const float* whitening, const float* opacities, const float* depths,
                                       const float* features, const int32_t* radii, float* channels, float* alphas,
                                       int threads) {
    return guarded([&] {
        Workspace& w = *static_cast<Workspace*>(workspace);
        w.count = n, w.channels = d, w.width = width, w.height = height;
        w.keep_lists = keep_lists, w.expected_depth = expected_depth, w.threads = threads;
        bin_splats(w, {means2d, whitening, opacities, depths, features, radii});
        rasterize_forward(w, {channels, alphas});
    });
}

// After closeup_raster_forward with keep_lists on the same workspace. d_alphas and absolute may be null.
CLOSEUP_API int closeup_raster_backward(void* workspace, const float* channels, const float* alphas, const float* d_channels,
                                        const float* d_alphas, const float* opacities, float* d_means2d, float* d_covariances,
                                        float* d_opacities, float* d_features, float* absolute, int threads) {
    return guarded([&] {
        Workspace& w = *static_cast<Workspace*>(workspace);
        w.threads = threads;
        w.scratch.resize(threads);
        rasterize_backward(w, {channels, alphas, d_channels, d_alphas}, opacities,
                           {d_means2d, d_covariances, d_opacities, d_features, absolute});
    });
}

// In: means [N,3], quats [N,4], scales [N,3], opacities [N]. Out: centers [N,2], covariances [N,3], perspective [N,2],
// means2d [N,2], normals [N,3], depths [N], opacities [N], radii [N], ray transforms [N,3,3], whitening [N,3].
CLOSEUP_API int closeup_project_surfels_forward(int64_t n, const float* camera, const float* means, const float* quats,
                                                const float* scales, const float* opacities, float* centers, float* covariances,
                                                float* perspective, float* means2d, float* normals, float* depths,
                                                float* seen_opacities, int32_t* radii, float* ray_transforms, float* whitening,
                                                int threads) {
    return guarded([&] {
        project_surfels_forward(n, camera_from(camera), {means, quats, scales, opacities},
                                {centers, covariances, perspective, means2d, normals, depths, seen_opacities, ray_transforms,
                                 whitening, radii}, threads);
    });
}

// d_viewmat [3,4] may be null.
CLOSEUP_API int closeup_project_surfels_backward(int64_t n, const float* camera, const float* means, const float* quats,
                                                 const float* scales, const float* opacities, const int32_t* radii,
                                                 const float* d_centers, const float* d_covariances, const float* d_perspective,
                                                 const float* d_means2d, const float* d_normals, const float* d_depths,
                                                 const float* d_seen_opacities, float* d_means, float* d_quats, float* d_scales,
                                                 float* d_opacities, float* d_viewmat, int threads) {
    return guarded([&] {
        project_surfels_backward(n, camera_from(camera), {means, quats, scales, opacities}, radii,
                                 {d_centers, d_covariances, d_perspective, d_means2d, d_normals, d_depths, d_seen_opacities},
                                 {d_means, d_quats, d_scales, d_opacities, d_viewmat}, threads);
    });
}

// centers, perspective, means2d [N,2], covariances, whitening, normals [N,3], ray_transforms [N,3,3], opacities, depths,
// radii [N], features [N,D] with D <= 4; channels [H,W,D], alphas [H,W], normal_image [H,W,3], distort [H,W]
// or null.
CLOSEUP_API int closeup_surfel_forward(void* workspace, int64_t n, int d, int width, int height, int keep_lists,
                                       int expected_depth, const float* centers, const float* covariances, const float* whitening,
                                       const float* perspective, const float* means2d, const float* ray_transforms,
                                       const float* opacities, const float* depths, const float* features, const float* normals,
                                       const int32_t* radii, float* channels, float* alphas, float* normal_image,
                                       float* distort, int threads) {
    return guarded([&] {
        Workspace& w = *static_cast<Workspace*>(workspace);
        w.count = n, w.channels = d, w.width = width, w.height = height;
        w.keep_lists = keep_lists, w.expected_depth = expected_depth, w.threads = threads;
        bin_surfels(w, {centers, covariances, whitening, perspective, means2d, ray_transforms, opacities, depths, features, normals, radii});
        rasterize_surfels_forward(w, {{channels, alphas}, normal_image, distort});
    });
}

// After closeup_surfel_forward with keep_lists on the same workspace. Images as there (distort may be null); d_* as their
// images, null where nobody uses one, d_channels excepted; the gradients' shapes are those of the inputs, densify [N,2].
CLOSEUP_API int closeup_surfel_backward(void* workspace, const float* channels, const float* alphas, const float* normal_image,
                                        const float* distort, const float* d_channels,
                                        const float* d_alphas, const float* d_normal_image, const float* d_distort,
                                        const float* opacities, float* d_centers, float* d_covariances,
                                        float* d_perspective, float* d_means2d, float* d_densify, float* d_opacities,
                                        float* d_features, float* d_normals, int threads) {
    return guarded([&] {
        Workspace& w = *static_cast<Workspace*>(workspace);
        w.threads = threads;
        w.scratch.resize(threads);
        rasterize_surfels_backward(
            w, {{channels, alphas, d_channels, d_alphas}, normal_image, distort, d_normal_image, d_distort}, opacities,
            {d_centers, d_covariances, d_perspective, d_means2d, d_densify, d_opacities, d_features, d_normals});
    });
}

// image, reference, gradient [H,W,channels] (gradient may be null), window [11]; value: one double.
CLOSEUP_API int closeup_ssim(int height, int width, int channels, const float* image, const float* reference, const float* window,
                             float* gradient, double* value, int threads) {
    return guarded([&] {
        *value = closeup::ssim_with_gradient(height, width, channels, image, reference, window, gradient, threads);
    });
}

// render [factor H.., source_width, channels], alphas alike with one channel, window [factor + 2 reach]; out [H,W,channels],
// out_alphas [H,W,1].
CLOSEUP_API int closeup_gather_forward(int height, int width, int channels, int factor, int source_width, int reach,
                                       const float* window, const float* render, const float* alphas, float* out, float* out_alphas,
                                       int threads) {
    return guarded([&] {
        closeup::gather_forward({height, width, channels, factor, source_width, reach, window}, render, alphas, out, out_alphas, threads);
    });
}

// render and alphas may be null for three channels, d_out_alphas always. Samples beyond the last whole pixel are not written.
CLOSEUP_API int closeup_gather_backward(int height, int width, int channels, int factor, int source_width, int reach,
                                        const float* window, const float* render, const float* alphas, const float* d_out,
                                        const float* d_out_alphas, float* d_render, float* d_alphas, int threads) {
    return guarded([&] {
        closeup::gather_backward({height, width, channels, factor, source_width, reach, window}, render, alphas, d_out, d_out_alphas,
                                 d_render, d_alphas, threads);
    });
}
