#include "tile_neon.h"

namespace {

float32x4_t load_4(const float* from) { return vld1q_f32(from); }
float32x4_t load_4(const float16_t* from) { return vcvt_f32_f16(vld1_f16(from)); }

template <typename RightData>
struct F32 {
  using Left = float;
  using Right = RightData;
  using Sum = float;
  enum { kPanels = 3, kColumns = 8, kDepth = 1, kHead = 64 };

  template <int kLeft>
  static void run(const float* lhs, size_t lhs_stride_bytes, const Right* rhs, size_t steps,
                  float (*sums)[kColumns]) {
    float32x4_t sum[4 * kLeft][2] = {};
    for (; steps; steps--) {
      const float32x4_t right[2] = {load_4(rhs), load_4(rhs + 4)};
      for (int p = 0; p < kLeft; p++) {
        const float32x4_t left = vld1q_f32((const float*)((const char*)lhs + p * lhs_stride_bytes));
        for (int c = 0; c < 2; c++) {
          sum[4 * p][c] = vfmaq_laneq_f32(sum[4 * p][c], right[c], left, 0);
          sum[4 * p + 1][c] = vfmaq_laneq_f32(sum[4 * p + 1][c], right[c], left, 1);
          sum[4 * p + 2][c] = vfmaq_laneq_f32(sum[4 * p + 2][c], right[c], left, 2);
          sum[4 * p + 3][c] = vfmaq_laneq_f32(sum[4 * p + 3][c], right[c], left, 3);
        }
      }
      lhs += BVE_LHS_ROWS;
      rhs += BVE_PANEL;
    }
    for (int r = 0; r < 4 * kLeft; r++) {
      for (int c = 0; c < 2; c++) vst1q_f32(sums[r] + 4 * c, sum[r][c]);
    }
  }
};

}  // namespace

void bve_gemm_f32_f32_f32p_12x8_neon(const bve_gemm* args) {
  bve_walk_tiles_neon<F32<float>>(args);
}
void bve_gemm_f32_f32_f16p_12x8_neon(const bve_gemm* args) {
  bve_walk_tiles_neon<F32<float16_t>>(args);
}
