// Where threads wait for what others make true: they watch for a while, then they sleep. An
// event count (eventcount, as in folly and Eigen) over a futex.
#pragma once

#include <atomic>
#include <cstdint>

#include "clock.h"

namespace bve {

class Bell {
 public:
  // Whether is_true() became so while it was called over and over for so long.
  template <typename Condition>
  static bool watch(int64_t ns, Condition is_true) {
    if (is_true()) return true;
    for (const uint64_t start = read_clock_ns();
         static_cast<int64_t>(read_clock_ns() - start) < ns;) {
      for (int i = 0; i < kLooks; i++) {
        relax();
        if (is_true()) return true;
      }
    }
    return false;
  }

  // Returns once is_true() is so: it is called again after every ring.
  template <typename Condition>
  void sleep(Condition is_true) {
    asleep_.fetch_add(1);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // counted before it looks: see ring
    for (;;) {
      const uint32_t rung = rung_.load();
      if (is_true()) break;
      wait_for_ring(rung);
    }
    asleep_.fetch_sub(1);
  }

  // To be called after something became true. Costs next to nothing where nobody sleeps.
  void ring() {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // true before it looks for sleepers
    if (asleep_.load(std::memory_order_relaxed) > 0) wake();
  }

 private:
  static constexpr int kLooks = 8;  // between looks at the clock

  static void relax();
  void wait_for_ring(uint32_t rung);
  void wake();

  std::atomic<uint32_t> rung_{0}, asleep_{0};
};

}  // namespace bve
