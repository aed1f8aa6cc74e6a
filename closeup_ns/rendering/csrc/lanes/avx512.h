// Lanes on AVX-512 (F, DQ): one register. Included by lanes.h only.
#pragma once

#include <immintrin.h>

#define CLOSEUP_LANES_NAME "avx512"

namespace closeup {

struct Lanes { __m512 v; };
using Mask = __mmask16;

CLOSEUP_INLINE Lanes broadcast(float x) { return {_mm512_set1_ps(x)}; }
CLOSEUP_INLINE Lanes load(const float* p) { return {_mm512_loadu_ps(p)}; }
CLOSEUP_INLINE void store(float* p, Lanes a) { _mm512_storeu_ps(p, a.v); }
CLOSEUP_INLINE void store_as_int(int32_t* p, Lanes a) { _mm512_storeu_si512(p, _mm512_cvttps_epi32(a.v)); }
CLOSEUP_INLINE Lanes operator+(Lanes a, Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
CLOSEUP_INLINE Lanes operator-(Lanes a, Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
CLOSEUP_INLINE Lanes operator*(Lanes a, Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
CLOSEUP_INLINE Lanes operator/(Lanes a, Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
CLOSEUP_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }    // a * b + c
CLOSEUP_INLINE Lanes fnma(Lanes a, Lanes b, Lanes c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c - a * b
CLOSEUP_INLINE Lanes minimum(Lanes a, Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
CLOSEUP_INLINE Lanes maximum(Lanes a, Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
CLOSEUP_INLINE Lanes square_root(Lanes a) { return {_mm512_sqrt_ps(a.v)}; }
CLOSEUP_INLINE Lanes absolute(Lanes a) { return {_mm512_abs_ps(a.v)}; }
CLOSEUP_INLINE Lanes truncate(Lanes a) { return {_mm512_cvtepi32_ps(_mm512_cvttps_epi32(a.v))}; }
CLOSEUP_INLINE Mask at_least(Lanes a, Lanes b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
CLOSEUP_INLINE Mask at_most(Lanes a, Lanes b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ); }
CLOSEUP_INLINE Mask above(Lanes a, Lanes b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
CLOSEUP_INLINE Mask both(Mask a, Mask b) { return a & b; }
CLOSEUP_INLINE bool any(Mask m) { return m != 0; }
CLOSEUP_INLINE Lanes keep(Mask m, Lanes a) { return {_mm512_maskz_mov_ps(m, a.v)}; }                  // m ? a : 0
CLOSEUP_INLINE Lanes select(Mask m, Lanes a, Lanes b) { return {_mm512_mask_blend_ps(m, b.v, a.v)}; }  // m ? a : b

// 1 / x to 23 bits: the 14-bit estimate and one Newton step.
CLOSEUP_INLINE Lanes reciprocal(Lanes x) {
    const __m512 r = _mm512_rcp14_ps(x.v);
    return {_mm512_mul_ps(r, _mm512_fnmadd_ps(x.v, r, _mm512_set1_ps(2.f)))};
}

// a * 2^n where ``shifted`` is n + kRoundToMantissa.
CLOSEUP_INLINE Lanes add_to_exponent(Lanes a, Lanes shifted) {
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23);
    return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.v), exponent))};
}

CLOSEUP_INLINE __m512 unpack_low_pairs(__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

CLOSEUP_INLINE __m512 unpack_high_pairs(__m512 a, __m512 b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
}

// rows[i][j] <-> rows[j][i].
CLOSEUP_INLINE void transpose(Lanes* rows) {
    __m512 t[16], u[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
        t[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
    }
    for (int i = 0; i < 16; i += 4) {
        u[i] = unpack_low_pairs(t[i], t[i + 2]);
        u[i + 1] = unpack_high_pairs(t[i], t[i + 2]);
        u[i + 2] = unpack_low_pairs(t[i + 1], t[i + 3]);
        u[i + 3] = unpack_high_pairs(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        rows[i].v = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        rows[i + 8].v = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        rows[i + 4].v = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        rows[i + 12].v = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

}  // namespace closeup
