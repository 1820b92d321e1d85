// Rows on NEON, as every ARMv8 has it; halves too, which it converts and no more is asked of it.
#include <arm_neon.h>

#include "rows_rhs.h"

namespace {

struct Neon {
  enum { W = 4 };
  typedef float32x4_t F;
  typedef uint32x4_t I;

  static F load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, F x) { vst1q_f32(p, x); }
  static F set(float x) { return vdupq_n_f32(x); }
  static F low(F a, F b) { return vminq_f32(a, b); }
  static F high(F a, F b) { return vmaxq_f32(a, b); }
  static I umax(I a, I b) { return vmaxq_u32(a, b); }
  static I smax(I a, I b) {
    return vreinterpretq_u32_s32(vmaxq_s32(vreinterpretq_s32_u32(a), vreinterpretq_s32_u32(b)));
  }
  static float sum(F x) { return vaddvq_f32(x); }
  static float highest(F x) { return vmaxvq_f32(x); }
  static uint32_t sum(I x) { return vaddvq_u32(x); }
  static uint32_t umax(I x) { return vmaxvq_u32(x); }
  static int32_t smax(I x) { return vmaxvq_s32(vreinterpretq_s32_u32(x)); }
  static I round(F x) { return vreinterpretq_u32_s32(vcvtnq_s32_f32(x)); }
  static int16x4_t narrow(I x) { return vqmovn_s32(vreinterpretq_s32_u32(x)); }
  static Bytes bytes(const I (&q)[4]) {
    const int16x8_t a = vcombine_s16(narrow(q[0]), narrow(q[1]));
    const int16x8_t b = vcombine_s16(narrow(q[2]), narrow(q[3]));
    return (Bytes)vcombine_s8(vqmovn_s16(a), vqmovn_s16(b));
  }
  static void halves(const F (&x)[4], uint16_t* dst) {
    for (int v = 0; v < 4; v++) vst1_u16(dst + v * W, vreinterpret_u16_f16(vcvt_f16_f32(x[v])));
  }
  static void zip(I a, I b, I (&to)[2]) {
    to[0] = vzip1q_u32(a, b);
    to[1] = vzip2q_u32(a, b);
  }
};

}  // namespace

void bve_pack_f32_f32_u16_neon(const bve_pack* a) { pack_floats<Neon, float>(a); }
void bve_pack_f16_f32_u16_neon(const bve_pack* a) { pack_floats<Neon, uint16_t>(a); }
void bve_pack_qd8_f32_u16_neon(const bve_pack* a) { pack_qd8<Neon>(a); }
void bve_softmax_f32_f32_u16_neon(const bve_softmax* a) { softmax_floats<Neon, float>(a); }
void bve_softmax_f16_f32_u16_neon(const bve_softmax* a) { softmax_floats<Neon, uint16_t>(a); }
void bve_softmax_qd8_f32_u16_neon(const bve_softmax* a) { softmax_qd8<Neon>(a); }
void bve_keys_f32_u16_neon(const bve_pack_rhs* a) { keys<Neon>(a); }
void bve_values_f32_u16_neon(const bve_pack_rhs* a) { values<Neon>(a); }
void bve_route_f32_u16_neon(const bve_route* a) { route<Neon>(a); }
