// IEEE half precision as bits, for compilers and CPUs without a type for it.
#pragma once

#include <stdint.h>
#include <string.h>

// Rounds to nearest even; beyond 65519 to infinity.
inline uint16_t bve_to_half(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits >= 0x47800000) return sign | (bits > 0x7f800000 ? 0x7e00 : 0x7c00);
  if (bits < 0x38800000) {
    float small;
    memcpy(&small, &bits, sizeof small);
    small += 0.5f;  // whose last place is that of half's subnormals
    memcpy(&bits, &small, sizeof bits);
    return sign | (bits - 0x3f000000);
  }
  return sign | (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
}

inline float bve_from_half(uint16_t half) {
  const uint32_t rest = (half & 0x7fffu) << 13;
  float x;
  memcpy(&x, &rest, sizeof x);
  x *= 0x1p112f;  // moves the exponent's origin, and makes subnormals normal
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (rest >= 0x0f800000) bits |= 0x7f800000;
  bits |= (half & 0x8000u) << 16;
  memcpy(&x, &bits, sizeof x);
  return x;
}
