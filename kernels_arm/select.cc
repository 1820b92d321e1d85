#include "select.h"

#include <stdio.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace {

#define BVE_GEMM(name, isa, core, packing, tile_rows, tile_columns, ...) \
  {#name, name, isa, core, packing, tile_rows, tile_columns, {__VA_ARGS__}},
const bve_gemm_row kGemms[] = {
#include "kernels.inc"
};
#define BVE_PACK(name, isa, type) {#name, name, isa, type},
const bve_kernel_row<bve_pack_fn> kPacks[] = {
#include "kernels.inc"
};
#define BVE_SOFTMAX(name, isa, type) {#name, name, isa, type},
const bve_kernel_row<bve_softmax_fn> kSoftmaxes[] = {
#include "kernels.inc"
};
#define BVE_KEYS(name, isa) {#name, name, isa, bve_f32},
const bve_kernel_row<bve_pack_rhs_fn> kKeys[] = {
#include "kernels.inc"
};
#define BVE_VALUES(name, isa) {#name, name, isa, bve_f32},
const bve_kernel_row<bve_pack_rhs_fn> kValues[] = {
#include "kernels.inc"
};
#define BVE_ROUTE(name, isa) {#name, name, isa, bve_f32},
const bve_kernel_row<bve_route_fn> kRoutes[] = {
#include "kernels.inc"
};
#define BVE_YUV(name, isa) {#name, name, isa, bve_f32},
const bve_kernel_row<bve_yuv_fn> kYuvs[] = {
#include "kernels.inc"
};
#define BVE_RGB(name, isa) {#name, name, isa, bve_f32},
const bve_kernel_row<bve_rgb_fn> kRgbs[] = {
#include "kernels.inc"
};
#define BVE_DOWN(name, isa) {#name, name, isa, bve_f32},
const bve_kernel_row<bve_down_fn> kDowns[] = {
#include "kernels.inc"
};
#define BVE_ACROSS(name, isa) {#name, name, isa, bve_f32},
const bve_kernel_row<bve_across_fn> kAcrosses[] = {
#include "kernels.inc"
};

template <typename Row, size_t N>
bve_list<Row> list(const Row (&rows)[N]) {
  return {rows, N};
}

template <typename Row, size_t N>
const Row* select(const Row (&rows)[N], bve_type type, uint32_t isa) {
  const Row* best = nullptr;
  for (const Row& row : rows)
    if (row.type == type && (row.isa & ~isa) == 0) best = &row;
  return best;
}

#if defined(__x86_64__)
// Which of the CPU's registers the operating system keeps: 6 is AVX, 0xe6 AVX-512.
uint32_t kept_registers() {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}
#elif defined(__aarch64__) && defined(__APPLE__)
// Of the names that there are since macOS 12 and iOS 15.
bool has_feature(const char* name) {
  int has = 0;
  size_t bytes = sizeof has;
  return sysctlbyname(name, &has, &bytes, nullptr, 0) == 0 && has != 0;
}
#endif

const struct {
  uint32_t isa;
  const char* name;
} kNames[] = {
    {bve_neon, "neon"},         {bve_neonfp16, "neonfp16"}, {bve_neondot, "neondot"},
    {bve_neoni8mm, "neoni8mm"}, {bve_avx2, "avx2"},         {bve_avx512vnni, "avx512vnni"},
};

}  // namespace

bve_list<bve_gemm_row> bve_list_gemms() { return list(kGemms); }
bve_list<bve_kernel_row<bve_pack_fn>> bve_list_packs() { return list(kPacks); }
bve_list<bve_kernel_row<bve_softmax_fn>> bve_list_softmaxes() { return list(kSoftmaxes); }
bve_list<bve_kernel_row<bve_pack_rhs_fn>> bve_list_keys() { return list(kKeys); }
bve_list<bve_kernel_row<bve_pack_rhs_fn>> bve_list_values() { return list(kValues); }
bve_list<bve_kernel_row<bve_route_fn>> bve_list_routes() { return list(kRoutes); }
bve_list<bve_kernel_row<bve_yuv_fn>> bve_list_yuvs() { return list(kYuvs); }
bve_list<bve_kernel_row<bve_rgb_fn>> bve_list_rgbs() { return list(kRgbs); }
bve_list<bve_kernel_row<bve_down_fn>> bve_list_downs() { return list(kDowns); }
bve_list<bve_kernel_row<bve_across_fn>> bve_list_acrosses() { return list(kAcrosses); }

