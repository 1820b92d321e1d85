// Rows on AVX2 with FMA and F16C.
#include <immintrin.h>

#include "rows_rhs.h"

namespace {

struct Avx2 {
  enum { W = 8 };
  typedef __m256 F;
  typedef uint32_t I __attribute__((vector_size(32)));

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static F low(F a, F b) { return _mm256_min_ps(a, b); }
  static F high(F a, F b) { return _mm256_max_ps(a, b); }
  static I umax(I a, I b) { return (I)_mm256_max_epu32((__m256i)a, (__m256i)b); }
  static I smax(I a, I b) { return (I)_mm256_max_epi32((__m256i)a, (__m256i)b); }
  template <typename Join>
  static float reduce(F x, Join join) {
    __m128 y = join(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = join(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(join(y, _mm_movehdup_ps(y)));
  }
  static float sum(F x) {
    return reduce(x, [](__m128 a, __m128 b) { return _mm_add_ps(a, b); });
  }
  static float highest(F x) {
    return reduce(x, [](__m128 a, __m128 b) { return _mm_max_ps(a, b); });
  }
  template <typename Join>
  static int32_t reduce(I x, Join join) {
    __m128i y = join(_mm256_castsi256_si128((__m256i)x), _mm256_extracti128_si256((__m256i)x, 1));
    y = join(y, _mm_shuffle_epi32(y, 0x4e));
    return _mm_cvtsi128_si32(join(y, _mm_shuffle_epi32(y, 0xb1)));
  }
  static uint32_t sum(I x) {
    return reduce(x, [](__m128i a, __m128i b) { return _mm_add_epi32(a, b); });
  }
  static uint32_t umax(I x) {
    return reduce(x, [](__m128i a, __m128i b) { return _mm_max_epu32(a, b); });
  }
  static int32_t smax(I x) {
    return reduce(x, [](__m128i a, __m128i b) { return _mm_max_epi32(a, b); });
  }
  static I round(F x) { return (I)_mm256_cvtps_epi32(x); }
  static Bytes bytes(const I (&q)[2]) {
    __m256i h = _mm256_packs_epi32((__m256i)q[0], (__m256i)q[1]);
    h = _mm256_permute4x64_epi64(h, 0xd8);
    return (Bytes)_mm_packs_epi16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  }
  static void halves(const F (&x)[2], uint16_t* dst) {
    for (int v = 0; v < 2; v++) {
      const __m128i h = _mm256_cvtps_ph(x[v], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(dst) + v, h);
    }
  }
  static void zip(I a, I b, I (&to)[2]) {
    const __m256i x = _mm256_unpacklo_epi32((__m256i)a, (__m256i)b);
    const __m256i y = _mm256_unpackhi_epi32((__m256i)a, (__m256i)b);
    to[0] = (I)_mm256_permute2x128_si256(x, y, 0x20);
    to[1] = (I)_mm256_permute2x128_si256(x, y, 0x31);
  }
};

}  // namespace

void bve_pack_f32_f32_u16_avx2(const bve_pack* a) { pack_floats<Avx2, float>(a); }
void bve_pack_qd8_f32_u16_avx2(const bve_pack* a) { pack_qd8<Avx2>(a); }
void bve_softmax_f32_f32_u16_avx2(const bve_softmax* a) { softmax_floats<Avx2, float>(a); }
void bve_softmax_qd8_f32_u16_avx2(const bve_softmax* a) { softmax_qd8<Avx2>(a); }
void bve_keys_f32_u16_avx2(const bve_pack_rhs* a) { keys<Avx2>(a); }
void bve_values_f32_u16_avx2(const bve_pack_rhs* a) { values<Avx2>(a); }
void bve_route_f32_u16_avx2(const bve_route* a) { route<Avx2>(a); }
