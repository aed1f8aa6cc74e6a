// The surfels' part of the sanitizer driver: see sanitize_driver.cpp.
#include <algorithm>

#include "sanitize_driver.h"

namespace sanitize {
namespace {

constexpr int kMostChannels = 4;

struct Projected {
    Floats centers, covariances, perspective, means2d, normals, depths, opacities, ray_transforms, whitening;
    Ints radii;
    explicit Projected(int64_t n)
        : centers(unwritten(2 * n)), covariances(unwritten(3 * n)), perspective(unwritten(2 * n)), means2d(unwritten(2 * n)),
          normals(unwritten(3 * n)), depths(unwritten(n)), opacities(unwritten(n)), ray_transforms(unwritten(9 * n)),
          whitening(unwritten(3 * n)), radii(n, kUnwrittenInt) {}
};

void project_backward(Random& random, const Scene& s, const Gaussians& g, const Projected& p, int threads) {
    const int64_t n = s.count;
    const Floats d_centers = loss_gradient(random, s, 2 * n), d_covariances = loss_gradient(random, s, 3 * n);
    const Floats d_perspective = loss_gradient(random, s, 2 * n), d_means2d = loss_gradient(random, s, 2 * n);
    const Floats d_normals = loss_gradient(random, s, 3 * n), d_depths = loss_gradient(random, s, n);
    const Floats d_opacities = loss_gradient(random, s, n);
    for (bool with_camera : {false, true}) {
        Floats means = unwritten(3 * n), quats = unwritten(4 * n), scales = unwritten(3 * n), opacities = unwritten(n), camera(12);
        check(closeup_project_surfels_backward(
            n, g.camera.data(), g.means.data(), g.quats.data(), g.scales.data(), g.opacities.data(), p.radii.data(),
            d_centers.data(), d_covariances.data(), d_perspective.data(), d_means2d.data(), d_normals.data(), d_depths.data(),
            d_opacities.data(), means.data(), quats.data(), scales.data(), opacities.data(),
            with_camera ? camera.data() : nullptr, threads));
        written({&means, &quats, &scales, &opacities});
    }
}

// Which of the images that may be left out are there, in forward and in what the loss reads.
struct Extras { bool distort, d_alphas, d_normals, d_distort; };

void blend_backward(Random& random, const Scene& s, const Projected& p, void* workspace, const Floats* images, const Extras& extras,
                    int channels, int threads) {
    const int64_t n = s.count;
    const size_t pixels = static_cast<size_t>(s.width) * s.height;
    const Floats d_image = loss_gradient(random, s, pixels * channels), d_alphas = loss_gradient(random, s, pixels);
    const Floats d_normal_image = loss_gradient(random, s, 3 * pixels), d_distort = loss_gradient(random, s, pixels);
    Floats centers = unwritten(2 * n), covariances = unwritten(3 * n), perspective = unwritten(2 * n), means2d = unwritten(2 * n);
    Floats densify = unwritten(2 * n), opacities = unwritten(n), features = unwritten(channels * n), normals = unwritten(3 * n);
    check(closeup_surfel_backward(
        workspace, images[0].data(), images[1].data(), images[2].data(), extras.distort ? images[3].data() : nullptr,
        d_image.data(), extras.d_alphas ? d_alphas.data() : nullptr, extras.d_normals ? d_normal_image.data() : nullptr,
        extras.d_distort ? d_distort.data() : nullptr, p.opacities.data(),
        centers.data(), covariances.data(), perspective.data(), means2d.data(), densify.data(), opacities.data(),
        features.data(), normals.data(), threads));
    written({&centers, &covariances, &perspective, &means2d, &densify, &opacities, &features, &normals});
}

void blend(Random& random, const Scene& s, const Projected& p, const Extras& extras, int threads) {
    const int64_t n = s.count;
    const int channels = std::min(s.channels, kMostChannels);
    const size_t pixels = static_cast<size_t>(s.width) * s.height;
    Floats features = random.normals(channels * n, 1.f);
    random.break_some(features, s.broken);
    Floats images[] = {unwritten(pixels * channels), unwritten(pixels), unwritten(3 * pixels),
                       unwritten(extras.distort ? pixels : 0)};
    void* workspace = closeup_workspace_take();
    check(closeup_surfel_forward(
        workspace, n, channels, s.width, s.height, s.keep_lists, s.expected_depth, p.centers.data(), p.covariances.data(),
        p.whitening.data(), p.perspective.data(), p.means2d.data(), p.ray_transforms.data(), p.opacities.data(), p.depths.data(),
        features.data(), p.normals.data(), p.radii.data(), images[0].data(), images[1].data(), images[2].data(),
        extras.distort ? images[3].data() : nullptr, threads));
    for (const Floats& image : images) written({&image});
    if (s.keep_lists) blend_backward(random, s, p, workspace, images, extras, channels, threads);
    closeup_workspace_return(workspace);
}

}  // namespace

void render_surfels(Random& random, const Scene& s, const Gaussians& g, int threads) {
    Projected p(s.count);
    check(closeup_project_surfels_forward(
        s.count, g.camera.data(), g.means.data(), g.quats.data(), g.scales.data(), g.opacities.data(), p.centers.data(),
        p.covariances.data(), p.perspective.data(), p.means2d.data(), p.normals.data(), p.depths.data(), p.opacities.data(),
        p.radii.data(), p.ray_transforms.data(), p.whitening.data(), threads));
    written({&p.centers, &p.covariances, &p.perspective, &p.means2d, &p.normals, &p.depths, &p.opacities});
    written({&p.ray_transforms, &p.whitening});
    project_backward(random, s, g, p, threads);
    blend(random, s, p, {}, threads);
    blend(random, s, p, {false, true, true, false}, threads);
    blend(random, s, p, {true, true, true, true}, threads);
}

}  // namespace sanitize
