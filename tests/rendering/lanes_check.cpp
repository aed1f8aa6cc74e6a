// Every operation of lanes.h against a plain loop over its sixteen floats. Prints the implementation's name; on a mismatch
// also the operation, the operands and both results, and then ends with 1. test_lanes.py compiles it for each of them.
#include "lanes/lanes.h"

#include <cstdio>
#include <limits>
#include <random>

using namespace closeup;

namespace {

constexpr int kRounds = 500;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kUlp = 1.2e-7f;

int failures = 0;
std::mt19937 generator(7);

struct Sixteen {
    alignas(64) float v[kLanes + 1];  // one more, so that the unaligned part can be tested
    float& operator[](int i) { return v[i]; }
    float operator[](int i) const { return v[i]; }
};

Sixteen uniform(float low, float high) {
    std::uniform_real_distribution<float> distribution(low, high);
    Sixteen x;
    for (float& value : x.v) value = distribution(generator);
    return x;
}

// Values of all sizes, some of them equal to another argument's, with zeros of both signs among them.
Sixteen mixed() {
    Sixteen x = uniform(-3.f, 3.f);
    for (float& value : x.v) {
        const unsigned kind = generator() % 8;
        if (kind == 0) value = 0.f;
        if (kind == 1) value = -0.f;
        if (kind == 2) value = 1.f;
        if (kind == 3) value *= 1e6f;
    }
    return x;
}

Sixteen with_nan(Sixteen x) {
    x[static_cast<int>(generator() % kLanes)] = kNan;
    return x;
}

bool same_bits(float a, float b) { return memcmp(&a, &b, sizeof a) == 0; }

void expect(bool fine, const char* what, int lane, float got, double wanted) {
    if (fine || failures++ > 20) return;
    std::printf("%s: lane %d is %.9g, not %.9g\n", what, lane, static_cast<double>(got), wanted);
}

// ``wanted(i)`` within ``tolerance(i)``; a tolerance of zero asks for the same number, NaN being equal to NaN.
template <class Wanted, class Tolerance>
void compare(const char* what, Lanes got, Wanted wanted, Tolerance tolerance) {
    Sixteen values;
    store(values.v, got);
    for (int i = 0; i < kLanes; i++) {
        const double right = wanted(i), error = std::fabs(values[i] - right);
        const bool both_nan = std::isnan(values[i]) && std::isnan(right);
        expect(both_nan || values[i] == right || error <= tolerance(i), what, i, values[i], right);
    }
}

template <class Wanted>
void compare(const char* what, Lanes got, Wanted wanted) {
    compare(what, got, wanted, [](int) { return 0.; });
}

void check_memory() {
    const Sixteen x = mixed();
    Sixteen out;
    store(out.v + 1, load(x.v + 1));
    for (int i = 1; i <= kLanes; i++) expect(same_bits(out[i], x[i]), "load and store", i, out[i], x[i]);
    compare("broadcast", broadcast(x[3]), [&](int) { return x[3]; });
    compare("zero", zero(), [](int) { return 0.f; });
    const Sixteen wide = uniform(-2e9f, 2e9f), narrow = uniform(-3.f, 3.f);
    for (const Sixteen& floats : {wide, narrow}) {
        int32_t whole[kLanes + 1];
        store_as_int(whole + 1, load(floats.v));
        for (int i = 0; i < kLanes; i++)
            expect(whole[i + 1] == static_cast<int32_t>(floats[i]), "store_as_int", i, static_cast<float>(whole[i + 1]), floats[i]);
    }
}

void check_arithmetic() {
    const Sixteen a = mixed(), b = mixed(), c = mixed();
    const Lanes x = load(a.v), y = load(b.v), z = load(c.v);
    const float s = c[0];
    compare("x + y", x + y, [&](int i) { return a[i] + b[i]; });
    compare("x - y", x - y, [&](int i) { return a[i] - b[i]; });
    compare("x * y", x * y, [&](int i) { return a[i] * b[i]; });
    compare("x / y", x / y, [&](int i) { return a[i] / b[i]; });
    compare("s + y", s + y, [&](int i) { return s + b[i]; });
    compare("s - y", s - y, [&](int i) { return s - b[i]; });
    compare("s * y", s * y, [&](int i) { return s * b[i]; });
    compare("s / y", s / y, [&](int i) { return s / b[i]; });
    compare("-x", -x, [&](int i) { return -a[i]; });
    // One rounding or two.
    const auto rounding = [&](int i) { return kUlp * (std::fabs(static_cast<double>(a[i]) * b[i]) + std::fabs(c[i])); };
    compare("fma", fma(x, y, z), [&](int i) { return static_cast<double>(a[i]) * b[i] + c[i]; }, rounding);
    compare("fnma", fnma(x, y, z), [&](int i) { return c[i] - static_cast<double>(a[i]) * b[i]; }, rounding);
    compare("absolute", absolute(x), [&](int i) { return std::fabs(a[i]); });
    compare("square_root", square_root(absolute(x)), [&](int i) { return std::sqrt(std::fabs(a[i])); });
    compare("truncate", truncate(x), [&](int i) { return std::trunc(a[i]); });
    double sum = 0, size = 0;
    for (int i = 0; i < kLanes; i++) sum += a[i], size += std::fabs(a[i]);
    expect(std::fabs(horizontal_sum(x) - sum) <= kLanes * kUlp * size, "horizontal_sum", 0, horizontal_sum(x), sum);
}

void check_functions() {
    const Sixteen power = uniform(-125.f, 125.f), positive = uniform(1e-6f, 1e6f), small = uniform(-1e-3f, 1e-3f);
    compare("exp2_lanes", exp2_lanes(load(power.v)), [&](int i) { return std::exp2(static_cast<double>(power[i])); },
            [&](int i) { return 3e-7 * std::exp2(static_cast<double>(power[i])); });
    for (const Sixteen& floats : {positive, small}) {
        compare("reciprocal", reciprocal(load(floats.v)), [&](int i) { return 1. / floats[i]; },
                [&](int i) { return 4e-7 / std::fabs(floats[i]); });
    }
    Sixteen whole = power;
    for (float& value : whole.v) value = std::trunc(value);
    compare("exp2_whole", exp2_whole(load(whole.v)), [&](int i) { return std::exp2(whole[i]); });
    for (float& value : whole.v) value = std::trunc(value / 4);
    compare("add_to_exponent", add_to_exponent(load(positive.v), load(whole.v) + broadcast(kRoundToMantissa)),
            [&](int i) { return std::ldexp(positive[i], static_cast<int>(whole[i])); });
}

template <class Right>
void check_mask(const char* what, Mask mask, const Sixteen& a, const Sixteen& b, Right right) {
    const Lanes x = load(a.v), y = load(b.v);
    Sixteen kept, selected;
    store(kept.v, keep(mask, x));
    store(selected.v, select(mask, x, y));
    bool one = false;
    for (int i = 0; i < kLanes; i++) {
        one |= right(i);
        expect(same_bits(kept[i], right(i) ? a[i] : 0.f), what, i, kept[i], right(i) ? a[i] : 0.f);
        expect(same_bits(selected[i], right(i) ? a[i] : b[i]), what, i, selected[i], right(i) ? a[i] : b[i]);
    }
    expect(any(mask) == one, "any", -1, any(mask), one);
}

void check_comparisons(const Sixteen& a, const Sixteen& b) {
    const Lanes x = load(a.v), y = load(b.v);
    check_mask("at_least", at_least(x, y), a, b, [&](int i) { return a[i] >= b[i]; });
    check_mask("at_most", at_most(x, y), a, b, [&](int i) { return a[i] <= b[i]; });
    check_mask("above", above(x, y), a, b, [&](int i) { return a[i] > b[i]; });
    check_mask("both", both(at_least(x, y), at_most(x, zero())), a, b, [&](int i) { return a[i] >= b[i] && a[i] <= 0; });
    compare("minimum", minimum(x, y), [&](int i) { return a[i] < b[i] ? a[i] : b[i]; });
    compare("maximum", maximum(x, y), [&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
}

// One lane alone must be enough, whichever it is.
void check_any() {
    for (int lane = 0; lane < kLanes; lane++) {
        Sixteen x{};
        x[lane] = 1.f;
        expect(any(above(load(x.v), zero())), "any, one lane", lane, 0, 1);
    }
    expect(!any(above(zero(), zero())), "any, none", -1, 1, 0);
}

void check_transpose() {
    Lanes rows[kLanes];
    Sixteen values[kLanes];
    for (int i = 0; i < kLanes; i++) values[i] = mixed(), rows[i] = load(values[i].v);
    transpose(rows);
    for (int i = 0; i < kLanes; i++) compare("transpose", rows[i], [&](int j) { return values[j][i]; });
}

}  // namespace

int main() {
    for (int round = 0; round < kRounds; round++) {
        check_memory();
        check_arithmetic();
        check_functions();
        check_comparisons(mixed(), mixed());
        check_comparisons(with_nan(mixed()), mixed());
        check_comparisons(mixed(), with_nan(mixed()));
        check_transpose();
    }
    check_any();
    std::printf("%s: %d mismatches\n", CLOSEUP_LANES_NAME, failures);
    return failures != 0;
}
