// Lanes on NEON of 64-bit ARM, which every such processor has: four registers. Included by lanes.h only.
#pragma once

#include <arm_neon.h>

#define CLOSEUP_LANES_NAME "neon"

namespace closeup {
namespace quad {

using Vector = float32x4_t;
using Mask = uint32x4_t;

CLOSEUP_INLINE Vector broadcast(float x) { return vdupq_n_f32(x); }
CLOSEUP_INLINE Vector load(const float* p) { return vld1q_f32(p); }
CLOSEUP_INLINE void store(float* p, Vector x) { vst1q_f32(p, x); }
CLOSEUP_INLINE void store_as_int(int32_t* p, Vector x) { vst1q_s32(p, vcvtq_s32_f32(x)); }
CLOSEUP_INLINE Vector fma(Vector x, Vector y, Vector z) { return vfmaq_f32(z, x, y); }
CLOSEUP_INLINE Vector fnma(Vector x, Vector y, Vector z) { return vfmsq_f32(z, x, y); }
CLOSEUP_INLINE Vector square_root(Vector x) { return vsqrtq_f32(x); }
CLOSEUP_INLINE Vector absolute(Vector x) { return vabsq_f32(x); }
CLOSEUP_INLINE Vector truncate(Vector x) { return vrndq_f32(x); }
CLOSEUP_INLINE Mask at_least(Vector x, Vector y) { return vcgeq_f32(x, y); }
CLOSEUP_INLINE Mask at_most(Vector x, Vector y) { return vcleq_f32(x, y); }
CLOSEUP_INLINE Mask above(Vector x, Vector y) { return vcgtq_f32(x, y); }
CLOSEUP_INLINE Mask both(Mask x, Mask y) { return vandq_u32(x, y); }
CLOSEUP_INLINE Mask either(Mask x, Mask y) { return vorrq_u32(x, y); }
CLOSEUP_INLINE bool any(Mask m) { return vmaxvq_u32(m) != 0; }
CLOSEUP_INLINE Vector keep(Mask m, Vector x) { return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(x))); }
CLOSEUP_INLINE Vector select(Mask m, Vector x, Vector y) { return vbslq_f32(m, x, y); }

// Not vminq and vmaxq: those return NaN where either is, and the kernels count on y, as on x86.
CLOSEUP_INLINE Vector minimum(Vector x, Vector y) { return select(vcltq_f32(x, y), x, y); }
CLOSEUP_INLINE Vector maximum(Vector x, Vector y) { return select(vcgtq_f32(x, y), x, y); }

// The estimate has 8 bits and would need two Newton steps, so the division costs about the same and is exact.
CLOSEUP_INLINE Vector reciprocal(Vector x) { return vdivq_f32(broadcast(1.f), x); }

CLOSEUP_INLINE Vector add_to_exponent(Vector x, Vector shifted) {
    const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(shifted), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(x), exponent));
}

CLOSEUP_INLINE float64x2_t as_pairs(Vector x) { return vreinterpretq_f64_f32(x); }
CLOSEUP_INLINE Vector from_pairs(float64x2_t x) { return vreinterpretq_f32_f64(x); }

CLOSEUP_INLINE void transpose(Vector* r) {
    const float64x2_t even01 = as_pairs(vtrn1q_f32(r[0], r[1])), odd01 = as_pairs(vtrn2q_f32(r[0], r[1]));
    const float64x2_t even23 = as_pairs(vtrn1q_f32(r[2], r[3])), odd23 = as_pairs(vtrn2q_f32(r[2], r[3]));
    r[0] = from_pairs(vtrn1q_f64(even01, even23)), r[1] = from_pairs(vtrn1q_f64(odd01, odd23));
    r[2] = from_pairs(vtrn2q_f64(even01, even23)), r[3] = from_pairs(vtrn2q_f64(odd01, odd23));
}

}  // namespace quad
}  // namespace closeup

#include "lanes/quads.h"
