// Calls every function of the kernels' C interface under the address and undefined-behaviour sanitizers, on random and on
// hard scenes. Every array is a heap block of exactly the size that the interface asks for, so that a read or write beyond
// it is seen; outputs start as a marker, so that an element that was never written is seen, too. Built and run by
// sanitize.py. Values are not judged here: test_rasterize.py, test_hard_inputs.py and test_fuzz.py do that.
#include "sanitize_driver.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace sanitize {

struct Projected {
    Floats means2d, covariances, whitening, conics, depths, opacities;
    Ints radii;
    explicit Projected(int64_t n)
        : means2d(unwritten(2 * n)), covariances(unwritten(3 * n)), whitening(unwritten(3 * n)), conics(unwritten(3 * n)),
          depths(unwritten(n)), opacities(unwritten(n)), radii(n, kUnwrittenInt) {}
};

Gaussians make_gaussians(Random& random, const Scene& s) {
    Gaussians g;
    g.means = random.normals(3 * s.count, s.spread);
    g.quats = random.normals(4 * s.count, 1.f);
    g.scales = random.normals(3 * s.count, 1.f);
    for (size_t i = 0; i < g.scales.size(); i++)
        g.scales[i] = s.size * std::exp(0.7f * g.scales[i]) * (s.needles ? (i % 3 ? 1e-4f : 30.f) : 1.f);
    g.opacities = random.normals(s.count, 1.f);
    for (float& o : g.opacities) o = s.opacity >= 0.f ? s.opacity : 1.f / (1.f + std::exp(-2.f * o));
    g.coefficients = random.normals(3 * s.bases * s.count, 0.3f);
    const float w = static_cast<float>(s.width), h = static_cast<float>(s.height);
    g.camera = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, s.distance, 0.9f * w, 0.8f * h, 0.52f * w, 0.47f * h, w, h,
                s.eps2d, s.near_plane, 1e10f, s.radius_clip, s.antialiased ? 1.f : 0.f};
    g.position = {0, 0, -s.distance};
    for (Floats* values : {&g.means, &g.quats, &g.scales, &g.opacities, &g.coefficients}) random.break_some(*values, s.broken);
    return g;
}

void project_backward(Random& random, const Scene& s, const Gaussians& g, const Projected& p, int threads) {
    const int64_t n = s.count;
    const Floats d_means2d = loss_gradient(random, s, 2 * n), d_covariances = loss_gradient(random, s, 3 * n);
    const Floats d_depths = loss_gradient(random, s, n), d_opacities = loss_gradient(random, s, n);
    for (bool with_camera : {false, true}) {
        Floats means = unwritten(3 * n), quats = unwritten(4 * n), scales = unwritten(3 * n), opacities = unwritten(n), camera(12);
        check(closeup_project_backward(n, g.camera.data(), g.means.data(), g.quats.data(), g.scales.data(), g.opacities.data(),
                                       p.radii.data(), d_means2d.data(), d_covariances.data(), d_depths.data(),
                                       d_opacities.data(), means.data(), quats.data(), scales.data(), opacities.data(),
                                       with_camera ? camera.data() : nullptr, threads));
        written({&means, &quats, &scales, &opacities});
    }
}

void shade(Random& random, const Scene& s, const Gaussians& g, const Projected& p, int threads) {
    const int64_t n = s.count;
    Floats colors = unwritten(3 * n), d_coefficients = unwritten(3 * s.bases * n), d_means = unwritten(3 * n), d_position = unwritten(3);
    check(closeup_shade_forward(n, s.bases, s.degree, g.means.data(), g.coefficients.data(), p.radii.data(), g.position.data(),
                                colors.data(), threads));
    const Floats d_colors = loss_gradient(random, s, 3 * n);
    check(closeup_shade_backward(n, s.bases, s.degree, g.means.data(), g.coefficients.data(), p.radii.data(), g.position.data(),
                                 colors.data(), d_colors.data(), d_coefficients.data(), d_means.data(), d_position.data(),
                                 threads));
    written({&colors, &d_coefficients, &d_means, &d_position});
}

