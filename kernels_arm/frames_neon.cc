// Frames on NEON, as every ARMv8 has it.
#include <arm_neon.h>
#include <string.h>

#include "kernels.h"

namespace {

struct Chroma {
  int16x8_t u, v;  // (value - 128) * 256
};

inline int16x8_t center(uint8x8_t value) {
  return vreinterpretq_s16_u16(veorq_u16(vshll_n_u8(value, 8), vdupq_n_u16(0x8000)));
}

struct Rows {
  int16x8_t first[2], second[2];  // of 16 columns
};

inline void scale(uint8x16_t y, int16_t gain, int16x8_t (&to)[2]) {
  to[0] = vqrdmulhq_n_s16(vreinterpretq_s16_u16(vshll_n_u8(vget_low_u8(y), 7)), gain);
  to[1] = vqrdmulhq_n_s16(vreinterpretq_s16_u16(vshll_high_n_u8(y, 7)), gain);
}

// A channel of 16 columns: part is what its 8 pixels of chroma add.
inline void store_pairs(const Rows& rows, int16x8_t part, uint8_t* dst) {
  const int16x8_t low = vzip1q_s16(part, part), high = vzip2q_s16(part, part);
  const auto join = [&](const int16x8_t(&y)[2]) {
    return vqshrun_high_n_s16(vqshrun_n_s16(vqaddq_s16(y[0], low), 6), vqaddq_s16(y[1], high), 6);
  };
  vst2q_u8(dst, (uint8x16x2_t{{join(rows.first), join(rows.second)}}));
}

inline void convert(const bve_yuv* a, const uint8_t* y0, const uint8_t* y1, Chroma chroma,
                    size_t x) {
  Rows rows;
  scale(vld1q_u8(y0), a->gain, rows.first);
  scale(vld1q_u8(y1), a->gain, rows.second);
  const int16x8_t offset = vdupq_n_s16(a->offset);
  const int16x8_t green =
      vaddq_s16(vqrdmulhq_n_s16(chroma.u, a->green_u), vqrdmulhq_n_s16(chroma.v, a->green_v));
  store_pairs(rows, vaddq_s16(vqrdmulhq_n_s16(chroma.v, a->red_v), offset), a->dst[0] + x * 2);
  store_pairs(rows, vaddq_s16(green, offset), a->dst[1] + x * 2);
  store_pairs(rows, vaddq_s16(vqrdmulhq_n_s16(chroma.u, a->blue_u), offset), a->dst[2] + x * 2);
}

// 8 pixels of chroma: in turns, or each in a plane.
template <bool kTurns>
inline Chroma load(const uint8_t* first, const uint8_t* second, bool is_v_first) {
  if (!kTurns) return {center(vld1_u8(first)), center(vld1_u8(second))};
  const uint8x8x2_t both = vld2_u8(first);
  return {center(both.val[is_v_first]), center(both.val[!is_v_first])};
}

template <bool kTurns>
inline void convert_rows(const bve_yuv* a) {
  const bool is_v_first = kTurns && a->v < a->u;
  const uint8_t *y0 = a->y[0], *y1 = a->y[1];
  const uint8_t *first = is_v_first ? a->v : a->u, *second = kTurns ? first : a->v;
  constexpr size_t kColumns = kTurns ? 1 : 2;  // to a byte of chroma
  size_t x = 0;
  for (; x + 16 <= a->n; x += 16) {
    const size_t at = x / kColumns;
    convert(a, y0 + x, y1 + x, load<kTurns>(first + at, second + at, is_v_first), x);
  }
  const size_t left = a->n - x, bytes = (left + 1) / 2 * 2 / kColumns;
  if (left == 0) return;
  uint8_t y[2][16] = {}, chroma[2][16] = {};
  memcpy(y[0], y0 + x, left);
  memcpy(y[1], y1 + x, left);
  memcpy(chroma[0], first + x / kColumns, bytes);
  memcpy(chroma[1], second + x / kColumns, bytes);
  convert(a, y[0], y[1], load<kTurns>(chroma[0], chroma[1], is_v_first), x);
}

}  // namespace

void bve_yuv_u8_u8_u16_neon(const bve_yuv* a) {
  if (a->uv_step == 2) return convert_rows<true>(a);
  convert_rows<false>(a);
}

namespace {

template <typename Load>
inline void sort(const uint8_t* first, const uint8_t* second, uint8_t* const* dst, size_t x,
                 Load load) {
  const auto a = load(first), b = load(second);
  for (int c = 0; c < 3; c++) vst2q_u8(dst[c] + x * 2, (uint8x16x2_t{{a.val[c], b.val[c]}}));
}

template <size_t kBytes, typename Load>
inline void sort_rows(const bve_rgb* a, Load load) {
  uint8_t* const dst[3] = {a->dst[a->red], a->dst[1], a->dst[2 - a->red]};
  size_t x = 0;
  for (; x + 16 <= a->n; x += 16)
    sort(a->rows[0] + x * kBytes, a->rows[1] + x * kBytes, dst, x, load);
  if (x == a->n) return;
  uint8_t rows[2][16 * kBytes] = {};
  for (int row = 0; row < 2; row++)
    memcpy(rows[row], a->rows[row] + x * kBytes, (a->n - x) * kBytes);
  sort(rows[0], rows[1], dst, x, load);
}

}  // namespace

