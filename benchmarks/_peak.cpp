// The most floating-point operations per second that one core gives: independent chains of fused multiply-adds that
// never leave the registers.
#include "lanes/lanes.h"

namespace {

using namespace closeup;

// Enough chains hide the latency of an FMA; too many spill. Which number is right depends on the instruction set.
template <int kChains>
float run(int64_t rounds) {
    Lanes chains[kChains];
    for (int i = 0; i < kChains; i++) chains[i] = broadcast(static_cast<float>(i));
    const Lanes factor = broadcast(0.5f), summand = broadcast(1.f);  // converges to 2: no denormals, no overflow
    for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 32
        for (int i = 0; i < kChains; i++) chains[i] = fma(chains[i], factor, summand);
    float sum = 0.f;
    for (const Lanes& chain : chains) sum += horizontal_sum(chain);
    return sum;
}

}  // namespace

// Does ``rounds`` multiply-adds in each of ``chains`` (2, 3, 5, 8, 12 or 16) vectors of 16 lanes. The sum that it
// returns keeps the compiler from leaving the work out; -1 for another number of chains.
extern "C" __attribute__((visibility("default"))) float closeup_fma_loop(int chains, int64_t rounds) {
    switch (chains) {
        case 2: return run<2>(rounds);
        case 3: return run<3>(rounds);
        case 5: return run<5>(rounds);
        case 8: return run<8>(rounds);
        case 12: return run<12>(rounds);
        case 16: return run<16>(rounds);
        default: return -1.f;
    }
}
