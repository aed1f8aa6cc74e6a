// Lanes on AVX2 with FMA: two registers. Included by lanes.h only.
#pragma once

#include <immintrin.h>

#define CLOSEUP_LANES_NAME "avx2"

namespace closeup {

struct Lanes { __m256 a, b; };
struct Mask { __m256 a, b; };

CLOSEUP_INLINE Lanes broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
CLOSEUP_INLINE Lanes load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
CLOSEUP_INLINE void store(float* p, Lanes x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
CLOSEUP_INLINE void store_as_int(int32_t* p, Lanes x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvttps_epi32(x.a));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), _mm256_cvttps_epi32(x.b));
}
CLOSEUP_INLINE Lanes operator+(Lanes x, Lanes y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
CLOSEUP_INLINE Lanes operator-(Lanes x, Lanes y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
CLOSEUP_INLINE Lanes operator*(Lanes x, Lanes y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
CLOSEUP_INLINE Lanes operator/(Lanes x, Lanes y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
CLOSEUP_INLINE Lanes minimum(Lanes x, Lanes y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
CLOSEUP_INLINE Lanes maximum(Lanes x, Lanes y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
CLOSEUP_INLINE Lanes fma(Lanes x, Lanes y, Lanes z) {  // x * y + z
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
CLOSEUP_INLINE Lanes fnma(Lanes x, Lanes y, Lanes z) {  // z - x * y
    return {_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
CLOSEUP_INLINE Lanes square_root(Lanes x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
CLOSEUP_INLINE Lanes absolute(Lanes x) {
    const __m256 sign = _mm256_set1_ps(-0.f);
    return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
CLOSEUP_INLINE Lanes truncate(Lanes x) {
    return {_mm256_cvtepi32_ps(_mm256_cvttps_epi32(x.a)), _mm256_cvtepi32_ps(_mm256_cvttps_epi32(x.b))};
}
CLOSEUP_INLINE Mask at_least(Lanes x, Lanes y) {
    return {_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ)};
}
CLOSEUP_INLINE Mask at_most(Lanes x, Lanes y) {
    return {_mm256_cmp_ps(x.a, y.a, _CMP_LE_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LE_OQ)};
}
CLOSEUP_INLINE Mask above(Lanes x, Lanes y) {
    return {_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)};
}
CLOSEUP_INLINE Mask both(Mask x, Mask y) { return {_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b)}; }
CLOSEUP_INLINE bool any(Mask m) { return _mm256_movemask_ps(_mm256_or_ps(m.a, m.b)) != 0; }
CLOSEUP_INLINE Lanes keep(Mask m, Lanes x) { return {_mm256_and_ps(m.a, x.a), _mm256_and_ps(m.b, x.b)}; }  // m ? x : 0
CLOSEUP_INLINE Lanes select(Mask m, Lanes x, Lanes y) {  // m ? x : y
    return {_mm256_blendv_ps(y.a, x.a, m.a), _mm256_blendv_ps(y.b, x.b, m.b)};
}

// 1 / x to 22 bits: the 12-bit estimate and one Newton step.
CLOSEUP_INLINE __m256 reciprocal_half(__m256 x) {
    const __m256 r = _mm256_rcp_ps(x);
    return _mm256_mul_ps(r, _mm256_fnmadd_ps(x, r, _mm256_set1_ps(2.f)));
}
CLOSEUP_INLINE Lanes reciprocal(Lanes x) { return {reciprocal_half(x.a), reciprocal_half(x.b)}; }

CLOSEUP_INLINE __m256 add_to_exponent_half(__m256 a, __m256 shifted) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent));
}
// x * 2^n where ``shifted`` is n + kRoundToMantissa.
CLOSEUP_INLINE Lanes add_to_exponent(Lanes x, Lanes shifted) {
    return {add_to_exponent_half(x.a, shifted.a), add_to_exponent_half(x.b, shifted.b)};
}

CLOSEUP_INLINE void transpose_quarter(__m256* r) {
    __m256 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
    }
}

// rows[i][j] <-> rows[j][i].
CLOSEUP_INLINE void transpose(Lanes* rows) {
    __m256 quarters[4][8];
    for (int i = 0; i < 8; i++) {
        quarters[0][i] = rows[i].a, quarters[1][i] = rows[i].b;
        quarters[2][i] = rows[i + 8].a, quarters[3][i] = rows[i + 8].b;
    }
    for (auto& quarter : quarters) transpose_quarter(quarter);
    for (int i = 0; i < 8; i++) {
        rows[i].a = quarters[0][i], rows[i].b = quarters[2][i];
        rows[i + 8].a = quarters[1][i], rows[i + 8].b = quarters[3][i];
    }
}

}  // namespace closeup
