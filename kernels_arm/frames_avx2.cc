// Frames on AVX2.
#include <immintrin.h>
#include <string.h>

#include "kernels.h"

namespace {

typedef __m256i V;

// 16 columns of two rows, each in a vector of 16 bits, to pairs of levels.
inline void store_pairs(V first, V second, uint8_t* dst) {
  const V order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
  const V levels = _mm256_shuffle_epi8(_mm256_packus_epi16(first, second), order);
  _mm256_store_si256(reinterpret_cast<V*>(dst), levels);
}

inline V load_bytes(const uint8_t* src) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src)));
}

struct Factors {
  V gain, red_v, green_u, green_v, blue_u, offset;
  explicit Factors(const bve_yuv* a)
      : gain(_mm256_set1_epi16(a->gain)),
        red_v(_mm256_set1_epi16(a->red_v)),
        green_u(_mm256_set1_epi16(a->green_u)),
        green_v(_mm256_set1_epi16(a->green_v)),
        blue_u(_mm256_set1_epi16(a->blue_u)),
        offset(_mm256_set1_epi16(a->offset)) {}
};

// 32 columns of y, u and v of their 16 pixels of chroma, to dst + 2 * x.
inline void convert(const Factors& f, const uint8_t* y0, const uint8_t* y1, V u, V v,
                    uint8_t* const* dst, size_t x) {
  u = _mm256_permute4x64_epi64(u, 0xd8);  // so that a lane's halves are 8 pixels each
  v = _mm256_permute4x64_epi64(v, 0xd8);
  const V green =
      _mm256_add_epi16(_mm256_mulhrs_epi16(u, f.green_u), _mm256_mulhrs_epi16(v, f.green_v));
  const V parts[3] = {_mm256_add_epi16(_mm256_mulhrs_epi16(v, f.red_v), f.offset),
                      _mm256_add_epi16(green, f.offset),
                      _mm256_add_epi16(_mm256_mulhrs_epi16(u, f.blue_u), f.offset)};
  for (size_t half = 0; half < 2; half++) {
    const V first = _mm256_mulhrs_epi16(_mm256_slli_epi16(load_bytes(y0 + half * 16), 7), f.gain);
    const V second = _mm256_mulhrs_epi16(_mm256_slli_epi16(load_bytes(y1 + half * 16), 7), f.gain);
    for (size_t c = 0; c < 3; c++) {
      const V part = half == 0 ? _mm256_unpacklo_epi16(parts[c], parts[c])
                               : _mm256_unpackhi_epi16(parts[c], parts[c]);
      store_pairs(_mm256_srai_epi16(_mm256_adds_epi16(first, part), 6),
                  _mm256_srai_epi16(_mm256_adds_epi16(second, part), 6),
                  dst[c] + (x + half * 16) * 2);
    }
  }
}

// As bve_yuv has them: (value - 128) * 256.
inline V center(V value) { return _mm256_xor_si256(value, _mm256_set1_epi16(INT16_MIN)); }

inline void convert_in_turns(const Factors& f, const uint8_t* y0, const uint8_t* y1,
                             const uint8_t* uv, bool is_v_first, uint8_t* const* dst, size_t x) {
  const V both = _mm256_loadu_si256(reinterpret_cast<const V*>(uv));
  const V first = center(_mm256_slli_epi16(both, 8));
  const V second = center(_mm256_and_si256(both, _mm256_set1_epi16(static_cast<int16_t>(0xff00))));
  convert(f, y0, y1, is_v_first ? second : first, is_v_first ? first : second, dst, x);
}

inline void convert_planes(const Factors& f, const uint8_t* y0, const uint8_t* y1, const uint8_t* u,
                           const uint8_t* v, uint8_t* const* dst, size_t x) {
  convert(f, y0, y1, center(_mm256_slli_epi16(load_bytes(u), 8)),
          center(_mm256_slli_epi16(load_bytes(v), 8)), dst, x);
}

}  // namespace

