// The most that a core can do: the kernels' own instruction on registers only, as many sums at once
// as hide its latency.
#include <time.h>

#include "bench.h"

double bve_seconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

namespace {

#define BVE_12(op)                                                                             \
  op("4") op("5") op("6") op("7") op("8") op("9") op("10") op("11") op("12") op("13") op("14") \
      op("15")

#if defined(__x86_64__)

constexpr int kSums = 12;

#define BVE_ZERO(r) "vpxor %%xmm" r ", %%xmm" r ", %%xmm" r "\n"
#define BVE_LOOP(name, op)                                                                   \
  void name(long count) {                                                                    \
    __asm__ volatile(BVE_ZERO("0") BVE_ZERO("1")                                             \
                         BVE_12(BVE_ZERO) "1:\n" BVE_12(op) "dec %0\njnz 1b\nvzeroupper\n"   \
                     : "+r"(count)                                                           \
                     :                                                                       \
                     : "cc", "xmm0", "xmm1", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                       "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                \
  }
#define BVE_DPBUSD(r) "vpdpbusd %%zmm0, %%zmm1, %%zmm" r "\n"
#define BVE_FMA512(r) "vfmadd231ps %%zmm0, %%zmm1, %%zmm" r "\n"
#define BVE_FMA256(r) "vfmadd231ps %%ymm0, %%ymm1, %%ymm" r "\n"
#define BVE_MADD(r) "vpmaddwd %%ymm0, %%ymm1, %%ymm" r "\n"
BVE_LOOP(run_dpbusd, BVE_DPBUSD)
BVE_LOOP(run_fma512, BVE_FMA512)
BVE_LOOP(run_fma256, BVE_FMA256)
BVE_LOOP(run_madd, BVE_MADD)

#elif defined(__aarch64__)

constexpr int kSums = 24;

#define BVE_24(op)                                                                          \
  BVE_12(op)                                                                                \
  op("16") op("17") op("18") op("19") op("20") op("21") op("22") op("23") op("24") op("25") \
      op("26") op("27")
#define BVE_ZERO(r) "movi v" r ".4s, #0\n"
#define BVE_LOOP(name, arch, op)                                                                  \
  void name(long count) {                                                                         \
    __asm__ volatile(arch BVE_ZERO("0") BVE_ZERO("1")                                             \
                         BVE_24(BVE_ZERO) "1:\n" BVE_24(op) "subs %0, %0, #1\nb.ne 1b\n"          \
                     : "+r"(count)                                                                \
                     :                                                                            \
                     : "cc", "v0", "v1", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", \
                       "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22",      \
                       "v23", "v24", "v25", "v26", "v27");                                        \
  }
#define BVE_SDOT(r) "sdot v" r ".4s, v0.16b, v1.16b\n"
#define BVE_SMMLA(r) "smmla v" r ".4s, v0.16b, v1.16b\n"
#define BVE_SMLAL(r) "smlal v" r ".8h, v0.8b, v1.8b\n"
#define BVE_FMLA(r) "fmla v" r ".4s, v0.4s, v1.4s\n"
#define BVE_FMLA16(r) "fmla v" r ".8h, v0.8h, v1.8h\n"
BVE_LOOP(run_sdot, ".arch armv8.2-a+dotprod\n", BVE_SDOT)
BVE_LOOP(run_smmla, ".arch armv8.2-a+i8mm\n", BVE_SMMLA)
BVE_LOOP(run_smlal, "", BVE_SMLAL)
BVE_LOOP(run_fmla, "", BVE_FMLA)
BVE_LOOP(run_fmla16, ".arch armv8.2-a+fp16\n", BVE_FMLA16)

#endif

struct Peak {
  uint32_t isa;
  bve_type type;
  int macs;  // of one instruction
  void (*run)(long count);
};

const Peak kPeaks[] = {
#if defined(__x86_64__)
    {bve_avx512vnni, bve_qd8, 64, run_dpbusd}, {bve_avx512vnni, bve_f32, 16, run_fma512},
    {bve_avx2, bve_qd8, 16, run_madd},         {bve_avx2, bve_f32, 8, run_fma256},
#elif defined(__aarch64__)
    {bve_neoni8mm, bve_qd8, 32, run_smmla}, {bve_neondot, bve_qd8, 16, run_sdot},
    {bve_neonfp16, bve_f16, 8, run_fmla16}, {bve_neon, bve_qd8, 8, run_smlal},
    {bve_neon, bve_f32, 4, run_fmla},
#endif
    {bve_scalar, bve_f32, 0, nullptr},
};

}  // namespace

double bve_measure_peak(uint32_t isa, bve_type type) {
  for (const Peak& peak : kPeaks) {
    if (!(peak.isa & isa) || peak.type != type) continue;
    const long count = 20000;
    const double end = bve_seconds() + 0.03;  // long enough to outlast a neighbour's burst
    double best = 0;
    do {
      const double start = bve_seconds();
      peak.run(count);
      const double rate = count * kSums * peak.macs / (bve_seconds() - start) * 1e-9;
      if (rate > best) best = rate;
    } while (bve_seconds() < end);
    return best;
  }
  return 0;
}
