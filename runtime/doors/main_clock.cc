#include <algorithm>

#include "clock.h"
#include "main_serve.h"

namespace bve {
namespace {

constexpr uint64_t kAdds = 64;  // of a round

// Register to register: Intel's cores since Golden Cove fold chains that add constants.
void add_in_a_chain(uint64_t rounds) {
  uint64_t sum = 0, one = 1;
#define BVE_8(x) x x x x x x x x
#if defined(__aarch64__)
  for (uint64_t i = 0; i < rounds; ++i) {
    __asm__ volatile(BVE_8(BVE_8("add %0, %0, %1\n")) : "+r"(sum) : "r"(one));
  }
#elif defined(__x86_64__)
  for (uint64_t i = 0; i < rounds; ++i) {
    __asm__ volatile(BVE_8(BVE_8("addq %1, %0\n")) : "+r"(sum) : "r"(one));
  }
#else
#error "a chain of additions for this architecture"
#endif
#undef BVE_8
}

}  // namespace

double measure_clock_mhz() {
  constexpr uint64_t kShortNs = 200'000;
  uint64_t rounds = 1000, least_ns = 0;
  for (int tries = 0; tries < 3;) {
    const uint64_t start = read_clock_ns();
    add_in_a_chain(rounds);
    const uint64_t took = read_clock_ns() - start;
    if (took < kShortNs && rounds < 1'000'000) {
      rounds *= 2;
      continue;
    }
    least_ns = tries++ ? std::min(least_ns, took) : took;
  }
  return static_cast<double>(kAdds * rounds) * 1e3 / static_cast<double>(least_ns);
}

}  // namespace bve
