// What the benches of kernels share: which kernels are wanted, memory, and the clock.
#pragma once

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

namespace bve_bench {

struct Bench {
  const char* filter;
  double seconds;
  bve_bench_result* results;
  size_t capacity, count;
  uint32_t isa;
  uint64_t random;

  bool wants(const char* name, uint32_t needs) const {
    return (needs & ~isa) == 0 && (!filter || strstr(name, filter));
  }
  float uniform() {  // in [-1, 1)
    random = random * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(random >> 40) / (1 << 23) - 1;
  }
};

// Aligned memory, freed with its scope.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_((bytes + 64) / 64 * 64) {
    if (posix_memalign(&memory_, 64, bytes_) == 0) memset(memory_, 0, bytes_);
  }
  ~Memory() { free(memory_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  explicit operator bool() const { return memory_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_;
  void* memory_ = nullptr;
};

template <typename Run>
double fastest(double seconds, Run run) {
  const double end = bve_seconds() + seconds;
  double best = 1e9;
  do {
    const double start = bve_seconds();
    run();
    best = fmin(best, bve_seconds() - start);
  } while (bve_seconds() < end);
  return best;
}

// Times `run` and writes a result; macs: of one call.
template <typename Run>
void add(Bench& b, bve_bench_result result, double macs, Run run) {
  if (result.correct) {
    const double seconds = fastest(b.seconds, run);
    result.ns = seconds * 1e9;
    result.gmac_per_s = macs / seconds * 1e-9;
  }
  if (b.count < b.capacity) b.results[b.count] = result;
  b.count++;
}

// bench_frames.cc
void bench_frames(Bench& b);

}  // namespace bve_bench
