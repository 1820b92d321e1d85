#include "tile_neon.h"

namespace {

struct Matmul {
  using Left = int8_t;
  using Right = int8_t;
  using Sum = int32_t;
  enum { kPanels = 3, kColumns = 8, kDepth = 8, kHead = sizeof(bve_qc8_head) };

  template <int kLeft>
  static void run(const int8_t* lhs, size_t lhs_stride_bytes, const int8_t* rhs, size_t steps,
                  int32_t (*sums)[kColumns]) {
    int32x4_t sum[2 * kLeft][4] = {};  // [pair of rows][pair of columns], each 2 x 2
    for (; steps; steps--) {
      const int8x16_t right[4] = {vld1q_s8(rhs), vld1q_s8(rhs + 16), vld1q_s8(rhs + 32),
                                  vld1q_s8(rhs + 48)};
      for (int r = 0; r < 2 * kLeft; r++) {
        const int8x16_t left = vld1q_s8(lhs + r / 2 * lhs_stride_bytes + r % 2 * 16);
        for (int c = 0; c < 4; c++) sum[r][c] = vmmlaq_s32(sum[r][c], left, right[c]);
      }
      lhs += BVE_LHS_ROWS * kDepth;
      rhs += BVE_PANEL * kDepth;
    }
    for (int r = 0; r < 2 * kLeft; r++) write_pair(sum[r], sums + 2 * r);
  }

  static void write_pair(const int32x4_t* sum, int32_t (*sums)[kColumns]) {
    for (int c = 0; c < 2; c++) {
      const int64x2_t first = vreinterpretq_s64_s32(sum[2 * c]);
      const int64x2_t second = vreinterpretq_s64_s32(sum[2 * c + 1]);
      vst1q_s32(sums[0] + 4 * c, vreinterpretq_s32_s64(vzip1q_s64(first, second)));
      vst1q_s32(sums[1] + 4 * c, vreinterpretq_s32_s64(vzip2q_s64(first, second)));
    }
  }
};

// For in-order cores. Two panels of the left side and two steps at a time: v0-v3 are the first
// panel's, v4-v7 the second's, v8-v11 the right side of the first step, v12-v15 of the second,
// v16-v31 the sums. One panel goes through both steps, then the other, so that each group of four
// registers is free for eight products or more and one ld1 fills it meanwhile: on these cores an
// ld1 of four registers takes as long as a product, so the two issue together; an ldr would wait.
// What moves the pointers stands where the branch has to wait for the last product anyway.
// clang-format off
#define PRODUCTS(left, r0, r1, r2, r3, s0, s1, s2, s3) \
  "smmla v" #s0 ".4s, v" #left ".16b, v" #r0 ".16b\n" \
  "smmla v" #s1 ".4s, v" #left ".16b, v" #r1 ".16b\n" \
  "smmla v" #s2 ".4s, v" #left ".16b, v" #r2 ".16b\n" \
  "smmla v" #s3 ".4s, v" #left ".16b, v" #r3 ".16b\n"
#define LOAD(a, b, c, d, from) \
  "ld1 {v" #a ".16b, v" #b ".16b, v" #c ".16b, v" #d ".16b}, [%[" #from "]]\n"
#define TWO_STEPS(next_left0, next_right) \
  LOAD(12, 13, 14, 15, right1) \
  PRODUCTS(0, 8, 9, 10, 11, 16, 17, 18, 19) \
  LOAD(4, 5, 6, 7, left1) \
  PRODUCTS(1, 8, 9, 10, 11, 20, 21, 22, 23) \
  PRODUCTS(2, 12, 13, 14, 15, 16, 17, 18, 19) \
  PRODUCTS(3, 12, 13, 14, 15, 20, 21, 22, 23) \
  PRODUCTS(4, 8, 9, 10, 11, 24, 25, 26, 27) \
  next_left0 \
  PRODUCTS(5, 8, 9, 10, 11, 28, 29, 30, 31) \
  next_right \
  PRODUCTS(6, 12, 13, 14, 15, 24, 25, 26, 27) \
  PRODUCTS(7, 12, 13, 14, 15, 28, 29, 30, 31)
#define CLEAR(a, b, c, d) \
  "movi v" #a ".4s, #0\n movi v" #b ".4s, #0\n movi v" #c ".4s, #0\n movi v" #d ".4s, #0\n"
#define STORE(a, b, c, d) \
  "st1 {v" #a ".4s, v" #b ".4s, v" #c ".4s, v" #d ".4s}, [%[sum]], #64\n"
// clang-format on

struct MatmulA510 : Matmul {
  enum { kPanels = 2 };

