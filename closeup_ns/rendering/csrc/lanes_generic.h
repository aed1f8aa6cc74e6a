// Lanes on any target that GCC or Clang knows: four 4-float vectors (SSE2, NEON). Included by lanes.h only.
#pragma once

#define CLOSEUP_LANES_NAME "generic"

namespace closeup {

typedef float Quad __attribute__((vector_size(16)));
typedef int32_t QuadBits __attribute__((vector_size(16)));

struct Lanes { Quad q[4]; };
struct Mask { QuadBits q[4]; };

// Applies EXPR, which may use i, to each of the four quads of a result of type TYPE.
#define CLOSEUP_EACH_QUAD(TYPE, EXPR) \
    TYPE r;                           \
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) r.q[i] = (EXPR); \
    return r

CLOSEUP_INLINE Lanes broadcast(float x) { CLOSEUP_EACH_QUAD(Lanes, (Quad{x, x, x, x})); }
CLOSEUP_INLINE Lanes load(const float* p) {
    Lanes r;
    memcpy(&r, p, sizeof r);
    return r;
}
CLOSEUP_INLINE void store(float* p, Lanes a) { memcpy(p, &a, sizeof a); }
CLOSEUP_INLINE QuadBits to_int(Quad a) { return __builtin_convertvector(a, QuadBits); }
CLOSEUP_INLINE void store_as_int(int32_t* p, Lanes a) {
    for (int i = 0; i < 4; i++) {
        const QuadBits whole = to_int(a.q[i]);
        memcpy(p + 4 * i, &whole, sizeof whole);
    }
}
CLOSEUP_INLINE Lanes operator+(Lanes a, Lanes b) { CLOSEUP_EACH_QUAD(Lanes, a.q[i] + b.q[i]); }
CLOSEUP_INLINE Lanes operator-(Lanes a, Lanes b) { CLOSEUP_EACH_QUAD(Lanes, a.q[i] - b.q[i]); }
CLOSEUP_INLINE Lanes operator*(Lanes a, Lanes b) { CLOSEUP_EACH_QUAD(Lanes, a.q[i] * b.q[i]); }
CLOSEUP_INLINE Lanes operator/(Lanes a, Lanes b) { CLOSEUP_EACH_QUAD(Lanes, a.q[i] / b.q[i]); }
CLOSEUP_INLINE Lanes fma(Lanes a, Lanes b, Lanes c) { CLOSEUP_EACH_QUAD(Lanes, a.q[i] * b.q[i] + c.q[i]); }
CLOSEUP_INLINE Lanes fnma(Lanes a, Lanes b, Lanes c) { CLOSEUP_EACH_QUAD(Lanes, c.q[i] - a.q[i] * b.q[i]); }
CLOSEUP_INLINE Mask at_least(Lanes a, Lanes b) { CLOSEUP_EACH_QUAD(Mask, a.q[i] >= b.q[i]); }
CLOSEUP_INLINE Mask at_most(Lanes a, Lanes b) { CLOSEUP_EACH_QUAD(Mask, a.q[i] <= b.q[i]); }
CLOSEUP_INLINE Mask above(Lanes a, Lanes b) { CLOSEUP_EACH_QUAD(Mask, a.q[i] > b.q[i]); }
CLOSEUP_INLINE Mask both(Mask a, Mask b) { CLOSEUP_EACH_QUAD(Mask, a.q[i] & b.q[i]); }
CLOSEUP_INLINE Lanes keep(Mask m, Lanes a) { CLOSEUP_EACH_QUAD(Lanes, (Quad)((QuadBits)a.q[i] & m.q[i])); }  // m ? a : 0
CLOSEUP_INLINE Lanes select(Mask m, Lanes a, Lanes b) {                                                       // m ? a : b
    CLOSEUP_EACH_QUAD(Lanes, (Quad)(((QuadBits)a.q[i] & m.q[i]) | ((QuadBits)b.q[i] & ~m.q[i])));
}
CLOSEUP_INLINE Lanes minimum(Lanes a, Lanes b) { CLOSEUP_EACH_QUAD(Lanes, a.q[i] < b.q[i] ? a.q[i] : b.q[i]); }
CLOSEUP_INLINE Lanes maximum(Lanes a, Lanes b) { CLOSEUP_EACH_QUAD(Lanes, a.q[i] > b.q[i] ? a.q[i] : b.q[i]); }
CLOSEUP_INLINE Lanes absolute(Lanes a) { CLOSEUP_EACH_QUAD(Lanes, (Quad)((QuadBits)a.q[i] & 0x7fffffff)); }
CLOSEUP_INLINE Lanes truncate(Lanes a) { CLOSEUP_EACH_QUAD(Lanes, __builtin_convertvector(to_int(a.q[i]), Quad)); }
CLOSEUP_INLINE Lanes reciprocal(Lanes a) { CLOSEUP_EACH_QUAD(Lanes, 1.f / a.q[i]); }

CLOSEUP_INLINE Lanes square_root(Lanes a) {
    alignas(64) float values[kLanes];
    store(values, a);
    for (float& value : values) value = std::sqrt(value);
    return load(values);
}

CLOSEUP_INLINE bool any(Mask m) {
    const QuadBits either = (m.q[0] | m.q[1]) | (m.q[2] | m.q[3]);
    return (either[0] | either[1] | either[2] | either[3]) != 0;
}

// a * 2^n where ``shifted`` is n + kRoundToMantissa.
CLOSEUP_INLINE Lanes add_to_exponent(Lanes a, Lanes shifted) {
    CLOSEUP_EACH_QUAD(Lanes, (Quad)((QuadBits)a.q[i] + ((QuadBits)shifted.q[i] << 23)));
}

// rows[i][j] <-> rows[j][i].
CLOSEUP_INLINE void transpose(Lanes* rows) {
    alignas(64) float values[kLanes][kLanes], turned[kLanes][kLanes];
    for (int i = 0; i < kLanes; i++) store(values[i], rows[i]);
    for (int i = 0; i < kLanes; i++)
        for (int j = 0; j < kLanes; j++) turned[i][j] = values[j][i];
    for (int i = 0; i < kLanes; i++) rows[i] = load(turned[i]);
}

#undef CLOSEUP_EACH_QUAD

}  // namespace closeup