uint32_t bve_detect_isa() {
  uint32_t isa = bve_scalar;
#if defined(__x86_64__)
  uint32_t a, b, c, d;
  const uint32_t osxsave = 1u << 27, avx = 1u << 28, fma = 1u << 12, f16c = 1u << 29;
  const uint32_t before = osxsave | avx | fma | f16c;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & before) != before) return isa;
  const uint32_t kept = kept_registers();
  if ((kept & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return isa;
  if (b >> 5 & 1) isa |= bve_avx2;
  const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  if ((kept & 0xe6) == 0xe6 && (b & avx512) == avx512 && (c >> 11 & 1)) isa |= bve_avx512vnni;
#elif defined(__aarch64__) && defined(__linux__)
  // Bits of the kernel's ABI, by number because older headers lack the later ones.
  const unsigned long has = getauxval(AT_HWCAP), has2 = getauxval(AT_HWCAP2);
  if (has >> 1 & 1) isa |= bve_neon;                           // asimd
  if ((has >> 9 & 1) && (has >> 10 & 1)) isa |= bve_neonfp16;  // fphp, asimdhp
  if (has >> 20 & 1) isa |= bve_neondot;                       // asimddp
  if (has2 >> 13 & 1) isa |= bve_neoni8mm;                     // i8mm
#elif defined(__aarch64__) && defined(__APPLE__)
  isa |= bve_neon;
  if (has_feature("hw.optional.arm.FEAT_FP16")) isa |= bve_neonfp16;
  if (has_feature("hw.optional.arm.FEAT_DotProd")) isa |= bve_neondot;
  if (has_feature("hw.optional.arm.FEAT_I8MM")) isa |= bve_neoni8mm;
#elif defined(__aarch64__)
  // No auxiliary vector: what the compiler was told of every CPU it compiles for.
  isa |= bve_neon;
#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
  isa |= bve_neonfp16;
#endif
#if defined(__ARM_FEATURE_DOTPROD)
  isa |= bve_neondot;
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
  isa |= bve_neoni8mm;
#endif
#endif
  return isa;
}

void bve_name_isa(uint32_t isa, char* text, size_t bytes) {
  if (bytes == 0) return;
  text[0] = 0;
  size_t used = 0;
  for (const auto& known : kNames) {
    if (!(isa & known.isa) || used >= bytes) continue;
    used += static_cast<size_t>(
        snprintf(text + used, bytes - used, "%s%s", used ? " " : "", known.name));
  }
  if (used == 0) snprintf(text, bytes, "scalar");
}

const bve_gemm_row* bve_select_gemm(bve_packing packing, uint32_t isa, bve_core core) {
  const bve_gemm_row *best = nullptr, *scheduled = nullptr;
  for (const bve_gemm_row& row : kGemms) {
    if (row.packing != packing || (row.isa & ~isa) != 0) continue;
    if (row.core == bve_any_core) {
      best = &row;
    } else if (row.core == core) {
      scheduled = &row;
    }
  }
  return scheduled ? scheduled : best;
}

const bve_kernel_row<bve_pack_fn>* bve_select_pack(bve_type type, uint32_t isa) {
  return select(kPacks, type, isa);
}
const bve_kernel_row<bve_softmax_fn>* bve_select_softmax(bve_type type, uint32_t isa) {
  return select(kSoftmaxes, type, isa);
}
const bve_kernel_row<bve_pack_rhs_fn>* bve_select_keys(uint32_t isa) {
  return select(kKeys, bve_f32, isa);
}
const bve_kernel_row<bve_pack_rhs_fn>* bve_select_values(uint32_t isa) {
  return select(kValues, bve_f32, isa);
}
const bve_kernel_row<bve_route_fn>* bve_select_route(uint32_t isa) {
  return select(kRoutes, bve_f32, isa);
}
const bve_kernel_row<bve_yuv_fn>* bve_select_yuv(uint32_t isa) {
  return select(kYuvs, bve_f32, isa);
}
const bve_kernel_row<bve_rgb_fn>* bve_select_rgb(uint32_t isa) {
  return select(kRgbs, bve_f32, isa);
}
const bve_kernel_row<bve_down_fn>* bve_select_down(uint32_t isa) {
  return select(kDowns, bve_f32, isa);
}
const bve_kernel_row<bve_across_fn>* bve_select_across(uint32_t isa) {
  return select(kAcrosses, bve_f32, isa);
}

bve_packing bve_prefer_packing(uint32_t isa) { return isa & bve_neoni8mm ? bve_qc8p8 : bve_qc8p4; }
