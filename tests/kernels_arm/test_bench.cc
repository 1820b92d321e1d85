// The bench finds its kernels, agrees with the scalar ones and counts what does not fit.
#include "bench.h"
#include "kit.h"

TEST_CASE("bench: by name, checked, timed") {
  bve_bench_result results[64];
  const size_t count = bve_bench_kernels("route", 0, results, 64);
  size_t expected = 0;
  for (const auto& row : bve_list_routes()) expected += (row.isa & ~bve_detect_isa()) == 0;
  CHECK(count == expected);
  for (size_t i = 0; i < count; i++) {
    CAPTURE(std::string(results[i].kernel));
    CHECK(results[i].correct);
    CHECK(results[i].ns > 0);
    CHECK(results[i].gmac_per_s == 0);
    CHECK(std::string(results[i].kernel).find("route") != std::string::npos);
  }
  CHECK(bve_bench_kernels("no such kernel", 0, results, 64) == 0);
}

TEST_CASE("bench: every kernel of frames gives the scalar one's bits") {
  bve_bench_result results[64];
  for (const char* name : {"bve_yuv", "bve_rgb", "bve_down", "bve_across"}) {
    const size_t count = bve_bench_kernels(name, 0, results, 64);
    CHECK(count >= 1);
    for (size_t i = 0; i < count; i++) CHECK(results[i].correct);
  }
}

TEST_CASE("bench: results beyond the capacity are counted, not written") {
  bve_bench_result results[2] = {};
  const size_t count = bve_bench_kernels("values", 0, results, 1);
  CHECK(count >= 4);
  CHECK(results[0].kernel != nullptr);
  CHECK(results[1].kernel == nullptr);
}

TEST_CASE("bench: every product has a peak to be compared with") {
  CHECK(bve_measure_peak(bve_scalar, bve_f32) == 0);
  for (const auto& row : bve_list_gemms())
    if (row.isa && can_run(row)) CHECK(bve_measure_peak(row.isa, row.lhs.type) > 0);
  CHECK(bve_measure_peak(bve_avx2 | bve_neon, bve_f16) == 0);
}
