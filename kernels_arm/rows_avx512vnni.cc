// Rows on AVX-512.
#include <immintrin.h>

#include "rows_rhs.h"

namespace {

struct Avx512 {
  enum { W = 16 };
  typedef __m512 F;
  typedef uint32_t I __attribute__((vector_size(64)));

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static F low(F a, F b) { return _mm512_min_ps(a, b); }
  static F high(F a, F b) { return _mm512_max_ps(a, b); }
  static I umax(I a, I b) { return (I)_mm512_max_epu32((__m512i)a, (__m512i)b); }
  static I smax(I a, I b) { return (I)_mm512_max_epi32((__m512i)a, (__m512i)b); }
  static float sum(F x) { return _mm512_reduce_add_ps(x); }
  static float highest(F x) { return _mm512_reduce_max_ps(x); }
  static uint32_t sum(I x) { return static_cast<uint32_t>(_mm512_reduce_add_epi32((__m512i)x)); }
  static uint32_t umax(I x) { return _mm512_reduce_max_epu32((__m512i)x); }
  static int32_t smax(I x) { return _mm512_reduce_max_epi32((__m512i)x); }
  static I round(F x) { return (I)_mm512_cvtps_epi32(x); }
  static Bytes bytes(const I (&q)[1]) { return (Bytes)_mm512_cvtsepi32_epi8((__m512i)q[0]); }
  static void halves(const F (&x)[1], uint16_t* dst) {
    const __m256i h = _mm512_cvtps_ph(x[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), h);
  }
  static void zip(I a, I b, I (&to)[2]) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    to[0] = (I)_mm512_permutex2var_epi32((__m512i)a, first, (__m512i)b);
    to[1] = (I)_mm512_permutex2var_epi32((__m512i)a, second, (__m512i)b);
  }
};

}  // namespace

void bve_pack_f32_f32_u16_avx512vnni(const bve_pack* a) { pack_floats<Avx512, float>(a); }
void bve_pack_qd8_f32_u16_avx512vnni(const bve_pack* a) { pack_qd8<Avx512>(a); }
void bve_softmax_f32_f32_u16_avx512vnni(const bve_softmax* a) { softmax_floats<Avx512, float>(a); }
void bve_softmax_qd8_f32_u16_avx512vnni(const bve_softmax* a) { softmax_qd8<Avx512>(a); }
void bve_keys_f32_u16_avx512vnni(const bve_pack_rhs* a) { keys<Avx512>(a); }
void bve_values_f32_u16_avx512vnni(const bve_pack_rhs* a) { values<Avx512>(a); }
void bve_route_f32_u16_avx512vnni(const bve_route* a) { route<Avx512>(a); }
