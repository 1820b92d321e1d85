#include "tile_neon.h"

namespace {

struct Dot {
  using Left = int8_t;
  using Right = int8_t;
  using Sum = int32_t;
  enum { kPanels = 3, kColumns = 8, kDepth = 4, kHead = sizeof(bve_qc8_head) };

  template <int kLeft>
  static void run(const int8_t* lhs, size_t lhs_stride_bytes, const int8_t* rhs, size_t steps,
                  int32_t (*sums)[kColumns]) {
    int32x4_t sum[4 * kLeft][2] = {};
    for (; steps; steps--) {
      const int8x16_t right[2] = {vld1q_s8(rhs), vld1q_s8(rhs + 16)};
      for (int p = 0; p < kLeft; p++) {
        const int8x16_t left = vld1q_s8(lhs + p * lhs_stride_bytes);
        for (int c = 0; c < 2; c++) {
          sum[4 * p][c] = vdotq_laneq_s32(sum[4 * p][c], right[c], left, 0);
          sum[4 * p + 1][c] = vdotq_laneq_s32(sum[4 * p + 1][c], right[c], left, 1);
          sum[4 * p + 2][c] = vdotq_laneq_s32(sum[4 * p + 2][c], right[c], left, 2);
          sum[4 * p + 3][c] = vdotq_laneq_s32(sum[4 * p + 3][c], right[c], left, 3);
        }
      }
      lhs += BVE_LHS_ROWS * kDepth;
      rhs += BVE_PANEL * kDepth;
    }
    for (int r = 0; r < 4 * kLeft; r++) {
      for (int c = 0; c < 2; c++) vst1q_s32(sums[r] + 4 * c, sum[r][c]);
    }
  }
};

// For in-order cores. There a load of 128 bits holds everything up, while one of 64 or an insert
// issues beside a product: so a left panel comes as two registers of 64 bits, two rows in each, and
// the right side's upper halves by way of a general register. v0-v5: the left panels; v6, v7: right
// columns 0-3 and 4-7; v8-v31: the sums, two of each row. A step goes through all rows with v6,
// then with v7, so that each register is free some products before it is needed again, and none is
// needed twice. Offsets count up to zero: what moves them also ends the loop, and stands where the
// branch has to wait for the last product anyway. The last step loads nothing of a next one.
// clang-format off
#define ROWS(right, left, left_2, s0, s1, s2, s3, with0, with1, with2, with3) \
  "sdot v" #s0 ".4s, v" #right ".16b, v" #left ".4b[0]\n" with0 \
  "sdot v" #s1 ".4s, v" #right ".16b, v" #left ".4b[1]\n" with1 \
  "sdot v" #s2 ".4s, v" #right ".16b, v" #left_2 ".4b[0]\n" with2 \
  "sdot v" #s3 ".4s, v" #right ".16b, v" #left_2 ".4b[1]\n" with3
#define LEFT(reg, from) "ldr d" #reg ", [%[" #from "], %[left_at]]\n"
#define RIGHT(reg, from) "ldr d" #reg ", [%[" #from "], %[right_at]]\n"
#define UPPER(from) "ldr %[upper], [%[" #from "], %[right_at]]\n"
#define INSERT(reg) "ins v" #reg ".d[1], %[upper]\n"
#define FIRST_HALF \
  ROWS(6, 0, 1, 8, 10, 12, 14, RIGHT(7, right1), UPPER(right1_upper), LEFT(4, left2), LEFT(5, left2_2)) \
  ROWS(6, 2, 3, 16, 18, 20, 22, "", "", INSERT(7), "") \
  ROWS(6, 4, 5, 24, 26, 28, 30, "", "", "", "")
#define SECOND_HALF(r0, r1, r2, l0, l1, l2, l3) \
  ROWS(7, 0, 1, 9, 11, 13, 15, r0, r1, "", l0) \
  ROWS(7, 2, 3, 17, 19, 21, 23, l1, "", "", "") \
  ROWS(7, 4, 5, 25, 27, 29, 31, r2, l2, l3, "")
#define ADVANCE "adds %[left_at], %[left_at], #16\n add %[right_at], %[right_at], #64\n"
#define CLEAR(a, b, c, d) \
  "movi v" #a ".4s, #0\n movi v" #b ".4s, #0\n movi v" #c ".4s, #0\n movi v" #d ".4s, #0\n"
#define STORE(a, b, c, d) \
  "st1 {v" #a ".4s, v" #b ".4s, v" #c ".4s, v" #d ".4s}, [%[sums]], #64\n"
// clang-format on

struct DotA55 : Dot {
  template <int kLeft>
  static void run(const int8_t* lhs, size_t lhs_stride_bytes, const int8_t* rhs, size_t steps,
                  int32_t (*sums)[kColumns]) {
    if (kLeft < 3) return Dot::run<kLeft>(lhs, lhs_stride_bytes, rhs, steps, sums);
    const int8_t *left0 = lhs + 16 * steps, *right0 = rhs + 64 * steps;  // the end
    const int8_t *left1 = left0 + lhs_stride_bytes, *left2 = left1 + lhs_stride_bytes - 16;
    const int8_t* right1 = right0 - 64 + 16;
    ptrdiff_t left_at = -16 * (ptrdiff_t)steps, right_at = -64 * (ptrdiff_t)steps;
    int64_t upper;
    // clang-format off
    asm volatile(
        CLEAR(8, 9, 10, 11) CLEAR(12, 13, 14, 15) CLEAR(16, 17, 18, 19)
        CLEAR(20, 21, 22, 23) CLEAR(24, 25, 26, 27) CLEAR(28, 29, 30, 31)
        RIGHT(6, right0) UPPER(right0_upper) INSERT(6)
        LEFT(0, left0) LEFT(1, left0_2) LEFT(2, left1) LEFT(3, left1_2)
        ADVANCE
        "b.eq 2f\n"
        "1:\n"
        FIRST_HALF
        SECOND_HALF(RIGHT(6, right0), UPPER(right0_upper), INSERT(6),
                    LEFT(0, left0), LEFT(1, left0_2), LEFT(2, left1), LEFT(3, left1_2))
        ADVANCE
        "b.ne 1b\n"
        "2:\n"
        FIRST_HALF
        SECOND_HALF("", "", "", "", "", "", "")
        STORE(8, 9, 10, 11) STORE(12, 13, 14, 15) STORE(16, 17, 18, 19)
        STORE(20, 21, 22, 23) STORE(24, 25, 26, 27) STORE(28, 29, 30, 31)
        : [left_at] "+r"(left_at), [right_at] "+r"(right_at), [sums] "+r"(sums),
          [upper] "=&r"(upper)
        : [left0] "r"(left0), [left0_2] "r"(left0 + 8), [left1] "r"(left1),
          [left1_2] "r"(left1 + 8), [left2] "r"(left2), [left2_2] "r"(left2 + 8),
          [right0] "r"(right0), [right0_upper] "r"(right0 + 8), [right1] "r"(right1),
          [right1_upper] "r"(right1 + 8)
        : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",
          "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23",
          "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31");
    // clang-format on
  }
};

}  // namespace

void bve_gemm_f32_qd8_qc8p_12x8x4_neondot(const bve_gemm* args) { bve_walk_tiles_neon<Dot>(args); }
void bve_gemm_f32_qd8_qc8p_12x8x4_neondot_a55(const bve_gemm* args) {
  bve_walk_tiles_neon<DotA55>(args);
}
