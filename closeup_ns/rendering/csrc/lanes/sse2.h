// Lanes on SSE2, which every 64-bit x86 has: four registers. There is no fused multiply-add. Included by lanes.h only.
#pragma once

#include <emmintrin.h>

#define CLOSEUP_LANES_NAME "sse2"

namespace closeup {
namespace quad {

using Vector = __m128;
using Mask = __m128;

CLOSEUP_INLINE Vector broadcast(float x) { return _mm_set1_ps(x); }
CLOSEUP_INLINE Vector load(const float* p) { return _mm_loadu_ps(p); }
CLOSEUP_INLINE void store(float* p, Vector x) { _mm_storeu_ps(p, x); }
CLOSEUP_INLINE void store_as_int(int32_t* p, Vector x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_cvttps_epi32(x));
}
CLOSEUP_INLINE Vector fma(Vector x, Vector y, Vector z) { return _mm_add_ps(_mm_mul_ps(x, y), z); }
CLOSEUP_INLINE Vector fnma(Vector x, Vector y, Vector z) { return _mm_sub_ps(z, _mm_mul_ps(x, y)); }
CLOSEUP_INLINE Vector minimum(Vector x, Vector y) { return _mm_min_ps(x, y); }
CLOSEUP_INLINE Vector maximum(Vector x, Vector y) { return _mm_max_ps(x, y); }
CLOSEUP_INLINE Vector square_root(Vector x) { return _mm_sqrt_ps(x); }
CLOSEUP_INLINE Vector absolute(Vector x) { return _mm_andnot_ps(_mm_set1_ps(-0.f), x); }
CLOSEUP_INLINE Vector truncate(Vector x) { return _mm_cvtepi32_ps(_mm_cvttps_epi32(x)); }
CLOSEUP_INLINE Mask at_least(Vector x, Vector y) { return _mm_cmpge_ps(x, y); }
CLOSEUP_INLINE Mask at_most(Vector x, Vector y) { return _mm_cmple_ps(x, y); }
CLOSEUP_INLINE Mask above(Vector x, Vector y) { return _mm_cmpgt_ps(x, y); }
CLOSEUP_INLINE Mask both(Mask x, Mask y) { return _mm_and_ps(x, y); }
CLOSEUP_INLINE Mask either(Mask x, Mask y) { return _mm_or_ps(x, y); }
CLOSEUP_INLINE bool any(Mask m) { return _mm_movemask_ps(m) != 0; }
CLOSEUP_INLINE Vector keep(Mask m, Vector x) { return _mm_and_ps(m, x); }
CLOSEUP_INLINE Vector select(Mask m, Vector x, Vector y) { return _mm_or_ps(_mm_and_ps(m, x), _mm_andnot_ps(m, y)); }

// 1 / x to 22 bits: the 12-bit estimate and one Newton step.
CLOSEUP_INLINE Vector reciprocal(Vector x) {
    const Vector r = _mm_rcp_ps(x);
    return _mm_mul_ps(r, fnma(x, r, broadcast(2.f)));
}

CLOSEUP_INLINE Vector add_to_exponent(Vector x, Vector shifted) {
    const __m128i exponent = _mm_slli_epi32(_mm_castps_si128(shifted), 23);
    return _mm_castsi128_ps(_mm_add_epi32(_mm_castps_si128(x), exponent));
}

CLOSEUP_INLINE void transpose(Vector* r) { _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]); }

}  // namespace quad
}  // namespace closeup

#include "lanes/quads.h"
