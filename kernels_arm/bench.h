// Every kernel of the list that this CPU runs: compared with the scalar one, then timed.
#pragma once

#include "kernels.h"

struct bve_bench_result {
  const char* kernel;
  const char* what;  // which of a kernel's jobs, "layernorm"; "" where there is but one
  size_t m, n, k;  // pack: m rows of k. softmax: m rows of n. keys, values: n rows of k. route: of
                   // n rows of k, m. yuv, rgb: m rows of n. down, across: n sums of k
  double ns;       // of one call, the fastest
  double gmac_per_s, peak_gmac_per_s;  // 0 of what is no matrix product
  bool correct;                        // if not, it was not timed
};

// Kernels whose name contains `filter` (null: all); writes at most `capacity` results and returns
// how many there are. Memory that cannot be had ends the list early.
size_t bve_bench_kernels(const char* filter, double seconds_per_kernel, bve_bench_result* results,
                         size_t capacity);

// What this core does at most with the product's own instruction, in a loop of registers only, in
// 10^9 multiply-accumulates a second; 0 for scalar rows. isa: what the row needs, which this CPU
// has.
double bve_measure_peak(uint32_t isa, bve_type type);

// Monotonic.
double bve_seconds();
