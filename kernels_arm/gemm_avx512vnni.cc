// 8-bit, half and float products on AVX-512: the host's stand-ins for neondot and neon.
#include <immintrin.h>

#include "kernels.h"

namespace {

constexpr int kTileRows = 12;  // x 2 panels: 24 sums, 2 right sides and 1 left side in 32 registers

inline __mmask16 mask_of(size_t columns) {
  return columns >= 16 ? 0xffff : static_cast<__mmask16>((1u << columns) - 1);
}

inline void store(const bve_gemm& g, size_t i, size_t j, __mmask16 mask, __m512 value) {
  const size_t row = g.dst_rows ? g.dst_rows[i] : i;
  float* dst =
      reinterpret_cast<float*>(reinterpret_cast<char*>(g.dst) + row * g.dst_stride_bytes) + j;
  if (g.gate) value = _mm512_mul_ps(value, _mm512_set1_ps(g.gate[i]));
  if (g.accumulate) value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, dst));
  _mm512_mask_storeu_ps(dst, mask, value);
}

inline const char* panel_of(const bve_gemm& g, size_t j) {
  return static_cast<const char*>(g.rhs) + j / BVE_PANEL * g.rhs_stride_bytes;
}

// The next panels come from memory while the present ones are worked on: each tile of rows fetches
// its share.
inline void prefetch(const char* from, size_t bytes) {
  for (size_t b = 0; b < bytes; b += 64) _mm_prefetch(from + b, _MM_HINT_T1);
}

template <int kRows>
[[gnu::always_inline]] inline void finish_int8(const bve_gemm& g, size_t i, size_t j,
                                               const char* panel, __m512i* sum) {
  const bve_qc8_head* head = reinterpret_cast<const bve_qc8_head*>(panel);
  const __m512 scale = _mm512_load_ps(head->scale), bias = _mm512_load_ps(head->bias);
  const __m512i column = _mm512_load_si512(head->sum);
  const __mmask16 mask = mask_of(g.n - j);
#pragma GCC unroll 12
  for (int r = 0; r < kRows; r++) {
    const bve_row row = g.rows[i + r];
    const __m512i zero = _mm512_mullo_epi32(column, _mm512_set1_epi32(row.zero));
    const __m512 x = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[r], zero));
    store(g, i + r, j, mask,
          _mm512_fmadd_ps(_mm512_mul_ps(x, _mm512_set1_ps(row.scale)), scale, bias));
  }
}

// Where twelve rows stand at one k. Four pointers and the stride in x86's addressing reach them
// all; GCC 12, left alone, takes a register a row and spills.
struct LeftRows {
  const char *row0, *row3, *row6, *row9;
  size_t stride_bytes;

  LeftRows(const bve_gemm& g, size_t i)
      : row0(static_cast<const char*>(g.lhs) + i * g.lhs_stride_bytes),
        row3(row0 + 3 * g.lhs_stride_bytes),
        row6(row3 + 3 * g.lhs_stride_bytes),
        row9(row6 + 3 * g.lhs_stride_bytes),
        stride_bytes(g.lhs_stride_bytes) {}
  const char* row(int r) const {
    return (r < 3 ? row0 : r < 6 ? row3 : r < 9 ? row6 : row9) + r % 3 * stride_bytes;
  }
  void advance() { row0 += 4, row3 += 4, row6 += 4, row9 += 4; }  // four bytes or one float
};

// Sums stand in two arrays, one a panel, and every loop over rows is an innermost one: so GCC 12
// unrolls it early enough to keep them in registers.

template <int kRows, int kPanels>
inline void tile_int8(const bve_gemm& g, size_t i, size_t j) {
  const char* panel = panel_of(g, j);
  const size_t rhs_stride_bytes = g.rhs_stride_bytes;
  LeftRows lhs(g, i);
  __m512i sum[kRows], sum2[kRows];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; r++) sum[r] = sum2[r] = _mm512_setzero_si512();
  const char* data = panel + sizeof(bve_qc8_head);
  for (size_t k = 0; k < g.k; k += 4, data += 64, lhs.advance()) {
    const __m512i b = _mm512_load_si512(data);
    const __m512i b2 = kPanels == 2 ? _mm512_load_si512(data + rhs_stride_bytes) : b;
#pragma GCC unroll 12
    for (int r = 0; r < kRows; r++) {
      int32_t quad;
      __builtin_memcpy(&quad, lhs.row(r), 4);
      const __m512i a = _mm512_set1_epi32(quad);
      sum[r] = _mm512_dpbusd_epi32(sum[r], a, b);
      if constexpr (kPanels == 2) sum2[r] = _mm512_dpbusd_epi32(sum2[r], a, b2);
    }
  }
  finish_int8<kRows>(g, i, j, panel, sum);
  if constexpr (kPanels == 2)
    finish_int8<kRows>(g, i, j + BVE_PANEL, panel + rhs_stride_bytes, sum2);
}

