#include "tile_neon.h"

namespace {

// For cores without dot products (Cortex-A53, A57, A72, A73).
struct Int8 {
  using Left = int8_t;
  using Right = int8_t;
  using Sum = int32_t;
  enum { kPanels = 1, kColumns = 8, kDepth = 4, kHead = sizeof(bve_qc8_head) };

  template <int kLeft>
  static void run(const int8_t* lhs, size_t, const int8_t* rhs, size_t steps,
                  int32_t (*sums)[kColumns]) {
    int32x4_t sum[4][4] = {};  // [row][pair of columns]: a column's k, k + 1 and its k + 2, k + 3
    for (; steps > 1; steps -= 2) {
      add<2>(sum, lhs, rhs);
      lhs += 2 * BVE_LHS_ROWS * kDepth;
      rhs += 2 * BVE_PANEL * kDepth;
    }
    if (steps) add<1>(sum, lhs, rhs);
    for (int r = 0; r < 4; r++) {
      vst1q_s32(sums[r], vpaddq_s32(sum[r][0], sum[r][1]));
      vst1q_s32(sums[r] + 4, vpaddq_s32(sum[r][2], sum[r][3]));
    }
  }

  // Two steps' products, at most 127 * 128 each, are added in 16 bits before they go to 32.
  template <int kSteps>
  static void add(int32x4_t (*sum)[4], const int8_t* lhs, const int8_t* rhs) {
    int8x8_t right[kSteps][4];
    for (int s = 0; s < kSteps; s++) {
      for (int c = 0; c < 4; c++) right[s][c] = vld1_s8(rhs + s * BVE_PANEL * kDepth + 8 * c);
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
      int8x8_t left[kSteps];  // four values of row r, twice
      for (int s = 0; s < kSteps; s++) {
        const int32_t* values = (const int32_t*)(lhs + s * BVE_LHS_ROWS * kDepth);
        left[s] = vreinterpret_s8_s32(vld1_dup_s32(values + r));
      }
      for (int c = 0; c < 4; c++) {
        int16x8_t products = vmull_s8(right[0][c], left[0]);
        if (kSteps > 1) products = vmlal_s8(products, right[kSteps - 1][c], left[kSteps - 1]);
        sum[r][c] = vpadalq_s16(sum[r][c], products);
      }
      // Without this the compiler runs the rows into one another, and out of registers.
      asm volatile(""
                   : "+w"(sum[r][0]), "+w"(sum[r][1]), "+w"(sum[r][2]), "+w"(sum[r][3])::"memory");
    }
  }
};

}  // namespace

void bve_gemm_f32_qd8_qc8p_4x8x4_neon(const bve_gemm* args) { bve_walk_tiles_neon<Int8>(args); }