void bve_yuv_u8_u8_u32_avx2(const bve_yuv* a) {
  const Factors f(a);
  const uint8_t *y0 = a->y[0], *y1 = a->y[1], *u = a->u, *v = a->v;
  const bool in_turns = a->uv_step == 2, is_v_first = v < u;
  const uint8_t* uv = is_v_first ? v : u;
  size_t x = 0;
  for (; x + BVE_COLUMNS <= a->n; x += BVE_COLUMNS) {
    if (in_turns) {
      convert_in_turns(f, y0 + x, y1 + x, uv + x, is_v_first, a->dst, x);
    } else {
      convert_planes(f, y0 + x, y1 + x, u + x / 2, v + x / 2, a->dst, x);
    }
  }
  const size_t left = a->n - x, half = (left + 1) / 2;
  if (left == 0) return;
  uint8_t y[2][BVE_COLUMNS] = {}, chroma[2][BVE_COLUMNS] = {};
  memcpy(y[0], y0 + x, left);
  memcpy(y[1], y1 + x, left);
  if (in_turns) {
    memcpy(chroma[0], uv + x, half * 2);
    convert_in_turns(f, y[0], y[1], chroma[0], is_v_first, a->dst, x);
  } else {
    memcpy(chroma[0], u + x / 2, half);
    memcpy(chroma[1], v + x / 2, half);
    convert_planes(f, y[0], y[1], chroma[0], chroma[1], a->dst, x);
  }
}

namespace {

// 16 pixels of 4 bytes, of two rows.
inline void sort_quads(const uint8_t* first, const uint8_t* second, uint8_t* const* dst, size_t x) {
  const V order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  V low[2], high[2];  // pairs of channels 0 and 1, of 2 and 3; of 4 pixels in each half
  for (int i = 0; i < 2; i++) {
    const auto load = [&](const uint8_t* row) {
      return _mm256_shuffle_epi8(_mm256_loadu_si256(reinterpret_cast<const V*>(row) + i), order);
    };
    const V a = load(first), b = load(second);
    low[i] = _mm256_unpacklo_epi8(a, b);
    high[i] = _mm256_unpackhi_epi8(a, b);
  }
  const V channels[3] = {_mm256_unpacklo_epi64(low[0], low[1]),
                         _mm256_unpackhi_epi64(low[0], low[1]),
                         _mm256_unpacklo_epi64(high[0], high[1])};
  for (int c = 0; c < 3; c++) {
    _mm256_store_si256(reinterpret_cast<V*>(dst[c] + x * 2),
                       _mm256_permute4x64_epi64(channels[c], 0xd8));
  }
}

// One channel of 16 pixels of 3 bytes, which lies in these three vectors.
inline __m128i take_channel(const __m128i (&pixels)[3], int channel) {
  __m128i taken = _mm_setzero_si128();
  for (int part = 0; part < 3; part++) {
    alignas(16) int8_t order[16];
    for (int i = 0; i < 16; i++) {
      const int at = i * 3 + channel - part * 16;
      order[i] = static_cast<int8_t>(at >= 0 && at < 16 ? at : -1);
    }
    taken = _mm_or_si128(taken, _mm_shuffle_epi8(pixels[part], *reinterpret_cast<__m128i*>(order)));
  }
  return taken;
}

inline void sort_triples(const uint8_t* first, const uint8_t* second, uint8_t* const* dst,
                         size_t x) {
  __m128i rows[2][3];
  for (int part = 0; part < 3; part++) {
    rows[0][part] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first) + part);
    rows[1][part] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(second) + part);
  }
#pragma GCC unroll 3
  for (int c = 0; c < 3; c++) {
    const __m128i a = take_channel(rows[0], c), b = take_channel(rows[1], c);
    auto* to = reinterpret_cast<__m128i*>(dst[c] + x * 2);
    _mm_store_si128(to, _mm_unpacklo_epi8(a, b));
    _mm_store_si128(to + 1, _mm_unpackhi_epi8(a, b));
  }
}

}  // namespace

void bve_rgb_u8_u8_u16_avx2(const bve_rgb* a) {
  uint8_t* const dst[3] = {a->dst[a->red], a->dst[1], a->dst[2 - a->red]};
  const auto sort = a->bytes == 4 ? sort_quads : sort_triples;
  const uint8_t *first = a->rows[0], *second = a->rows[1];
  size_t x = 0;
  for (; x + 16 <= a->n; x += 16) sort(first + x * a->bytes, second + x * a->bytes, dst, x);
  if (x == a->n) return;
  uint8_t rows[2][64] = {};
  for (int row = 0; row < 2; row++)
    memcpy(rows[row], a->rows[row] + x * a->bytes, (a->n - x) * a->bytes);
  sort(rows[0], rows[1], dst, x);
}