void bve_rgb_u8_u8_u16_neon(const bve_rgb* a) {
  if (a->bytes == 4) {
    sort_rows<4>(a, [](const uint8_t* src) { return vld4q_u8(src); });
  } else {
    sort_rows<3>(a, [](const uint8_t* src) { return vld3q_u8(src); });
  }
}

void bve_down_i16_u8_u16_neon(const bve_down* a) {
  const int32x4_t half = vdupq_n_s32(1 << (a->shift - 1)), shift = vdupq_n_s32(-a->shift);
  const int16x8_t zero = vdupq_n_s16(0), most = vdupq_n_s16(a->most);
  for (size_t x = 0; x < a->n; x += 16) {
    int32x4_t sums[4] = {half, half, half, half};
    for (size_t p = 0; p < a->pairs; p++) {
      const uint8x16x2_t rows = vld2q_u8(a->src[p] + x * 2);
      for (int row = 0; row < 2; row++) {
        const int16_t weight = a->weights[p * 2 + row];
        const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(rows.val[row])));
        const int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(rows.val[row]));
        sums[0] = vmlal_n_s16(sums[0], vget_low_s16(low), weight);
        sums[1] = vmlal_high_n_s16(sums[1], low, weight);
        sums[2] = vmlal_n_s16(sums[2], vget_low_s16(high), weight);
        sums[3] = vmlal_high_n_s16(sums[3], high, weight);
      }
    }
    for (int i = 0; i < 2; i++) {
      const int16x8_t rounded = vqmovn_high_s32(vqmovn_s32(vshlq_s32(sums[i * 2], shift)),
                                                vshlq_s32(sums[i * 2 + 1], shift));
      vst1q_s16(a->dst + x + i * 8, vminq_s16(vmaxq_s16(rounded, zero), most));
    }
  }
}

namespace {

// Products of a pixel's taps and each channel, in 4 sums. kDepth: of the taps; 0: any.
template <size_t kDepth>
inline void multiply(const bve_across* a, size_t pixel, int32x4_t* red, int32x4_t* green,
                     int32x4_t* blue) {
  const size_t depth = kDepth ? kDepth : a->depth, start = a->starts[pixel];
  const int16_t* weights = a->weights + pixel * depth;
  int32x4_t sums[3] = {};
  for (size_t j = 0; j < depth; j += 8) {
    const int16x8_t w = vld1q_s16(weights + j);
#pragma GCC unroll 3
    for (int c = 0; c < 3; c++) {
      const int16x8_t x = vld1q_s16(a->src[c] + start + j);
      sums[c] = vmlal_s16(sums[c], vget_low_s16(x), vget_low_s16(w));
      sums[c] = vmlal_high_s16(sums[c], x, w);
    }
  }
  *red = sums[0], *green = sums[1], *blue = sums[2];
}

template <size_t kDepth>
inline void sum_across(const bve_across* a) {
  const int32x4_t half = vdupq_n_s32(1 << (a->shift - 1)), shift = vdupq_n_s32(-a->shift);
  const auto round = [&](const int32x4_t(&parts)[4]) {
    const int32x4_t sum =
        vpaddq_s32(vpaddq_s32(parts[0], parts[1]), vpaddq_s32(parts[2], parts[3]));
    return vqmovn_s32(vshlq_s32(vaddq_s32(sum, half), shift));
  };
  const ptrdiff_t stride = a->dst_stride_bytes, channel = a->dst_channel_bytes;
  uint8_t* dst = a->dst;
  for (size_t i = 0; i < a->n; i += 4) {
    const size_t last = a->n - i < 4 ? a->n - i - 1 : 3;
    int32x4_t red[4], green[4], blue[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++)
      multiply<kDepth>(a, i + (k < last ? k : last), &red[k], &green[k], &blue[k]);
    uint8_t levels[16];
    const int16x4_t rounded = round(blue);
    vst1q_u8(levels, vqmovun_high_s16(vqmovun_s16(vcombine_s16(round(red), round(green))),
                                      vcombine_s16(rounded, rounded)));
    for (size_t k = 0; k <= last; k++, dst += stride) {
      dst[0] = levels[k];
      dst[channel] = levels[4 + k];
      dst[2 * channel] = levels[8 + k];
    }
  }
}

}  // namespace

void bve_across_u8_i16_u4_neon(const bve_across* a) {
  if (a->depth == 8) return sum_across<8>(a);
  if (a->depth == 16) return sum_across<16>(a);
  sum_across<0>(a);
}
