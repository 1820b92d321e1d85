// Pack and softmax of every instruction set, as templates over its vectors (blocks.h).
#pragma once

#include <float.h>
#include <math.h>
#include <string.h>

#include "blocks.h"

namespace {

// ---- a row to bytes -----------------------------------------------------------------------------

// Where a row's bytes go: pieces of 4 or 8, `step` apart; or 16, one after the other.
struct Pieces {
  int8_t* dst;
  size_t step;
  int piece;
};

template <int kPiece>
struct Piece {};

template <typename Body>
BVE_INLINE void with_piece(int piece, Body body) {
  if (piece == 16) {
    body(Piece<16>());
  } else if (piece == 8) {
    body(Piece<8>());
  } else {
    body(Piece<4>());
  }
}

BVE_INLINE Pieces row_pieces(void* dst, bve_lhs lhs, size_t k, size_t i) {
  int8_t* panel = static_cast<int8_t*>(dst) + i / lhs.mr * bve_lhs_stride_bytes(lhs, k);
  if (lhs.mr == 1) return {panel, 16, 16};  // whose stride has room for whole blocks
  return {panel + i % lhs.mr * lhs.kr, static_cast<size_t>(lhs.mr) * lhs.kr, lhs.kr};
}

// A block's bytes, of a row that has `left` more; beyond its end zeros, to the end of its last
// piece.
template <int kPiece, typename At>
BVE_INLINE void put_bytes(Piece<kPiece>, const Pieces& to, At at, size_t left, Bytes bytes) {
  if (left > kBlock) left = kBlock;
  int8_t q[kBlock];
  memcpy(q, &bytes, kBlock);
  if (left < kBlock) memset(q + left, 0, kBlock - left);
  int8_t* dst = to.dst + at.j / kPiece * to.step;
  for (size_t p = 0; p < (left + kPiece - 1) / kPiece; p++)
    memcpy(dst + p * to.step, q + p * kPiece, kPiece);
}

// q = round(x * factor + zero), made uint8 by a `flip` of the sign bits; returns the sum of all q.
template <typename V, int kPiece>
BVE_INLINE int32_t quantise(Piece<kPiece> piece, const float* src, size_t n, float factor,
                            float zero, int8_t flip, const Pieces& to) {
  const typename V::F f = V::set(factor), z = V::set(zero);
  typename V::I sum = {};
  each_block<V>(n, [&](auto at, int) {
    const Block<V> x = at.load(src);
    Counts<V> q;
    BVE_EACH(v) {
      q.v[v] = V::round(x.v[v] * f + z);
      sum += q.v[v];
    }
    put_bytes(piece, to, at, at.left(), V::bytes(q.v) ^ flip);
  });
  return static_cast<int32_t>(V::sum(sum));
}

// ---- a row of floats ----------------------------------------------------------------------------

template <typename V>
BVE_INLINE void put_block(const Block<V>& x, float* dst) {
  BVE_EACH(v) V::store(dst + v * V::W, x.v[v]);
}
template <typename V>
BVE_INLINE void put_block(const Block<V>& x, uint16_t* dst) {
  V::halves(x.v, dst);
}

template <typename V>
BVE_INLINE void convert(const float* src, size_t n, uint16_t* dst) {
  each_block<V>(n, [&](auto at, int) {
    uint16_t halves[kBlock];
    put_block<V>(at.load(src), halves);
    memcpy(dst + at.j, halves, at.left() * sizeof *dst);
  });
}
template <typename V>
BVE_INLINE void convert(const float* src, size_t n, float* dst) {
  memcpy(dst, src, n * sizeof *dst);
}

// A row of k floats to row i of a left side of floats or halves, element by element where mr > 1.
template <typename V, typename T>
BVE_INLINE void put_floats(const float* src, void* dst, bve_lhs lhs, size_t k, size_t i) {
  T* row =
      reinterpret_cast<T*>(static_cast<char*>(dst) + i / lhs.mr * bve_lhs_stride_bytes(lhs, k));
  if (lhs.mr == 1) return convert<V>(src, k, row);
  row += i % lhs.mr;
  each_block<V>(k, [&](auto at, int) {
    T line[kBlock];
    put_block<V>(at.load(src), line);
    for (size_t j = 0; j < at.left(); j++) row[(at.j + j) * lhs.mr] = line[j];
  });
}

// ---- pack ---------------------------------------------------------------------------------------

struct Limits {
  float low, high;
};

BVE_INLINE float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// map(at, block) over a row, to dst unless that is null. The limits are those of the row and zero,
// and not finite where a value is not: as integers, the bits of floats of either sign rise with
// their magnitude, and those of NaN are above all, which float minima and maxima may drop.
template <typename V, typename Map>
BVE_INLINE Limits map_row(const float* src, size_t n, float* dst, Map map) {
  typedef typename V::F F;
  typedef typename V::I I;
  const auto lower = [](F a, F b) { return (F)V::umax((I)a, (I)b); };
  const auto higher = [](F a, F b) { return (F)V::smax((I)a, (I)b); };
  Pair<V> low(-0.0f), high(0);
  each_block<V>(n, [&](auto at, int lane) {
    const Block<V> x = map(at, at.load(src));
    BVE_EACH(v) {
      low.lane[lane].v[v] = lower(low.lane[lane].v[v], x.v[v]);
      high.lane[lane].v[v] = higher(high.lane[lane].v[v], x.v[v]);
      if (dst) V::store(dst + at.j + v * V::W, x.v[v]);
    }
  });
  return {float_of(V::umax((I)low.join(lower))),
          float_of(static_cast<uint32_t>(V::smax((I)high.join(higher))))};
}

template <typename V>
BVE_INLINE float mean_of(const float* src, size_t n) {
  Pair<V> sum(0);
  each_block<V>(n, [&](auto at, int lane) {
    const Block<V> x = at.load(src);
    BVE_EACH(v) sum.lane[lane].v[v] += x.v[v];
  });
  return sum.sum() / n;
}

// About the mean, not from sums of squares, which would cancel.
template <typename V>
BVE_INLINE float variance_of(const float* src, size_t n, float mean) {
  Pair<V> squares(0);
  each_block<V>(n, [&](auto at, int lane) {
    const Block<V> x = at.load(src, mean);
    BVE_EACH(v) {
      const typename V::F d = x.v[v] - V::set(mean);
      squares.lane[lane].v[v] += d * d;
    }
  });
  return squares.sum() / n;
}

// Row i as it is packed: of src, or in scratch. k8bit: it will be rounded to 8 bits.
template <typename V, bool k8bit>
BVE_INLINE const float* prepare(const bve_pack* a, size_t i, Limits* limits) {
  const float* src = row_at(a->src, a->src_rows ? a->src_rows[i] : i, a->src_stride_bytes);
  if (a->before == bve_as_is) {
    *limits = map_row<V>(src, a->k, nullptr, [](auto, Block<V> x) { return x; });
    return src;
  }
  if (a->before == bve_gelu) {
    *limits = map_row<V>(src, a->k, a->scratch, [](auto, Block<V> x) {
      BVE_EACH(v) x.v[v] = k8bit ? gelu_8bit<V>(x.v[v]) : gelu<V>(x.v[v]);
      return x;
    });
  } else {
    const float center = mean_of<V>(src, a->k);
    const typename V::F mean = V::set(center);
    const typename V::F factor = V::set(1 / sqrtf(variance_of<V>(src, a->k, center) + a->epsilon));
    *limits = map_row<V>(src, a->k, a->scratch, [&](auto at, Block<V> x) {
      const Block<V> gain = at.load(a->gain), offset = at.load(a->offset);
      BVE_EACH(v) x.v[v] = (x.v[v] - mean) * factor * gain.v[v] + offset.v[v];
      return x;
    });
  }
  return a->scratch;
}

template <typename V>
BVE_INLINE void pack_qd8(const bve_pack* a) {
  for (size_t i = 0; i < a->m; i++) {
    Limits limits;
    const float* src = prepare<V, true>(a, i, &limits);
    const float span = limits.high - limits.low, range = span > FLT_MIN ? span : 1;
    const float factor = 255 / range;
    const float zero = nearbyintf(fminf(fmaxf(-limits.low * factor, 0), 255)) - 128;
    const int8_t flip = a->lhs.is_unsigned ? -128 : 0;
    const Pieces to = row_pieces(a->dst, a->lhs, a->k, i);
    with_piece(to.piece,
               [&](auto piece) { quantise<V>(piece, src, a->k, factor, zero, flip, to); });
    a->rows[i] = {isfinite(span) ? range / 255 : NAN,
                  static_cast<int32_t>(zero) + (a->lhs.is_unsigned ? 128 : 0)};
  }
}

template <typename V, typename T>
BVE_INLINE void pack_floats(const bve_pack* a) {
  for (size_t i = 0; i < a->m; i++) {
    Limits unused;
    put_floats<V, T>(prepare<V, false>(a, i, &unused), a->dst, a->lhs, a->k, i);
  }
}

// ---- softmax ------------------------------------------------------------------------------------

template <typename V>
BVE_INLINE float largest_of(const float* src, size_t n) {
  Pair<V> high(-FLT_MAX);
  each_block<V>(n, [&](auto at, int lane) {
    const Block<V> x = at.load(src, -FLT_MAX);
    BVE_EACH(v) high.lane[lane].v[v] = V::high(high.lane[lane].v[v], x.v[v]);
  });
  return V::highest(high.join([](auto a, auto b) { return V::high(a, b); }));
}

// take(at, exponentials) of each block of scores over their largest; returns the sum of all, NaN
// where a score is NaN or +Inf.
template <typename V, typename Take>
BVE_INLINE float exponentiate(const float* scores, size_t n, Take take) {
  const typename V::F largest = V::set(largest_of<V>(scores, n));
  Pair<V> sum(0);
  each_block<V>(n, [&](auto at, int lane) {
    Block<V> x = at.load(scores, -FLT_MAX);
    BVE_EACH(v) {
      x.v[v] = exponential<V>(x.v[v] - largest);
      sum.lane[lane].v[v] += x.v[v];
    }
    take(at, x);
  });
  return sum.sum();
}

// Softmax in place; the floats are room for whole blocks.
template <typename V>
BVE_INLINE void normalise(float* scores, size_t n) {
  const float sum = exponentiate<V>(scores, n, [&](auto at, const Block<V>& x) {
    BVE_EACH(v) V::store(scores + at.j + v * V::W, x.v[v]);
  });
  for (size_t j = 0; j < n; j += V::W) V::store(scores + j, V::load(scores + j) * V::set(1 / sum));
}

// The floats are room for whole blocks, so the last is filled up and none is a part.
template <typename V>
BVE_INLINE void softmax_qd8(const bve_softmax* a) {
  const int8_t flip = a->lhs.is_unsigned ? -128 : 0;
  const size_t n = (a->n + kBlock - 1) / kBlock * kBlock;
  for (size_t i = 0; i < a->m; i++) {
    float* scores = const_cast<float*>(row_at(a->scores, i, a->scores_stride_bytes));
    for (size_t j = a->n; j < n; j++) scores[j] = -FLT_MAX;
    const float log2e = 1.44269504f;
    const typename V::F largest = V::set(largest_of<V>(scores, n) * log2e);
    const Pieces to = row_pieces(a->dst, a->lhs, a->n, i);
    Pair<V> sum(0);
    with_piece(to.piece, [&](auto piece) {
      each_block<V>(n, [&](auto at, int lane) {
        const Block<V> x = at.load(scores);
        Counts<V> q;
        BVE_EACH(v) {
          const typename V::F e = exponential_8bit<V>(x.v[v] * V::set(log2e) - largest);
          sum.lane[lane].v[v] += e;
          q.v[v] = V::round(e - V::set(128));
        }
        put_bytes(piece, to, at, a->n - at.j, V::bytes(q.v) ^ flip);
      });
    });
    a->rows[i] = {1 / sum.sum(), a->lhs.is_unsigned ? 0 : -128};
  }
}

template <typename V, typename T>
BVE_INLINE void softmax_floats(const bve_softmax* a) {
  for (size_t i = 0; i < a->m; i++) {
    float* scores = const_cast<float*>(row_at(a->scores, i, a->scores_stride_bytes));
    normalise<V>(scores, a->n);
    put_floats<V, T>(scores, a->dst, a->lhs, a->n, i);
  }
}

}  // namespace
