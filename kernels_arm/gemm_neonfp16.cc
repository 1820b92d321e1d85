#include "tile_neon.h"

namespace {

// Half-precision sums lose a product of 2^-11 of what they have reached, so they run over few k at
// a time, and floats add them up.
constexpr size_t kBlock = 64;

struct F16 {
  using Left = float16_t;
  using Right = float16_t;
  using Sum = float;
  enum { kPanels = 3, kColumns = 16, kDepth = 1, kHead = 64 };

  template <int kLeft>
  static void run(const float16_t* lhs, size_t lhs_stride_bytes, const float16_t* rhs, size_t steps,
                  float (*sums)[kColumns]) {
    for (int r = 0; r < 4 * kLeft; r++) {
      for (int c = 0; c < 4; c++) vst1q_f32(sums[r] + 4 * c, vdupq_n_f32(0));
    }
    for (size_t block; steps; steps -= block) {
      block = steps < kBlock ? steps : kBlock;
      float16x8_t sum[4 * kLeft][2] = {};
      for (size_t step = 0; step < block; step++) {
        const float16x8_t right[2] = {vld1q_f16(rhs), vld1q_f16(rhs + 8)};
        for (int p = 0; p < kLeft; p++) {
          const float16x4_t left =
              vld1_f16((const float16_t*)((const char*)lhs + p * lhs_stride_bytes));
          for (int c = 0; c < 2; c++) {
            sum[4 * p][c] = vfmaq_lane_f16(sum[4 * p][c], right[c], left, 0);
            sum[4 * p + 1][c] = vfmaq_lane_f16(sum[4 * p + 1][c], right[c], left, 1);
            sum[4 * p + 2][c] = vfmaq_lane_f16(sum[4 * p + 2][c], right[c], left, 2);
            sum[4 * p + 3][c] = vfmaq_lane_f16(sum[4 * p + 3][c], right[c], left, 3);
          }
        }
        lhs += BVE_LHS_ROWS;
        rhs += BVE_PANEL;
      }
#pragma GCC unroll 12  // an index known only at run time would keep the sums in memory
      for (int r = 0; r < 4 * kLeft; r++) {
        for (int c = 0; c < 2; c++) {
          float* to = sums[r] + 8 * c;
          vst1q_f32(to, vaddq_f32(vld1q_f32(to), vcvt_f32_f16(vget_low_f16(sum[r][c]))));
          vst1q_f32(to + 4, vaddq_f32(vld1q_f32(to + 4), vcvt_high_f32_f16(sum[r][c])));
        }
      }
    }
  }
};

}  // namespace

void bve_gemm_f32_f16_f16p_12x16_neonfp16(const bve_gemm* args) { bve_walk_tiles_neon<F16>(args); }