inline __m512 load16(const float* from) { return _mm512_load_ps(from); }
inline __m512 load16(const uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(from)));
}

// Value: float, or uint16_t for the bits of a half.
template <typename Value, int kRows, int kPanels>
inline void tile_float(const bve_gemm& g, size_t i, size_t j) {
  const char* panel = panel_of(g, j);
  const size_t rhs_stride_bytes = g.rhs_stride_bytes;
  LeftRows lhs(g, i);
  __m512 sum[kRows], sum2[kRows];
  const __m512 bias = _mm512_load_ps(panel),
               bias2 = kPanels == 2 ? _mm512_load_ps(panel + rhs_stride_bytes) : bias;
#pragma GCC unroll 12
  for (int r = 0; r < kRows; r++) sum[r] = bias, sum2[r] = bias2;
  const Value* data = reinterpret_cast<const Value*>(panel + 64);
  for (size_t k = 0; k < g.k; k++, data += BVE_PANEL, lhs.advance()) {
    const __m512 b = load16(data);
    const __m512 b2 = kPanels == 2 ? load16(data + rhs_stride_bytes / sizeof(Value)) : b;
#pragma GCC unroll 12
    for (int r = 0; r < kRows; r++) {
      const __m512 a = _mm512_set1_ps(*reinterpret_cast<const float*>(lhs.row(r)));
      sum[r] = _mm512_fmadd_ps(a, b, sum[r]);
      if constexpr (kPanels == 2) sum2[r] = _mm512_fmadd_ps(a, b2, sum2[r]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; r++) store(g, i + r, j, mask_of(g.n - j), sum[r]);
  if constexpr (kPanels == 2) {
#pragma GCC unroll 12
    for (int r = 0; r < kRows; r++)
      store(g, i + r, j + BVE_PANEL, mask_of(g.n - j - BVE_PANEL), sum2[r]);
  }
}

struct Int8 {
  template <int kRows, int kPanels>
  static void tile(const bve_gemm& g, size_t i, size_t j) {
    tile_int8<kRows, kPanels>(g, i, j);
  }
};

template <typename Value>
struct Float {
  template <int kRows, int kPanels>
  static void tile(const bve_gemm& g, size_t i, size_t j) {
    tile_float<Value, kRows, kPanels>(g, i, j);
  }
};

// The last rows, fewer than a tile.
template <typename Kind, int kPanels, int kRows = kTileRows - 1>
inline void rest(const bve_gemm& g, size_t i, size_t j) {
  if constexpr (kRows > 0) {
    if (g.m - i == kRows) return Kind::template tile<kRows, kPanels>(g, i, j);
    rest<Kind, kPanels, kRows - 1>(g, i, j);
  }
}

template <typename Kind, int kPanels>
inline void columns(const bve_gemm& g, size_t j) {
  const bool more = j + kPanels * BVE_PANEL < g.n;
  const char* next = panel_of(g, j + kPanels * BVE_PANEL);
  const size_t share =
      more ? kPanels * g.rhs_stride_bytes / ((g.m + kTileRows - 1) / kTileRows) : 0;
  size_t i = 0;
  for (; i + kTileRows <= g.m; i += kTileRows, next += share) {
    prefetch(next, share);
    Kind::template tile<kTileRows, kPanels>(g, i, j);
  }
  prefetch(next, share);
  rest<Kind, kPanels>(g, i, j);
}

template <typename Kind>
inline void product(const bve_gemm& g) {
  size_t j = 0;
  for (; j + BVE_PANEL < g.n; j += 2 * BVE_PANEL) columns<Kind, 2>(g, j);
  if (j < g.n) columns<Kind, 1>(g, j);
}

}  // namespace

void bve_gemm_f32_qd8_qc8p_12x32x4_avx512vnni(const bve_gemm* args) { product<Int8>(*args); }

void bve_gemm_f32_f32_f32p_12x32_avx512vnni(const bve_gemm* args) { product<Float<float>>(*args); }

void bve_gemm_f32_f32_f16p_12x32_avx512vnni(const bve_gemm* args) {
  product<Float<uint16_t>>(*args);
}
