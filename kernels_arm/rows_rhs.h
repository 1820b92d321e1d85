// Keys, values and the router of every instruction set, as rows.h has the rest.
#pragma once

#include "rows.h"

namespace {

// Panel p of a right side of k rows.
BVE_INLINE char* panel_at(const bve_pack_rhs* a, size_t k, size_t p) {
  return static_cast<char*>(a->dst) + p * bve_rhs_stride_bytes(a->packing, k);
}

// The magnitude that a column is quantised by, of which 127 is.
BVE_INLINE float largest_or_one(float largest) { return largest > FLT_MIN ? largest : 1; }

// The bits of magnitudes, as map_row's.
template <typename V>
BVE_INLINE typename V::I magnitude(typename V::F x) {
  return (typename V::I)x & 0x7fffffff;
}

template <typename V>
BVE_INLINE float largest_magnitude(const float* src, size_t n) {
  typedef typename V::F F;
  typedef typename V::I I;
  const auto higher = [](auto a, auto b) { return (F)V::umax((I)a, (I)b); };
  Pair<V> high(0);
  each_block<V>(n, [&](auto at, int lane) {
    const Block<V> x = at.load(src);
    BVE_EACH(v) {
      F& all = high.lane[lane].v[v];
      all = higher(all, magnitude<V>(x.v[v]));
    }
  });
  return float_of(V::umax((I)high.join(higher)));
}

// ---- keys: 16 rows of src are a panel -----------------------------------------------------------

template <typename V>
BVE_INLINE void keys_qc8(const bve_pack_rhs* a) {
  const int kr = static_cast<int>(bve_rhs_kr(a->packing));
  for (size_t j = 0; j < a->n; j += BVE_PANEL) {
    const size_t columns = a->n - j < kBlock ? a->n - j : kBlock;
    char* panel = panel_at(a, a->d, j / BVE_PANEL);
    if (columns < BVE_PANEL) memset(panel, 0, bve_rhs_stride_bytes(a->packing, a->d));
    bve_qc8_head* head = reinterpret_cast<bve_qc8_head*>(panel);
    for (size_t c = 0; c < columns; c++) {
      const float* src = row_at(a->src, j + c, a->src_stride_bytes);
      const float largest = largest_magnitude<V>(src, a->d), usable = largest_or_one(largest);
      const Pieces to = {reinterpret_cast<int8_t*>(head + 1) + c * kr,
                         static_cast<size_t>(BVE_PANEL * kr), kr};
      head->scale[c] = isfinite(largest) ? usable / 127 : NAN;
      head->bias[c] = 0;
      with_piece(kr, [&](auto piece) {
        head->sum[c] = quantise<V>(piece, src, a->d, 127 / usable, 0, 0, to);
      });
    }
  }
}

typedef float Quad __attribute__((vector_size(16)));

// 4 elements of each of 16 rows, turned into 4 lines of 16.
BVE_INLINE void turn(const float* const* rows, size_t r, float (*lines)[BVE_PANEL]) {
  for (size_t c = 0; c < BVE_PANEL; c += 4) {
    Quad x[4];
    for (size_t i = 0; i < 4; i++) memcpy(&x[i], rows[c + i] + r, sizeof x[i]);
    const Quad a = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
    const Quad b = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
    const Quad d = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5);
    const Quad e = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
    const Quad y[4] = {
        __builtin_shufflevector(a, d, 0, 1, 4, 5), __builtin_shufflevector(a, d, 2, 3, 6, 7),
        __builtin_shufflevector(b, e, 0, 1, 4, 5), __builtin_shufflevector(b, e, 2, 3, 6, 7)};
    for (size_t i = 0; i < 4; i++) memcpy(&lines[i][c], &y[i], sizeof y[i]);
  }
}

