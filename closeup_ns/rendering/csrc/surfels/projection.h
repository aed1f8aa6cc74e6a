// Projection of surfels: flat Gaussians with two tangents (2D Gaussian Splatting, Huang et al. 2024; gsplat's semantics).
//
// A point of the surfel's plane is mean + tangents s. With P = d pixel / d s at the centre and the tilt q = d log z / d s,
//     pixel - center = P s / (1 + q.s),        so with the perspective g = -P^-T q and d = pixel - center:
//     |s|^2 = |P^-1 d|^2 / W^2,   W = 1 + g.d = z_center / z_hit.
// The covariance P P^T and its whitening are those of a 3D Gaussian's footprint, W is all that perspective adds.
//
// The disc |s|^2 <= reach projects to an ellipse as long as it stays in front of the camera plane, reach |q|^2 < 1: it is
// d^T cov^-1 d <= reach (1 + g.d)^2, and completing the square gives, with k = reach / (1 - reach |q|^2),
//     centre = center + k cov g,      shape = k (cov + k (cov g)(cov g)^T).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "projection/projection.h"

namespace closeup {

constexpr float kMinSemiMinor = 1e-4f;     // pixels: a surfel thinner than this is seen edge-on, only the filter draws it
constexpr float kMinAxisRatio = 1e-6f;     // as thin as this, its thickness is rounding

constexpr float kMinRest = 1e-2f;          // of 1 - reach |q|^2: nearer to the camera plane, the ellipse is as good as endless
// Rounding may only ever enlarge an ellipse.
constexpr float kEllipseSlack = 1e-5f;     // relative
constexpr float kConditionSlack = 1e-6f;   // of the long axis, added to the short one: what rounding does to a needle
constexpr float kPositionSlack = 1e-4f;    // pixels: an image coordinate's rounding

struct ProjectedSurfels {
    float *centers, *covariances, *perspective, *means2d, *normals, *depths, *opacities, *ray_transforms, *whitening;
    int32_t* radii;
};
struct ProjectedSurfelGradients { const float *centers, *covariances, *perspective, *means2d, *normals, *depths, *opacities; };

void project_surfels_forward(int64_t count, const Camera& camera, const GaussianArrays& in, const ProjectedSurfels& out,
                             int threads);
void project_surfels_backward(int64_t count, const Camera& camera, const GaussianArrays& in, const int32_t* radii,
                              const ProjectedSurfelGradients& d_out, const GaussianGradients& d_in, int threads);

// 16 surfels on their way to the screen. The frame's third scale is 1: its third axis is the unit normal.
struct Surfel : Frame {
    Lanes toward;                    // 1, or -1 where the normal has to be flipped to point towards the camera
    Lanes tilt[2], tilt2;            // q and |q|^2
    Lanes one_sigma_rest;            // 1 - |q|^2
    Lanes det;                       // of P = [row_u; row_v]
    Lanes inverse_det;               // 0 where the surfel is seen edge-on
    Lanes perspective[2];            // g; 0 where the surfel is seen edge-on
    Lanes xx, xy, yy;                // P P^T
    Lanes center[2], offset[2];      // offset = means2d - center = -P q / (1 - |q|^2)
};

Surfel project_surfel(const Camera& camera, const Lanes* mean, const Lanes* quat, const Lanes* scale);

// One projected surfel, all in pixels. cov g = (means2d - center) (1 - tilt2), free of the cancellation in cov and g.
struct SurfelShape {
    float center[2], means2d[2], covariance[3];  // covariance: xx, xy, yy
    float area;                                  // |det P| = 1 / (l11 l22); 0 where the surfel is seen edge-on
    float tilt2;                                 // |q|^2 < 1: (M20^2 + M21^2) / M22^2 of the ray transform
};

struct Ellipse { float x, y, xx, xy, yy, det; };  // points p with (p - centre)^T shape^-1 (p - centre) <= 1

// The projection of the disc |s|^2 <= reach; false where it comes too near to the camera plane to be bounded.
static inline bool disc_ellipse(const SurfelShape& s, float reach, Ellipse& out) {
    const float rest = 1.f - reach * s.tilt2;
    if (!(rest > kMinRest)) return false;
    const float k = reach / rest, one_sigma_rest = 1.f - s.tilt2;
    const float shift_x = k * one_sigma_rest * (s.means2d[0] - s.center[0]);
    const float shift_y = k * one_sigma_rest * (s.means2d[1] - s.center[1]);
    out.x = s.center[0] + shift_x, out.y = s.center[1] + shift_y;
    out.xx = std::fma(shift_x, shift_x, k * s.covariance[0]);
    out.xy = std::fma(shift_x, shift_y, k * s.covariance[1]);
    out.yy = std::fma(shift_y, shift_y, k * s.covariance[2]);
    out.det = k * k * s.area * s.area / rest;
    return true;
}

// Enlarges an ellipse until it holds the disc of ``radius`` around (x, y), keeping its centre and its axes. Of two such
// ellipses it takes the smaller: both semi-axes at least as long as the disc is far; or, along the long axis, at least
// sqrt(2) times the disc's box, and across just enough for the box's corner (a needle stays a needle). Then ``slack``
// pixels are added to both semi-axes.
static inline Ellipse enclose_disc(const Ellipse& e, float x, float y, float radius, float slack) {
    const float half_difference = 0.5f * (e.xx - e.yy), spread = std::sqrt(half_difference * half_difference + e.xy * e.xy);
    const float major2 = 0.5f * (e.xx + e.yy) + spread;
    const float major = std::sqrt(major2), minor = major2 > 0.f ? std::sqrt(e.det / major2) : 0.f;
    // The long axis's direction, from whichever of its two forms does not cancel.
    float axis_x = half_difference >= 0.f ? half_difference + spread : e.xy;
    float axis_y = half_difference >= 0.f ? e.xy : spread - half_difference;
    const float length = std::sqrt(axis_x * axis_x + axis_y * axis_y);
    axis_x = length > 0.f ? axis_x / length : 1.f, axis_y = length > 0.f ? axis_y / length : 0.f;

    const float dx = x - e.x, dy = y - e.y, far = radius + std::sqrt(dx * dx + dy * dy);
    const float along = radius + std::fabs(dx * axis_x + dy * axis_y);
    const float across = radius + std::fabs(dy * axis_x - dx * axis_y);
    float a = std::max(major, std::sqrt(2.f) * along);
    float b = std::max(minor, a > 0.f ? across / std::sqrt(1.f - along * along / (a * a)) : 0.f);
    if (std::max(major, far) * std::max(minor, far) < a * b) a = std::max(major, far), b = std::max(minor, far);
    a = a * (1.f + kEllipseSlack) + slack;
    b = b * (1.f + kEllipseSlack) + kConditionSlack * a + slack;
    const float a2 = a * a, b2 = b * b, cos2 = axis_x * axis_x, sin2 = axis_y * axis_y;
    return {e.x, e.y, cos2 * a2 + sin2 * b2, axis_x * axis_y * (a2 - b2), sin2 * a2 + cos2 * b2, a2 * b2};
}

// An ellipse around every pixel that the surfel can reach with opacity exp(-sigma) >= 1/255, reach = 2 ln(255 opacity):
// the projected disc and the low-pass filter's circle of radius sqrt(reach / 2) around means2d. False: it is not bounded,
// the surfel may reach any pixel.
static inline bool support_ellipse(const SurfelShape& s, float reach, Ellipse& out) {
    const float filter_radius = std::sqrt(0.5f * reach);
    Ellipse disc = {s.means2d[0], s.means2d[1], 0.f, 0.f, 0.f, 0.f};
    if (s.area > 0.f && !disc_ellipse(s, reach, disc)) return false;
    // means2d - center is multiplied by up to reach / (1 - reach |q|^2) on its way into the ellipse, and its rounding with it.
    const float slack = kPositionSlack * (1.f + reach / std::max(kMinRest, 1.f - reach * s.tilt2));
    out = enclose_disc(disc, s.means2d[0], s.means2d[1], filter_radius, slack);
    return true;
}

}  // namespace closeup
