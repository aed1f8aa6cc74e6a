// Lanes on any target that GCC or Clang knows: four of the compiler's own 4-float vectors, the last resort for processors
// that have no file of their own. Included by lanes.h only.
#pragma once

#define CLOSEUP_LANES_NAME "generic"

namespace closeup {
namespace quad {

typedef float Vector __attribute__((vector_size(16)));
typedef int32_t Mask __attribute__((vector_size(16)));
typedef uint32_t Word __attribute__((vector_size(16)));

CLOSEUP_INLINE Vector broadcast(float x) { return Vector{x, x, x, x}; }
CLOSEUP_INLINE Vector load(const float* p) {
    Vector x;
    memcpy(&x, p, sizeof x);
    return x;
}
CLOSEUP_INLINE void store(float* p, Vector x) { memcpy(p, &x, sizeof x); }
CLOSEUP_INLINE Mask to_int(Vector x) { return __builtin_convertvector(x, Mask); }
CLOSEUP_INLINE void store_as_int(int32_t* p, Vector x) {
    const Mask whole = to_int(x);
    memcpy(p, &whole, sizeof whole);
}
CLOSEUP_INLINE Vector fma(Vector x, Vector y, Vector z) { return x * y + z; }
CLOSEUP_INLINE Vector fnma(Vector x, Vector y, Vector z) { return z - x * y; }
CLOSEUP_INLINE Mask at_least(Vector x, Vector y) { return x >= y; }
CLOSEUP_INLINE Mask at_most(Vector x, Vector y) { return x <= y; }
CLOSEUP_INLINE Mask above(Vector x, Vector y) { return x > y; }
CLOSEUP_INLINE Mask both(Mask x, Mask y) { return x & y; }
CLOSEUP_INLINE Mask either(Mask x, Mask y) { return x | y; }
CLOSEUP_INLINE bool any(Mask m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
CLOSEUP_INLINE Vector keep(Mask m, Vector x) { return (Vector)((Mask)x & m); }
CLOSEUP_INLINE Vector select(Mask m, Vector x, Vector y) { return (Vector)(((Mask)x & m) | ((Mask)y & ~m)); }
CLOSEUP_INLINE Vector minimum(Vector x, Vector y) { return select(x < y, x, y); }
CLOSEUP_INLINE Vector maximum(Vector x, Vector y) { return select(x > y, x, y); }
CLOSEUP_INLINE Vector absolute(Vector x) { return (Vector)((Mask)x & 0x7fffffff); }
CLOSEUP_INLINE Vector truncate(Vector x) { return __builtin_convertvector(to_int(x), Vector); }
CLOSEUP_INLINE Vector reciprocal(Vector x) { return 1.f / x; }
CLOSEUP_INLINE Vector square_root(Vector x) { return Vector{sqrtf(x[0]), sqrtf(x[1]), sqrtf(x[2]), sqrtf(x[3])}; }
// Unsigned: what lies outside exp2's range may wrap, and is masked later.
CLOSEUP_INLINE Vector add_to_exponent(Vector x, Vector shifted) { return (Vector)((Word)x + ((Word)shifted << 23)); }

CLOSEUP_INLINE void transpose(Vector* r) {
    const Vector a = r[0], b = r[1], c = r[2], d = r[3];
    for (int i = 0; i < 4; i++) r[i] = Vector{a[i], b[i], c[i], d[i]};
}

}  // namespace quad
}  // namespace closeup

#include "lanes/quads.h"