template <typename V, typename T>
BVE_INLINE void keys_floats(const bve_pack_rhs* a) {
  for (size_t j = 0; j < a->n; j += BVE_PANEL) {
    const size_t columns = a->n - j < kBlock ? a->n - j : kBlock;
    char* panel = panel_at(a, a->d, j / BVE_PANEL);
    memset(panel, 0, BVE_PANEL * sizeof(float));
    T* data = reinterpret_cast<T*>(panel + BVE_PANEL * sizeof(float));
    const float* rows[BVE_PANEL];  // the last stands in for those beyond
    for (size_t c = 0; c < BVE_PANEL; c++)
      rows[c] = row_at(a->src, j + (c < columns ? c : columns - 1), a->src_stride_bytes);
    float lines[4][BVE_PANEL];
    for (size_t r = 0; r < a->d; r += 4) {
      const size_t depth = a->d - r < 4 ? a->d - r : 4;
      if (depth == 4) {
        turn(rows, r, lines);
      } else {
        for (size_t i = 0; i < depth; i++)
          for (size_t c = 0; c < BVE_PANEL; c++) lines[i][c] = rows[c][r + i];
      }
      for (size_t i = 0; i < depth; i++) {
        for (size_t c = columns; c < BVE_PANEL; c++) lines[i][c] = 0;
        put_block<V>(Whole<V>{0}.load(lines[i]), data + (r + i) * BVE_PANEL);
      }
    }
  }
}

template <typename V>
BVE_INLINE void keys(const bve_pack_rhs* a) {
  if (a->packing == bve_f32p) {
    keys_floats<V, float>(a);
  } else if (a->packing == bve_f16p) {
    keys_floats<V, uint16_t>(a);
  } else {
    keys_qc8<V>(a);
  }
}

// ---- values: 16 columns of src are a panel ------------------------------------------------------

template <typename V, int kPiece, typename At>
BVE_INLINE void values_panel(Piece<kPiece>, const bve_pack_rhs* a, At at, char* panel) {
  typedef typename V::F F;
  Block<V> factor;
  Counts<V> high = {}, sum = {};
  for (size_t r = 0; r < a->n; r++) {
    const Block<V> x = at.load(row_at(a->src, r, a->src_stride_bytes));
    BVE_EACH(v) high.v[v] = V::umax(high.v[v], magnitude<V>(x.v[v]));
  }
  bve_qc8_head* head = reinterpret_cast<bve_qc8_head*>(panel);
  BVE_EACH(v) {
    const F largest = (F)high.v[v];
    const F usable = largest > V::set(FLT_MIN) ? largest : V::set(1);
    factor.v[v] = V::set(127) / usable;
    const F zero = largest * V::set(0);  // or NaN
    // A column beyond the last has the scale of a column of zeros, but none is to be had.
    V::store(head->scale + v * V::W, usable * V::set(1.0f / 127) + zero);
    V::store(head->bias + v * V::W, V::set(0));
  }
  for (size_t c = at.left(); c < BVE_PANEL; c++) head->scale[c] = 0;
  uint32_t* data = reinterpret_cast<uint32_t*>(head + 1);
  for (size_t r = 0; r < a->n; r += kPiece) {
    Counts<V> four[kPiece / 4];
    _Pragma("GCC unroll 8") for (size_t i = 0; i < kPiece; i++) {
      if (i % 4 == 0) BVE_EACH(v) four[i / 4].v[v] = typename V::I{};
      if (r + i >= a->n) continue;
      const Block<V> x = at.load(row_at(a->src, r + i, a->src_stride_bytes));
      BVE_EACH(v) {
        const typename V::I q = V::round(x.v[v] * factor.v[v]);
        sum.v[v] += q;
        four[i / 4].v[v] |= (q & 0xff) << (i % 4 * 8);
      }
    }
    BVE_EACH(v) {
      uint32_t* dst = data + r / 4 * BVE_PANEL + v * (kPiece / 4) * V::W;
      if (kPiece == 4) {
        memcpy(dst, &four[0].v[v], sizeof four[0].v[v]);
      } else {
        typename V::I pair[2];
        V::zip(four[0].v[v], four[kPiece / 4 - 1].v[v], pair);
        memcpy(dst, pair, sizeof pair);
      }
    }
  }
  memcpy(head->sum, sum.v, sizeof sum.v);
}