void raster(Random& random, const Scene& s, const Projected& p, int threads) {
    const int64_t n = s.count;
    const size_t pixels = static_cast<size_t>(s.width) * s.height;
    Floats features = random.normals(s.channels * n, 1.f);
    random.break_some(features, s.broken);
    Floats image = unwritten(pixels * s.channels), alphas = unwritten(pixels);
    void* workspace = closeup_workspace_take();
    check(closeup_raster_forward(workspace, n, s.channels, s.width, s.height, s.keep_lists, s.expected_depth, p.means2d.data(),
                                 p.whitening.data(), p.opacities.data(), p.depths.data(), features.data(), p.radii.data(),
                                 image.data(), alphas.data(), threads));
    written({&image, &alphas});
    if (s.keep_lists) {
        const Floats d_image = loss_gradient(random, s, image.size()), d_alphas = loss_gradient(random, s, pixels);
        Floats means2d = unwritten(2 * n), covariances = unwritten(3 * n), opacities = unwritten(n);
        Floats d_features = unwritten(s.channels * n), absolute = unwritten(s.absolute ? 2 * n : 0);
        check(closeup_raster_backward(workspace, image.data(), alphas.data(), d_image.data(),
                                      s.antialiased ? d_alphas.data() : nullptr, p.opacities.data(), means2d.data(),
                                      covariances.data(), opacities.data(), d_features.data(),
                                      s.absolute ? absolute.data() : nullptr, threads));
        written({&means2d, &covariances, &opacities, &d_features, &absolute});
    }
    closeup_workspace_return(workspace);
}

void render(const Scene& s, int threads) {
    std::printf("  %s\n", s.name);
    Random random(static_cast<uint64_t>(s.count) * 977 + s.width);
    const int64_t n = s.count;
    const Gaussians g = make_gaussians(random, s);
    Projected p(n);
    check(closeup_project_forward(n, g.camera.data(), g.means.data(), g.quats.data(), g.scales.data(), g.opacities.data(),
                                  p.means2d.data(), p.covariances.data(), p.depths.data(), p.opacities.data(), p.radii.data(),
                                  p.whitening.data(), p.conics.data(), threads));
    written({&p.means2d, &p.covariances, &p.whitening, &p.conics, &p.depths, &p.opacities});
    project_backward(random, s, g, p, threads);
    shade(random, s, g, p, threads);
    raster(random, s, p, threads);
    render_surfels(random, s, g, threads);
}

void ssim(int height, int width, int channels, float broken, int threads) {
    std::printf("  ssim %dx%dx%d\n", width, height, channels);
    Random random(height * 31 + width);
    const size_t size = static_cast<size_t>(height) * width * channels;
    Floats image = random.normals(size, 1.f), reference = random.normals(size, 1.f), gradient = unwritten(size);
    random.break_some(image, broken);
    const Floats window(11, 1.f / 11.f);
    double value = 0;
    check(closeup_ssim(height, width, channels, image.data(), reference.data(), window.data(), nullptr, &value, threads));
    check(closeup_ssim(height, width, channels, image.data(), reference.data(), window.data(), gradient.data(), &value, threads));
    written({&gradient});
}

void gather(int height, int width, int channels, int factor, int spare, int reach, int threads) {
    std::printf("  gather %dx%dx%d by %d, a window of %d\n", width, height, channels, factor, factor + 2 * reach);
    Random random(height * 37 + width);
    const int source_width = width * factor + spare;
    const size_t samples = static_cast<size_t>(source_width) * (static_cast<size_t>(height) * factor), pixels = static_cast<size_t>(height) * width;
    const Floats window(factor + 2 * reach, 1.f), render = random.normals(samples * channels, 1.f), alphas = random.normals(samples, 1.f);
    Floats out = unwritten(pixels * channels), out_alphas = unwritten(pixels);
    check(closeup_gather_forward(height, width, channels, factor, source_width, reach, window.data(), render.data(), alphas.data(),
                                 out.data(), out_alphas.data(), threads));
    const Floats d_out = random.normals(pixels * channels, 1.f), d_out_alphas = random.normals(pixels, 1.f);
    Floats d_render = unwritten(samples * channels), d_alphas = unwritten(samples);
    const bool depth = channels == 4;
    for (const float* given : {static_cast<const float*>(nullptr), d_out_alphas.data()})
        check(closeup_gather_backward(height, width, channels, factor, source_width, reach, window.data(),
                                      depth ? render.data() : nullptr, depth ? alphas.data() : nullptr, d_out.data(), given,
                                      d_render.data(), d_alphas.data(), threads));
    written({&out, &out_alphas});
    if (spare == 0) written({&d_render, &d_alphas});
}