void bve_down_i16_u8_u32_avx2(const bve_down* a) {
  const V zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(1 << (a->shift - 1));
  const V most = _mm256_set1_epi16(a->most);
  const __m128i shift = _mm_cvtsi32_si128(a->shift);
  for (size_t x = 0; x < a->n; x += BVE_COLUMNS) {
    V sums[4] = {half, half, half, half};
    for (size_t p = 0; p < a->pairs; p++) {
      const auto* src = reinterpret_cast<const V*>(a->src[p] + x * 2);
      int32_t pair;
      memcpy(&pair, a->weights + p * 2, sizeof pair);
      const V weights = _mm256_set1_epi32(pair);
      for (int i = 0; i < 2; i++) {
        const V levels = _mm256_load_si256(src + i);
        const V low = _mm256_madd_epi16(_mm256_unpacklo_epi8(levels, zero), weights);
        const V high = _mm256_madd_epi16(_mm256_unpackhi_epi8(levels, zero), weights);
        sums[i * 2] = _mm256_add_epi32(sums[i * 2], low);
        sums[i * 2 + 1] = _mm256_add_epi32(sums[i * 2 + 1], high);
      }
    }
    for (int i = 0; i < 2; i++) {
      const V rounded = _mm256_packs_epi32(_mm256_sra_epi32(sums[i * 2], shift),
                                           _mm256_sra_epi32(sums[i * 2 + 1], shift));
      _mm256_store_si256(reinterpret_cast<V*>(a->dst + x) + i,
                         _mm256_min_epi16(_mm256_max_epi16(rounded, zero), most));
    }
  }
}

namespace {

inline V load(const int16_t* src) { return _mm256_loadu_si256(reinterpret_cast<const V*>(src)); }
inline V load_half(const int16_t* src) {
  return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src)));
}

// Products of a pixel's taps and each channel, in 8 sums. kDepth: of the taps; 0: any.
template <size_t kDepth>
inline void multiply(const bve_across* a, size_t pixel, V* red, V* green, V* blue) {
  const size_t depth = kDepth ? kDepth : a->depth, start = a->starts[pixel];
  const int16_t* weights = a->weights + pixel * depth;
  V sums[3] = {};
  size_t j = 0;
  for (; j + 16 <= depth; j += 16) {
    const V w = load(weights + j);
    for (int c = 0; c < 3; c++) {
      const V products = _mm256_madd_epi16(load(a->src[c] + start + j), w);
      sums[c] = _mm256_add_epi32(sums[c], products);
    }
  }
  if (j < depth) {
    const V w = load_half(weights + j);
    for (int c = 0; c < 3; c++) {
      const V products = _mm256_madd_epi16(load_half(a->src[c] + start + j), w);
      sums[c] = _mm256_add_epi32(sums[c], products);
    }
  }
  *red = sums[0], *green = sums[1], *blue = sums[2];
}

// The sums of four pixels' products.
inline __m128i reduce(const V (&parts)[4]) {
  const V all = _mm256_hadd_epi32(_mm256_hadd_epi32(parts[0], parts[1]),
                                  _mm256_hadd_epi32(parts[2], parts[3]));
  return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

template <size_t kDepth>
inline void sum_across(const bve_across* a) {
  const __m128i half = _mm_set1_epi32(1 << (a->shift - 1)), shift = _mm_cvtsi32_si128(a->shift);
  // From one channel's four levels after the other to pixel by pixel.
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const auto round = [&](const V(&parts)[4]) {
    return _mm_sra_epi32(_mm_add_epi32(reduce(parts), half), shift);
  };
  const ptrdiff_t stride = a->dst_stride_bytes, channel = a->dst_channel_bytes;
  uint8_t* dst = a->dst;
  for (size_t i = 0; i < a->n; i += 4) {
    const size_t last = a->n - i < 4 ? a->n - i - 1 : 3;
    V red[4], green[4], blue[4];
#pragma GCC unroll 4
    for (size_t k = 0; k < 4; k++)
      multiply<kDepth>(a, i + (k < last ? k : last), &red[k], &green[k], &blue[k]);
    const __m128i sum_blue = round(blue);
    const __m128i levels = _mm_packus_epi16(_mm_packs_epi32(round(red), round(green)),
                                            _mm_packs_epi32(sum_blue, sum_blue));
    alignas(16) uint32_t pixels[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(pixels), _mm_shuffle_epi8(levels, order));
    for (size_t k = 0; k <= last; k++, dst += stride) {
      dst[0] = static_cast<uint8_t>(pixels[k]);
      dst[channel] = static_cast<uint8_t>(pixels[k] >> 8);
      dst[2 * channel] = static_cast<uint8_t>(pixels[k] >> 16);
    }
  }
}

}  // namespace

void bve_across_u8_i16_u4_avx2(const bve_across* a) {
  if (a->depth == 8) return sum_across<8>(a);
  if (a->depth == 16) return sum_across<16>(a);
  if (a->depth == 24) return sum_across<24>(a);
  if (a->depth == 32) return sum_across<32>(a);
  sum_across<0>(a);
}
