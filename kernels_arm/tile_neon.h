// What the NEON products share: the walk over tiles of one to three panels of the left side, four
// rows each, by half a panel of the right side or a whole one, and what ends a tile. Everything
// here is static: each instruction set's file is compiled with flags of its own, and a linker that
// merges inline functions would hand one file's instructions to another file's CPU.
#pragma once

#include <arm_neon.h>

#include "kernels.h"

enum { BVE_LHS_ROWS = 4 };  // in a panel of the left side

// Writes x, the product's row i and columns [j, j + kColumns), as gate, accumulate, dst_rows and n
// would have it.
template <int kColumns>
static inline void bve_write_neon(const bve_gemm* args, size_t i, size_t j, float32x4_t* x) {
  const size_t row = args->dst_rows ? args->dst_rows[i] : i;
  float* dst = (float*)((char*)args->dst + row * args->dst_stride_bytes) + j;
  if (args->gate) {
    for (int c = 0; c < kColumns / 4; c++) x[c] = vmulq_n_f32(x[c], args->gate[i]);
  }
  if (args->n - j >= kColumns) {
    for (int c = 0; c < kColumns / 4; c++) {
      vst1q_f32(dst + 4 * c, args->accumulate ? vaddq_f32(vld1q_f32(dst + 4 * c), x[c]) : x[c]);
    }
    return;
  }
  float part[kColumns];
  for (int c = 0; c < kColumns / 4; c++) vst1q_f32(part + 4 * c, x[c]);
  for (size_t c = 0; c < args->n - j; c++) dst[c] = args->accumulate ? dst[c] + part[c] : part[c];
}

// Ends a tile of `rows` rows of sums at [i, j]. panel: of the right side, that of column j.
template <int kColumns>
static inline void bve_end_tile_neon(const bve_gemm* args, size_t i, size_t rows, size_t j,
                                     const void* panel, const float (*sums)[kColumns]) {
  float32x4_t bias[kColumns / 4];
  for (int c = 0; c < kColumns / 4; c++) {
    bias[c] = vld1q_f32((const float*)panel + j % BVE_PANEL + 4 * c);
  }
  for (size_t r = 0; r < rows; r++) {
    float32x4_t x[kColumns / 4];
    for (int c = 0; c < kColumns / 4; c++) x[c] = vaddq_f32(vld1q_f32(sums[r] + 4 * c), bias[c]);
    bve_write_neon<kColumns>(args, i + r, j, x);
  }
}

template <int kColumns>
static inline void bve_end_tile_neon(const bve_gemm* args, size_t i, size_t rows, size_t j,
                                     const void* panel, const int32_t (*sums)[kColumns]) {
  const bve_qc8_head* head = (const bve_qc8_head*)panel;
  float32x4_t scale[kColumns / 4], bias[kColumns / 4];
  int32x4_t sum[kColumns / 4];
  for (int c = 0; c < kColumns / 4; c++) {
    const size_t at = j % BVE_PANEL + 4 * c;
    scale[c] = vld1q_f32(head->scale + at);
    bias[c] = vld1q_f32(head->bias + at);
    sum[c] = vld1q_s32(head->sum + at);
  }
  for (size_t r = 0; r < rows; r++) {
    const bve_row row = args->rows[i + r];
    float32x4_t x[kColumns / 4];
    for (int c = 0; c < kColumns / 4; c++) {
      const int32x4_t q = vmlsq_n_s32(vld1q_s32(sums[r] + 4 * c), sum[c], row.zero);
      x[c] = vfmaq_f32(bias[c], vcvtq_f32_s32(q), vmulq_n_f32(scale[c], row.scale));
    }
    bve_write_neon<kColumns>(args, i + r, j, x);
  }
}

// Kernel: types Sum, Left and Right, and
//   kPanels, kColumns, kDepth   left panels and columns of a tile; kr
//   kHead                       bytes before the data of a right panel
//   run<kLeft>(lhs, lhs_stride_bytes, rhs, steps, sums)
// that puts the products of kLeft left panels and kColumns columns over steps * kDepth of k in
// sums [4 * kLeft][kColumns]. lhs_stride_bytes: between left panels; the right data of one step
// stand BVE_PANEL * kDepth values apart.
// A right panel is outermost, so that it stays in the first cache while the left side goes by.
template <typename Kernel>
static inline void bve_walk_tiles_neon(const bve_gemm* caller_args) {
  const bve_gemm copy = *caller_args, *args = &copy;  // which no store to dst can change
  using Left = typename Kernel::Left;
  using Right = typename Kernel::Right;
  constexpr int kPanels = Kernel::kPanels, kColumns = Kernel::kColumns, kDepth = Kernel::kDepth;
  constexpr size_t kRows = kPanels * BVE_LHS_ROWS;
  const size_t steps = (args->k + kDepth - 1) / kDepth, stride = args->lhs_stride_bytes;
  for (size_t j = 0; j < args->n; j += kColumns) {
    const char* panel = (const char*)args->rhs + j / BVE_PANEL * args->rhs_stride_bytes;
    const Right* rhs = (const Right*)(panel + Kernel::kHead) + j % BVE_PANEL * kDepth;
    for (size_t i = 0; i < args->m; i += kRows) {
      const Left* lhs = (const Left*)((const char*)args->lhs + i / BVE_LHS_ROWS * stride);
      const size_t rows = args->m - i < kRows ? args->m - i : kRows;
      alignas(16) typename Kernel::Sum sums[kRows][kColumns];
      if (rows > kRows - BVE_LHS_ROWS) {
        Kernel::template run<kPanels>(lhs, stride, rhs, steps, sums);
      } else if (rows > BVE_LHS_ROWS) {
        Kernel::template run<2>(lhs, stride, rhs, steps, sums);
      } else {
        Kernel::template run<1>(lhs, stride, rhs, steps, sums);
      }
      bve_end_tile_neon<kColumns>(args, i, rows, j, panel, sums);
    }
  }
}
