// Lanes as four registers of four floats, from the operations on one that namespace quad holds. Included only by the files
// that define it: lanes_sse2.h, lanes_neon.h, lanes_generic.h.
#pragma once

namespace closeup {

struct Lanes { quad::Vector q[4]; };
struct Mask { quad::Mask q[4]; };

// NAME of the arguments' quads, one after the other. Written out: a loop would be unrolled only after the compiler has put
// the arrays into memory.
#define CLOSEUP_LIFT_1(RESULT, NAME, TYPE) \
    CLOSEUP_INLINE RESULT NAME(TYPE x) { return {quad::NAME(x.q[0]), quad::NAME(x.q[1]), quad::NAME(x.q[2]), quad::NAME(x.q[3])}; }
#define CLOSEUP_LIFT_2(RESULT, NAME, TYPE_X, TYPE_Y)                                   \
    CLOSEUP_INLINE RESULT NAME(TYPE_X x, TYPE_Y y) {                                   \
        return {quad::NAME(x.q[0], y.q[0]), quad::NAME(x.q[1], y.q[1]),                \
                quad::NAME(x.q[2], y.q[2]), quad::NAME(x.q[3], y.q[3])};               \
    }
#define CLOSEUP_LIFT_3(RESULT, NAME, TYPE_X, TYPE_Y, TYPE_Z)                           \
    CLOSEUP_INLINE RESULT NAME(TYPE_X x, TYPE_Y y, TYPE_Z z) {                         \
        return {quad::NAME(x.q[0], y.q[0], z.q[0]), quad::NAME(x.q[1], y.q[1], z.q[1]), \
                quad::NAME(x.q[2], y.q[2], z.q[2]), quad::NAME(x.q[3], y.q[3], z.q[3])}; \
    }
// GCC and Clang give their vector types the arithmetic operators.
#define CLOSEUP_LIFT_OPERATOR(OPERATOR)                                                \
    CLOSEUP_INLINE Lanes operator OPERATOR(Lanes x, Lanes y) {                         \
        return {x.q[0] OPERATOR y.q[0], x.q[1] OPERATOR y.q[1], x.q[2] OPERATOR y.q[2], x.q[3] OPERATOR y.q[3]}; \
    }

CLOSEUP_LIFT_OPERATOR(+)
CLOSEUP_LIFT_OPERATOR(-)
CLOSEUP_LIFT_OPERATOR(*)
CLOSEUP_LIFT_OPERATOR(/)
CLOSEUP_LIFT_3(Lanes, fma, Lanes, Lanes, Lanes)   // x * y + z
CLOSEUP_LIFT_3(Lanes, fnma, Lanes, Lanes, Lanes)  // z - x * y
CLOSEUP_LIFT_2(Lanes, minimum, Lanes, Lanes)      // x < y ? x : y, so y where either is NaN
CLOSEUP_LIFT_2(Lanes, maximum, Lanes, Lanes)
CLOSEUP_LIFT_1(Lanes, square_root, Lanes)
CLOSEUP_LIFT_1(Lanes, absolute, Lanes)
CLOSEUP_LIFT_1(Lanes, truncate, Lanes)
CLOSEUP_LIFT_1(Lanes, reciprocal, Lanes)
CLOSEUP_LIFT_2(Mask, at_least, Lanes, Lanes)
CLOSEUP_LIFT_2(Mask, at_most, Lanes, Lanes)
CLOSEUP_LIFT_2(Mask, above, Lanes, Lanes)
CLOSEUP_LIFT_2(Mask, both, Mask, Mask)
CLOSEUP_LIFT_2(Lanes, keep, Mask, Lanes)           // m ? x : 0
CLOSEUP_LIFT_3(Lanes, select, Mask, Lanes, Lanes)  // m ? x : y
CLOSEUP_LIFT_2(Lanes, add_to_exponent, Lanes, Lanes)  // x * 2^n where y is n + kRoundToMantissa

#undef CLOSEUP_LIFT_1
#undef CLOSEUP_LIFT_2
#undef CLOSEUP_LIFT_3
#undef CLOSEUP_LIFT_OPERATOR

CLOSEUP_INLINE Lanes broadcast(float x) {
    const quad::Vector v = quad::broadcast(x);
    return {v, v, v, v};
}
CLOSEUP_INLINE Lanes load(const float* p) { return {quad::load(p), quad::load(p + 4), quad::load(p + 8), quad::load(p + 12)}; }
CLOSEUP_INLINE void store(float* p, Lanes x) {
    quad::store(p, x.q[0]), quad::store(p + 4, x.q[1]), quad::store(p + 8, x.q[2]), quad::store(p + 12, x.q[3]);
}
CLOSEUP_INLINE void store_as_int(int32_t* p, Lanes x) {
    quad::store_as_int(p, x.q[0]), quad::store_as_int(p + 4, x.q[1]);
    quad::store_as_int(p + 8, x.q[2]), quad::store_as_int(p + 12, x.q[3]);
}
CLOSEUP_INLINE bool any(Mask m) { return quad::any(quad::either(quad::either(m.q[0], m.q[1]), quad::either(m.q[2], m.q[3]))); }

// rows[i][j] <-> rows[j][i]: 4x4 blocks are turned, and those off the diagonal swapped with their mirror images.
CLOSEUP_INLINE void transpose(Lanes* rows) {
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j <= i; j++) {
            quad::Vector below[4], above[4];
            for (int k = 0; k < 4; k++) below[k] = rows[4 * i + k].q[j], above[k] = rows[4 * j + k].q[i];
            quad::transpose(below);
            quad::transpose(above);
            for (int k = 0; k < 4; k++) rows[4 * j + k].q[i] = below[k], rows[4 * i + k].q[j] = above[k];
        }
    }
}

}  // namespace closeup
