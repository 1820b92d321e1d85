// 8-bit, half and float products on AVX2: x86 without VNNI. maddubs would be faster for 8 bits and
// saturates, so both sides are widened to 16 bits.
#include <immintrin.h>

#include "kernels.h"

namespace {

inline __m256i mask_of(ptrdiff_t columns) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(columns > 8 ? 8 : static_cast<int>(columns)), index);
}

// Columns [j, j + 16) of row i.
inline void store(const bve_gemm& g, size_t i, size_t j, __m256 low, __m256 high) {
  const size_t row = g.dst_rows ? g.dst_rows[i] : i;
  float* dst =
      reinterpret_cast<float*>(reinterpret_cast<char*>(g.dst) + row * g.dst_stride_bytes) + j;
  if (g.gate) {
    const __m256 gate = _mm256_set1_ps(g.gate[i]);
    low = _mm256_mul_ps(low, gate);
    high = _mm256_mul_ps(high, gate);
  }
  const ptrdiff_t columns = g.n - j;
  const __m256i mask = mask_of(columns);
  if (g.accumulate) low = _mm256_add_ps(low, _mm256_maskload_ps(dst, mask));
  _mm256_maskstore_ps(dst, mask, low);
  if (columns <= 8) return;
  const __m256i mask2 = mask_of(columns - 8);
  if (g.accumulate) high = _mm256_add_ps(high, _mm256_maskload_ps(dst + 8, mask2));
  _mm256_maskstore_ps(dst + 8, mask2, high);
}

template <int kRows>
inline void tile_int8(const bve_gemm& g, size_t i, size_t j, const char* panel) {
  const char* lhs = static_cast<const char*>(g.lhs) + i * g.lhs_stride_bytes;
  const bve_qc8_head* head = reinterpret_cast<const bve_qc8_head*>(panel);
  const char* data = reinterpret_cast<const char*>(head + 1);
  __m256i sum[kRows], sum2[kRows], sum3[kRows], sum4[kRows];  // pairs of k, four columns each
#pragma GCC unroll 3
  for (int r = 0; r < kRows; r++) sum[r] = sum2[r] = sum3[r] = sum4[r] = _mm256_setzero_si256();
  for (size_t k = 0; k < g.k; k += 4, data += 64) {
    const auto widen = [&](size_t b) {
      return _mm256_cvtepi8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(data + b)));
    };
    const __m256i b = widen(0), b2 = widen(16), b3 = widen(32), b4 = widen(48);
#pragma GCC unroll 3
    for (int r = 0; r < kRows; r++) {
      int32_t quad;
      __builtin_memcpy(&quad, lhs + r * g.lhs_stride_bytes + k, 4);
      const __m256i a = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(quad)));
      sum[r] = _mm256_add_epi32(sum[r], _mm256_madd_epi16(a, b));
      sum2[r] = _mm256_add_epi32(sum2[r], _mm256_madd_epi16(a, b2));
      sum3[r] = _mm256_add_epi32(sum3[r], _mm256_madd_epi16(a, b3));
      sum4[r] = _mm256_add_epi32(sum4[r], _mm256_madd_epi16(a, b4));
    }
  }
#pragma GCC unroll 3
  for (int r = 0; r < kRows; r++) {
    const bve_row row = g.rows[i + r];
    const auto finish = [&](__m256i a, __m256i b, int c) {
      const __m256i pairs = _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
      const __m256i column = _mm256_load_si256(reinterpret_cast<const __m256i*>(head->sum + c));
      const __m256i zero = _mm256_mullo_epi32(column, _mm256_set1_epi32(row.zero));
      const __m256 x = _mm256_cvtepi32_ps(_mm256_sub_epi32(pairs, zero));
      return _mm256_fmadd_ps(_mm256_mul_ps(x, _mm256_set1_ps(row.scale)),
                             _mm256_load_ps(head->scale + c), _mm256_load_ps(head->bias + c));
    };
    store(g, i + r, j, finish(sum[r], sum2[r], 0), finish(sum3[r], sum4[r], 8));
  }
}

inline __m256 load8(const float* from) { return _mm256_load_ps(from); }
inline __m256 load8(const uint16_t* from) {
  return _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
}

// Value: float, or uint16_t for the bits of a half.
template <typename Value, int kRows>
inline void tile_float(const bve_gemm& g, size_t i, size_t j, const char* panel) {
  const char* lhs = static_cast<const char*>(g.lhs) + i * g.lhs_stride_bytes;
  const float* bias = reinterpret_cast<const float*>(panel);
  const Value* data = reinterpret_cast<const Value*>(panel + 64);
  __m256 sum[kRows], sum2[kRows];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++) sum[r] = _mm256_load_ps(bias), sum2[r] = _mm256_load_ps(bias + 8);
  for (size_t k = 0; k < g.k; k++, data += 16) {
    const __m256 b = load8(data), b2 = load8(data + 8);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; r++) {
      const __m256 a =
          _mm256_broadcast_ss(reinterpret_cast<const float*>(lhs + r * g.lhs_stride_bytes) + k);
      sum[r] = _mm256_fmadd_ps(a, b, sum[r]);
      sum2[r] = _mm256_fmadd_ps(a, b2, sum2[r]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; r++) store(g, i + r, j, sum[r], sum2[r]);
}

struct Int8 {
  static constexpr int kTileRows = 3;
  template <int kRows>
  static void tile(const bve_gemm& g, size_t i, size_t j, const char* panel) {
    tile_int8<kRows>(g, i, j, panel);
  }
};

template <typename Value>
struct Float {
  static constexpr int kTileRows = 6;
  template <int kRows>
  static void tile(const bve_gemm& g, size_t i, size_t j, const char* panel) {
    tile_float<Value, kRows>(g, i, j, panel);
  }
};

// The last rows, fewer than a tile.
template <typename Kind, int kRows = Kind::kTileRows - 1>
inline void rest(const bve_gemm& g, size_t i, size_t j, const char* panel) {
  if constexpr (kRows > 0) {
    if (g.m - i == kRows) return Kind::template tile<kRows>(g, i, j, panel);
    rest<Kind, kRows - 1>(g, i, j, panel);
  }
}

template <typename Kind>
inline void product(const bve_gemm& g) {
  const char* panel = static_cast<const char*>(g.rhs);
  for (size_t j = 0; j < g.n; j += BVE_PANEL, panel += g.rhs_stride_bytes) {
    size_t i = 0;
    for (; i + Kind::kTileRows <= g.m; i += Kind::kTileRows) {
      Kind::template tile<Kind::kTileRows>(g, i, j, panel);
    }
    rest<Kind>(g, i, j, panel);
  }
}

}  // namespace

void bve_gemm_f32_qd8_qc8p_3x16x4_avx2(const bve_gemm* args) { product<Int8>(*args); }
void bve_gemm_f32_f32_f32p_6x16_avx2(const bve_gemm* args) { product<Float<float>>(*args); }
void bve_gemm_f32_f32_f16p_6x16_avx2(const bve_gemm* args) { product<Float<uint16_t>>(*args); }