template <typename V, typename T>
BVE_INLINE void values_floats(const bve_pack_rhs* a) {
  each_block<V>(a->d, [&](auto at, int) {
    char* panel = panel_at(a, a->n, at.j / BVE_PANEL);
    memset(panel, 0, BVE_PANEL * sizeof(float));
    T* data = reinterpret_cast<T*>(panel + BVE_PANEL * sizeof(float));
    for (size_t r = 0; r < a->n; r++) {
      put_block<V>(at.load(row_at(a->src, r, a->src_stride_bytes)), data + r * BVE_PANEL);
    }
  });
}

template <typename V>
BVE_INLINE void values(const bve_pack_rhs* a) {
  if (a->packing == bve_f32p) return values_floats<V, float>(a);
  if (a->packing == bve_f16p) return values_floats<V, uint16_t>(a);
  const auto all = [&](auto piece) {
    each_block<V>(a->d, [&](auto at, int) {
      values_panel<V>(piece, a, at, panel_at(a, a->n, at.j / BVE_PANEL));
    });
  };
  if (a->packing == bve_qc8p4) {
    all(Piece<4>());
  } else {
    all(Piece<8>());
  }
}

// ---- the router ---------------------------------------------------------------------------------

// The bits of what is not below 0 rise with it. Those of what is not a number too, so that exactly
// k tokens are selected of any.
BVE_INLINE int32_t order(float score) {
  int32_t bits;
  memcpy(&bits, &score, sizeof bits);
  return bits & 0x7fffffff;
}

BVE_INLINE size_t count_above(const float* scores, size_t n, int32_t bits) {
  int32_t count = 0;
  for (size_t i = 0; i < n; i++) count += order(scores[i]) > bits;
  return static_cast<size_t>(count);
}

// The offset's and the bias's shares are alike for all tokens, which softmax does not see.
template <typename V>
BVE_INLINE void route(const bve_route* a) {
  float* scores = a->scratch;
  for (size_t i = 0; i < a->n; i++) {
    const float* src = row_at(a->src, i, a->src_stride_bytes);
    const float mean = mean_of<V>(src, a->c);
    Pair<V> squares(0), dot(0);
    each_block<V>(a->c, [&](auto at, int lane) {
      const Block<V> x = at.load(src, mean), gain = at.load(a->gain), weight = at.load(a->weight);
      BVE_EACH(v) {
        const typename V::F d = x.v[v] - V::set(mean);
        squares.lane[lane].v[v] += d * d;
        dot.lane[lane].v[v] += d * (gain.v[v] * weight.v[v]);
      }
    });
    scores[i] = dot.sum() / sqrtf(squares.sum() / a->c + a->epsilon);
  }
  normalise<V>(scores, a->n);

  // The least score that makes k - 1 of the others, bit by bit.
  int32_t least = 0;
  for (int32_t bit = 1 << 30; bit; bit >>= 1)
    if (count_above(scores + 1, a->n - 1, (least | bit) - 1) >= a->k - 1) least |= bit;
  size_t ties = a->k - 1 - count_above(scores + 1, a->n - 1, least);

  size_t selected = 0, skipped = 0;
  for (size_t i = 0; i < a->n; i++) {
    const bool tie = i && order(scores[i]) == least && ties;
    ties -= tie;
    if (i == 0 || tie || order(scores[i]) > least) {
      const float s = a->n * scores[i];
      a->gate[selected] = 2 * s / (1 + s);
      a->selected[selected++] = static_cast<int32_t>(i);
    } else {
      a->skipped[skipped++] = static_cast<int32_t>(i);
    }
  }
}

}  // namespace