Scene scene(const char* name) {
    Scene s;
    s.name = name;
    return s;
}

std::vector<Scene> hard_scenes() {
    std::vector<Scene> all;
    auto add = [&](const char* name, auto change) {
        all.push_back(scene(name));
        change(all.back());
    };
    add("no Gaussians", [](Scene& s) { s.count = 0; });
    add("all behind the camera", [](Scene& s) { s.distance = -9.f; });
    add("among the Gaussians", [](Scene& s) { s.distance = 0.f, s.near_plane = 0.f; });
    add("one pixel", [](Scene& s) { s.width = s.height = 1, s.absolute = true; });
    add("8192 x 16", [](Scene& s) { s.width = 8192, s.height = 16; });
    add("16 x 8192", [](Scene& s) { s.width = 16, s.height = 8192; });
    add("the widest image", [](Scene& s) { s.width = 32767 * 32, s.height = 1, s.channels = 1; });
    add("needles, nothing added", [](Scene& s) { s.needles = s.antialiased = true, s.eps2d = 0.f; });
    add("points, nothing added", [](Scene& s) { s.size = 1e-12f, s.eps2d = 0.f; });
    add("larger than everything", [](Scene& s) { s.size = 1e18f, s.absolute = true; });
    add("opacity 0", [](Scene& s) { s.opacity = 0.f; });
    add("opacity 1", [](Scene& s) { s.opacity = 1.f, s.count = 1500; });
    add("opacity 1e38", [](Scene& s) { s.opacity = 1e38f; });
    add("a crowd on one tile", [](Scene& s) { s.count = 2600, s.width = s.height = 20, s.opacity = 0.02f, s.spread = 0.1f; });
    add("far outside", [](Scene& s) { s.spread = 1e9f; });
    add("broken numbers", [](Scene& s) { s.broken = 0.05f, s.count = 400, s.absolute = s.expected_depth = true; });
    add("only broken numbers", [](Scene& s) { s.broken = 1.f, s.antialiased = true; });
    add("broken gradients", [](Scene& s) { s.broken_gradients = s.antialiased = s.absolute = true; });
    add("no gradients", [](Scene& s) { s.keep_lists = false; });
    return all;
}

std::vector<Scene> ordinary_scenes() {
    std::vector<Scene> all;
    const int counts[] = {1, 15, 16, 17, 33, 1023, 1025}, sizes[] = {4, 5, 31, 32, 33, 65, 70};
    for (int i = 0; i < 7; i++) {
        Scene s = scene("ordinary");
        s.count = counts[i], s.width = sizes[i], s.height = sizes[6 - i], s.channels = i + 1;
        s.degree = i % 4, s.bases = i % 2 ? 16 : (s.degree + 1) * (s.degree + 1);
        s.antialiased = i % 2, s.expected_depth = i % 3 == 0, s.absolute = i % 2 == 0, s.radius_clip = i == 4 ? 3.f : 0.f;
        all.push_back(s);
    }
    return all;
}

}  // namespace sanitize

int main() {
    using namespace sanitize;
    for (int threads : {1, 3}) {
        std::printf("%s, %d threads\n", closeup_lanes(), threads);
        for (const Scene& s : ordinary_scenes()) render(s, threads);
        for (const Scene& s : hard_scenes()) render(s, threads);
        ssim(11, 11, 1, 0.f, threads), ssim(11, 64, 3, 0.f, threads), ssim(90, 27, 3, 0.02f, threads), ssim(75, 12, 4, 0.f, threads);
        gather(1, 1, 3, 1, 0, 0, threads), gather(9, 5, 4, 3, 2, 2, threads), gather(17, 33, 3, 2, 0, 16, threads);
        gather(6, 40, 4, 1, 0, 5, threads);
    }
    std::printf("clean\n");
}
