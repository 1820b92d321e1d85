// Blocks of elements and functions of them, for the row kernels of every instruction set: templates
// over a struct of its vectors, V, with
//   F, I                  vectors of W floats and of W uint32, with the language's operators
//   load, store, set      F from and to any address; all lanes alike
//   low, high             lane by lane the lesser and the greater; NaN where the second is
//   umax, smax            of I, lane by lane the greater of two, as uint32 and as int32
//   sum, highest          of F, and sum, umax and smax of I: over all lanes
//   round                 F to I as int32, to nearest even
//   bytes                 16 int32 lanes to 16 int8, saturating
//   halves                16 floats to 16 halves at any address
//   zip                   lanes of two I alternating, to two I
// All work is on blocks of 16 elements, whatever W is.
#pragma once

#include <string.h>

#include "kernels.h"

#define BVE_INLINE inline __attribute__((always_inline))

namespace {

constexpr size_t kBlock = 16;

typedef int8_t Bytes __attribute__((vector_size(16)));

template <typename V>
constexpr int kVectors = kBlock / V::W;

template <typename V>
struct Block {
  typename V::F v[kVectors<V>];
};

template <typename V>
struct Counts {
  typename V::I v[kVectors<V>];
};

#define BVE_EACH(v) _Pragma("GCC unroll 4") for (int v = 0; v < kVectors<V>; v++)

BVE_INLINE const float* row_at(const float* base, size_t i, size_t stride_bytes) {
  return reinterpret_cast<const float*>(reinterpret_cast<const char*>(base) + i * stride_bytes);
}

// A block at j; one of `left` elements is filled up.
template <typename V>
struct Whole {
  size_t j;
  BVE_INLINE Block<V> load(const float* src, float = 0) const {
    Block<V> x;
    BVE_EACH(v) x.v[v] = V::load(src + j + v * V::W);
    return x;
  }
  BVE_INLINE size_t left() const { return kBlock; }
};
template <typename V>
struct Part {
  size_t j, n;
  BVE_INLINE Block<V> load(const float* src, float fill = 0) const {
    float x[kBlock];
    for (float& lane : x) lane = fill;
    memcpy(x, src + j, left() * sizeof(float));
    return Whole<V>{0}.load(x);
  }
  BVE_INLINE size_t left() const { return n - j; }
};

// body(at, lane) for the blocks of n elements; lanes 0 and 1 alternate, for sums of their own.
template <typename V, typename Body>
BVE_INLINE void each_block(size_t n, Body body) {
  size_t j = 0;
  for (; j + 2 * kBlock <= n; j += 2 * kBlock) {
    body(Whole<V>{j}, 0);
    body(Whole<V>{j + kBlock}, 1);
  }
  if (j + kBlock <= n) {
    body(Whole<V>{j}, 0);
    j += kBlock;
  }
  if (j < n) body(Part<V>{j, n}, 1);
}

template <typename V>
struct Pair {
  Block<V> lane[2];
  BVE_INLINE explicit Pair(float x) {
    for (auto& block : lane) BVE_EACH(v) block.v[v] = V::set(x);
  }
  template <typename Join>
  BVE_INLINE typename V::F join(Join join) const {
    typename V::F all = join(lane[0].v[0], lane[1].v[0]);
    for (int v = 1; v < kVectors<V>; v++) all = join(all, join(lane[0].v[v], lane[1].v[v]));
    return all;
  }
  BVE_INLINE float sum() const {
    return V::sum(join([](auto a, auto b) { return a + b; }));
  }
};

// ---- functions of a vector ----------------------------------------------------------------------

// x * Phi(x) as x * (0.5 + x * P(u)), u = 2 * (x / 5.1)^2 - 1, below 5.1; beyond, Phi is 0 or 1. P
// is the minimax polynomial of degree 12 of (Phi(x) - 0.5) / x over u in [-1, 1], its error
// weighted by x^2: a linear program over 2,000 Chebyshev nodes (scipy's linprog). Largest error of
// the whole in float arithmetic, over 4 million x in [-6, 6]: 1.0e-6, near 4.8.
template <typename V>
BVE_INLINE typename V::F gelu(typename V::F x) {
  const typename V::F square = x * x, u = square * V::set(2 / (5.1f * 5.1f)) - V::set(1);
  typename V::F p = V::set(0.0006542065530084074f);
  const float rest[] = {-0.0019568323623389006f, 0.0024043950252234936f, -0.003229620400816202f,
                        0.006859953980892897f,   -0.012024260126054287f, 0.01746547594666481f,
                        -0.02401646599173546f,   0.03171602636575699f,   -0.04021865874528885f,
                        0.050782956182956696f,   -0.06900326162576675f,  0.1386052817106247f};
  _Pragma("GCC unroll 12") for (float c : rest) p = p * u + V::set(c);
  return square < V::set(5.1f * 5.1f) ? x * (x * p + V::set(0.5f)) : V::high(V::set(0), x);
}

// exp(x) for x <= 0, as 2^n * (1 + r + r^2 * P(r)) with |r| <= ln(2) / 2; below -87, exp(-87); of
// NaN, NaN. P is fitted as gelu's, for the relative error: 3e-9 before, 1.3e-7 in float arithmetic.
template <typename V>
BVE_INLINE typename V::F exponential(typename V::F x) {
  typedef typename V::F F;
  typedef typename V::I I;
  x = V::high(V::set(-87), x);
  // 1.5 * 2^23 + 127: adding it leaves an integer in the low bits, biased as 2^n's exponent is.
  const F shift = V::set(12583039);
  const F shifted = x * V::set(1.44269504f) + shift, n = shifted - shift;
  const F r = x - n * V::set(0.693359375f) - n * V::set(-2.12194440e-4f);
  F p = V::set(0.001381334732286632f);
  p = p * r + V::set(0.00836942158639431f);
  p = p * r + V::set(0.04166845232248306f);
  p = p * r + V::set(0.16666515171527863f);
  p = p * r + V::set(0.4999999403953552f);
  p = p * (r * r) + r + V::set(1);
  return p * (F)((I)shifted << 23);
}

// The same two for what is rounded to 8 bits at once: fewer terms, errors far below a step.

// Within 7e-5 of gelu below 4.2, beyond within 1.4e-5 * |x|.
template <typename V>
BVE_INLINE typename V::F gelu_8bit(typename V::F x) {
  const typename V::F c = V::low(V::high(x, V::set(-4.2f)), V::set(4.2f));
  const typename V::F u = c * c * V::set(2 / (4.2f * 4.2f)) - V::set(1);
  typename V::F p = V::set(-0.003991700243204832f);
  const float rest[] = {0.01127334963530302f, -0.016128448769450188f, 0.02367236651480198f,
                        -0.0380537249147892f, 0.05597523972392082f,   -0.08156009018421173f,
                        0.16785366833209991f};
  _Pragma("GCC unroll 7") for (float k : rest) p = p * u + V::set(k);
  return x * (c * p + V::set(0.5f));
}

// 255 * 2^x for x <= 0, to 8e-5 of itself; below -126, next to nothing; of NaN, NaN.
template <typename V>
BVE_INLINE typename V::F exponential_8bit(typename V::F x) {
  typedef typename V::F F;
  typedef typename V::I I;
  x = V::high(V::set(-126), x);
  const F shift = V::set(12583039), shifted = x + shift, f = x - (shifted - shift);
  F p = V::set(255 * 0.05517123f);
  p = p * f + V::set(255 * 0.24261129f);
  p = p * f + V::set(255 * 0.6932611f);
  p = p * f + V::set(255 * 0.99992806f);
  return p * (F)((I)shifted << 23);
}

}  // namespace
