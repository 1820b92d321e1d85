// Sums down columns by dot products of four rows: weights in two bytes, a product for each.
#include <arm_neon.h>
#include <string.h>

#include "kernels.h"

namespace {

// Four columns of four rows, of two pairs of 8 columns: levels less 128.
struct Columns {
  int8x16_t part[2];
  Columns(const uint8_t* first, const uint8_t* second) {
    const uint8x16_t bias = vdupq_n_u8(128);
    const uint16x8_t a = vreinterpretq_u16_u8(veorq_u8(vld1q_u8(first), bias));
    const uint16x8_t b = vreinterpretq_u16_u8(veorq_u8(vld1q_u8(second), bias));
    part[0] = vreinterpretq_s8_u16(vzip1q_u16(a, b));
    part[1] = vreinterpretq_s8_u16(vzip2q_u16(a, b));
  }
};

}  // namespace

void bve_down_i16_u8_u32_neondot(const bve_down* a) {
  int32_t bias = 1 << (a->shift - 1);
  for (size_t i = 0; i < a->pairs * 2; i++) bias += 128 * a->weights[i];
  const int32x4_t shift = vdupq_n_s32(-a->shift), start = vdupq_n_s32(bias);
  const int16x8_t zero = vdupq_n_s16(0), most = vdupq_n_s16(a->most);
  for (size_t x = 0; x < a->n; x += BVE_COLUMNS) {
    int32x4_t high[8] = {}, low[8];
    for (int32x4_t& sum : low) sum = start;
    const auto add = [&](int16x4_t weights, const uint8_t* first, const uint8_t* second) {
      const int16x8_t both = vcombine_s16(weights, weights);
      // weight = 256 * upper + lower, each of 8 bits
      const int8x8_t upper = vrshrn_n_s16(both, 8), lower = vmovn_s16(both);
      const int8x16_t uppers = vcombine_s8(upper, upper), lowers = vcombine_s8(lower, lower);
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        const Columns columns(first + x * 2 + i * 16, second + x * 2 + i * 16);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
          const int at = i * 2 + half;
          high[at] = vdotq_s32(high[at], columns.part[half], uppers);
          low[at] = vdotq_s32(low[at], columns.part[half], lowers);
        }
      }
    };
    size_t p = 0;
    for (; p + 2 <= a->pairs; p += 2) add(vld1_s16(a->weights + p * 2), a->src[p], a->src[p + 1]);
    if (p < a->pairs) {
      uint32_t pair;
      memcpy(&pair, a->weights + p * 2, sizeof pair);
      add(vcreate_s16(pair), a->src[p], a->src[p]);
    }
    for (int i = 0; i < 4; i++) {
      const int32x4_t even = vaddq_s32(vshlq_n_s32(high[i * 2], 8), low[i * 2]);
      const int32x4_t odd = vaddq_s32(vshlq_n_s32(high[i * 2 + 1], 8), low[i * 2 + 1]);
      const int16x8_t rounded =
          vqmovn_high_s32(vqmovn_s32(vshlq_s32(even, shift)), vshlq_s32(odd, shift));
      vst1q_s16(a->dst + x + i * 8, vminq_s16(vmaxq_s16(rounded, zero), most));
    }
  }
}
