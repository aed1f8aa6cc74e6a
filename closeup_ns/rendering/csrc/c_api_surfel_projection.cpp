// The plain C interface to the projection of surfels. C is one camera; N surfels.
#include "c_api.h"
#include "surfel_projection.h"

using closeup::camera_from;
using closeup::guarded;

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
