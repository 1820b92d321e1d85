// Products as ops make them: rows packed block by block, and a kernel over each block.
#pragma once

#include <algorithm>
#include <cstddef>

#include "execution.h"

namespace bve {

inline size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
inline size_t round_up(size_t a, size_t b) { return divide_up(a, b) * b; }

// What a copy of a float takes as long as, in multiply-accumulates.
inline constexpr uint64_t kWorkOfFloat = 32;

// Which rows tiles of that many rows are, of an op's `rows`.
inline Range rows_of(Range tiles, size_t tile_rows, size_t rows) {
  return {tiles.begin * tile_rows, std::min(rows, tiles.end * tile_rows)};
}

// The most rows of a block of `rows`, of at most about `most`, as each_block makes them.
inline size_t choose_most(size_t rows, size_t most, size_t unit) {
  return round_up(std::min(rows, std::max(most / unit * unit, unit)), unit);
}

// body(block) for equal blocks of rows, multiples of unit but for the last, of at most `most`.
template <typename Body>
void each_block(Range rows, size_t most, size_t unit, Body body) {
  if (rows.size() == 0) return;
  const size_t size = round_up(divide_up(rows.size(), divide_up(rows.size(), most)), unit);
  for (size_t i = rows.begin; i < rows.end; i += size) body({i, std::min(i + size, rows.end)});
}

// The left side of a product, being packed and used block by block.
struct Left {
  const bve_gemm_row& gemm;
  size_t k, stride_bytes;
  std::byte* data;
  bve_row* rows;
  float* scratch;

  Left(const bve_gemm_row& gemm, size_t m, size_t k, Bump& bump)
      : gemm(gemm),
        k(k),
        stride_bytes(bve_lhs_stride_bytes(gemm.lhs, k)),
        data(bump.take<std::byte>(divide_up(m, gemm.lhs.mr) * stride_bytes)),
        rows(bump.take<bve_row>(m)),
        scratch(bump.take<float>(round_up(k, 16))) {}
};

struct Norm {
  const float *gain, *offset;
};

// Rows `range` of src, or of those it lists, into a left side.
inline void pack(const Kernels& kernels, const Left& left, Range range, const float* src,
                 size_t src_columns, const int32_t* src_rows, bve_before before, Norm norm = {}) {
  bve_pack args{};
  args.m = range.size();
  args.k = left.k;
  args.src = src_rows ? src : src + range.begin * src_columns;
  args.src_stride_bytes = src_columns * sizeof(float);
  args.src_rows = src_rows ? src_rows + range.begin : nullptr;
  args.before = before;
  args.gain = norm.gain;
  args.offset = norm.offset;
  args.epsilon = kLayerNormEpsilon;
  args.scratch = left.scratch;
  args.dst = left.data;
  args.lhs = left.gemm.lhs;
  args.rows = left.rows;
  kernels.packs[left.gemm.lhs.type]->run(&args);
}

// dst (+)= left * right, m rows.
inline void multiply(const Left& left, size_t m, const void* rhs, size_t n, float* dst,
                     size_t dst_columns, const int32_t* dst_rows = nullptr,
                     const float* gate = nullptr, bool accumulate = false) {
  bve_gemm args{};
  args.m = m;
  args.n = n;
  args.k = left.k;
  args.lhs = left.data;
  args.lhs_stride_bytes = left.stride_bytes;
  args.rows = left.rows;
  args.rhs = rhs;
  args.rhs_stride_bytes = bve_rhs_stride_bytes(left.gemm.packing, left.k);
  args.dst = dst;
  args.dst_stride_bytes = dst_columns * sizeof(float);
  args.dst_rows = dst_rows;
  args.gate = gate;
  args.accumulate = accumulate;
  left.gemm.run(&args);
}

}  // namespace bve
