// Sixteen floats at a time. One interface, five implementations chosen by the compiler's target flags: AVX-512 (one
// register), AVX2 (two), SSE2 and NEON (four), and four vectors of the compiler's own for anything else.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define CLOSEUP_INLINE static inline __attribute__((always_inline))

namespace closeup {
constexpr int kLanes = 16;
}

#if defined(CLOSEUP_GENERIC_LANES)  // asked for, where there would be a better one
#include "lanes/generic.h"
#elif defined(__AVX512F__) && defined(__AVX512DQ__)
#include "lanes/avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "lanes/avx2.h"
#elif defined(__SSE2__)
#include "lanes/sse2.h"
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include "lanes/neon.h"
#else
#include "lanes/generic.h"
#endif

namespace closeup {

CLOSEUP_INLINE Lanes operator*(float a, Lanes b) { return broadcast(a) * b; }
CLOSEUP_INLINE Lanes operator+(float a, Lanes b) { return broadcast(a) + b; }
CLOSEUP_INLINE Lanes operator-(float a, Lanes b) { return broadcast(a) - b; }
CLOSEUP_INLINE Lanes operator/(float a, Lanes b) { return broadcast(a) / b; }
CLOSEUP_INLINE Lanes operator-(Lanes a) { return broadcast(0.f) - a; }
CLOSEUP_INLINE Lanes zero() { return broadcast(0.f); }

// Stores a whole cache line that nobody will read soon; p is aligned to it.
CLOSEUP_INLINE void store_past_cache(float* p, Lanes a) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    _mm512_stream_ps(p, a.v);
#else
    store(p, a);
#endif
}

// Makes what store_past_cache wrote visible to the thread that this one hands over to.
CLOSEUP_INLINE void publish_stores() {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
    _mm_sfence();
#endif
}

CLOSEUP_INLINE float horizontal_sum(Lanes a) {
    alignas(64) float values[kLanes];
    store(values, a);
    float sum = 0.f;
    for (float value : values) sum += value;
    return sum;
}

// Adding this to |x| < 2^22 rounds x to an integer, which then sits in the low bits of the mantissa.
constexpr float kRoundToMantissa = 12582912.f;  // 1.5 * 2^23

// 2^x for |x| < 126, relative error below 3e-7: round to the nearest integer n, a polynomial on x - n, shift the exponent.
// The coefficients have the smallest largest relative error (9e-8) on [-0.5, 0.5] of those with 2^0 = 1.
CLOSEUP_INLINE Lanes exp2_lanes(Lanes x) {
    const Lanes shifted = x + broadcast(kRoundToMantissa);
    const Lanes fraction = x - (shifted - broadcast(kRoundToMantissa));
    Lanes p = fma(broadcast(1.326472876973524e-3f), fraction, broadcast(9.671513183269642e-3f));
    p = fma(p, fraction, broadcast(5.550733744477061e-2f));
    p = fma(p, fraction, broadcast(2.402224207708769e-1f));
    p = fma(p, fraction, broadcast(6.931469775951125e-1f));
    p = fma(p, fraction, broadcast(1.f));
    return add_to_exponent(p, shifted);
}

// 2^n for whole n in [-126, 126].
CLOSEUP_INLINE Lanes exp2_whole(Lanes n) { return add_to_exponent(broadcast(1.f), n + broadcast(kRoundToMantissa)); }

}  // namespace closeup