  template <int kLeft>
  static void run(const int8_t* lhs, size_t lhs_stride_bytes, const int8_t* rhs, size_t steps,
                  int32_t (*sums)[kColumns]) {
    if (kLeft < 2) return Matmul::run<kLeft>(lhs, lhs_stride_bytes, rhs, steps, sums);
    const int8_t *left0 = lhs, *left1 = lhs + lhs_stride_bytes, *right0 = rhs, *right1 = rhs;
    int32x4_t sum[4][4], *next = sum[0];
    asm volatile(
        CLEAR(16, 17, 18, 19) CLEAR(20, 21, 22, 23) CLEAR(24, 25, 26, 27) CLEAR(28, 29, 30, 31)
        "tbz %[steps], #0, 1f\n"
        "ld1 {v0.16b, v1.16b}, [%[left0]], #32\n"
        "ld1 {v4.16b, v5.16b}, [%[left1]], #32\n"
        LOAD(8, 9, 10, 11, right0)
        "add %[right0], %[right0], #128\n"
        PRODUCTS(0, 8, 9, 10, 11, 16, 17, 18, 19)
        PRODUCTS(1, 8, 9, 10, 11, 20, 21, 22, 23)
        PRODUCTS(4, 8, 9, 10, 11, 24, 25, 26, 27)
        PRODUCTS(5, 8, 9, 10, 11, 28, 29, 30, 31)
        "1:\n"
        "lsr %[steps], %[steps], #1\n"
        "cbz %[steps], 4f\n"
        LOAD(0, 1, 2, 3, left0)
        LOAD(8, 9, 10, 11, right0)
        "add %[left0], %[left0], #64\n"
        "add %[right1], %[right0], #128\n"
        "add %[right0], %[right0], #256\n"
        "subs %[steps], %[steps], #1\n"
        "b.eq 3f\n"
        "2:\n"
        TWO_STEPS(LOAD(0, 1, 2, 3, left0), LOAD(8, 9, 10, 11, right0))
        "add %[left0], %[left0], #64\n"
        "add %[left1], %[left1], #64\n"
        "add %[right0], %[right0], #256\n"
        "add %[right1], %[right1], #256\n"
        "subs %[steps], %[steps], #1\n"
        "b.ne 2b\n"
        "3:\n"
        TWO_STEPS("", "")
        "4:\n"
        STORE(16, 17, 18, 19) STORE(20, 21, 22, 23) STORE(24, 25, 26, 27) STORE(28, 29, 30, 31)
        : [left0] "+r"(left0), [left1] "+r"(left1), [right0] "+r"(right0), [right1] "+r"(right1),
          [steps] "+r"(steps), [sum] "+r"(next)
        :
        : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",
          "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23",
          "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
    for (int r = 0; r < 4; r++) write_pair(sum[r], sums + 2 * r);
  }
};

}  // namespace

void bve_gemm_f32_qd8_qc8p_12x8x8_neoni8mm(const bve_gemm* args) {
  bve_walk_tiles_neon<Matmul>(args);
}
void bve_gemm_f32_qd8_qc8p_8x8x8_neoni8mm_a510(const bve_gemm* args) {
  bve_walk_tiles_neon<MatmulA510>(args);
}
