#include <algorithm>

#include "ops/ops.h"

namespace bve {
namespace {

constexpr size_t kLeftBytes = 256 * 1024;  // of the packed left side
constexpr size_t kLeastMacs = 1 << 19;     // of a tile of columns

size_t depth_of(const Frame& frame, const LinearArgs& a) {
  return frame.program.weights()[a.linear].columns;
}

// Of few rows, tiles are of columns of all of them, and who takes some packs the rows for itself.
bool is_cut_by_columns(const Frame& frame, const LinearArgs& a) {
  return a.rows <= frame.tile_rows;
}

size_t choose_tile_columns(const Frame& frame, const LinearArgs& a) {
  return round_up(divide_up(kLeastMacs, a.rows * depth_of(frame, a)), BVE_PANEL);
}

struct LinearScratch {
  size_t most;  // rows at once
  Left left;

  LinearScratch(const Frame& frame, const LinearArgs& a, const Kernels& kernels, Bump& bump)
      : LinearScratch(a.rows, depth_of(frame, a), gemm_for(frame, kernels, a.linear), bump) {}

 private:
  LinearScratch(size_t rows, size_t k, const bve_gemm_row& gemm, Bump& bump)
      : most(choose_most(rows, kLeftBytes * gemm.lhs.mr / bve_lhs_stride_bytes(gemm.lhs, k),
                         gemm.tile_rows)),
        left(gemm, most, k, bump) {}
};

}  // namespace

void LinearOp::check(OpValidator& validator, const Args& args) {
  const Weight& linear = validator.weight(args.linear);
  const Buffer &src = validator.buffer(args.src), &dst = validator.buffer(args.dst);
  validator.need(src.columns == linear.columns, args.linear,
                 "a weight with %u columns, as its src has, and it has %u", src.columns,
                 linear.columns);
  validator.need_rows(args.rows, args.src_rows, args.src);
  validator.need(args.before <= bve_gelu, args.before, "0, 1 or 2");
  for (const uint32_t* vector : {&args.gain, &args.offset}) {
    validator.need((args.before == bve_layernorm) == (*vector != kNone), *vector,
                   "a vector where before is 1, layernorm, and none elsewhere");
    if (*vector != kNone) validator.need_vector(*vector, linear.columns);
  }
  validator.need(args.first_column % BVE_PANEL == 0, args.first_column, "a multiple of %d",
                 BVE_PANEL);
  validator.need(args.first_column + args.columns <= linear.rows, args.columns,
                 "with first_column at most %u, its linear's outputs", linear.rows);
  validator.need(args.dst_rows == kNone || args.dst_first_row == 0, args.dst_first_row,
                 "0 where there are dst_rows");
  validator.need_distinct_rows(args.rows, args.dst_rows, args.dst, args.dst_first_row);
  validator.need(args.dst_first_column + args.columns <= dst.columns, args.dst_first_column,
                 "with columns at most %u, its dst's columns", dst.columns);
  validator.need_gate(args.gate, args.rows);
}

Cut LinearOp::cut(const Frame& frame, const Args& a, Phase) {
  if (!is_cut_by_columns(frame, a))
    return cut_rows(frame, a.rows, size_t{a.columns} * depth_of(frame, a));
  const size_t columns = choose_tile_columns(frame, a);
  return {divide_up(a.columns, columns), 0,
          a.rows * std::min<size_t>(a.columns, columns) * depth_of(frame, a)};
}

void LinearOp::touch(const Frame& frame, const Args& a, Phase, Accesses& accesses) {
  accesses.touch_rows(a.src, false, a.src_rows, 0, a.rows, {0, frame.columns(a.src)});
  accesses.touch_rows(a.dst, true, a.dst_rows, a.dst_first_row, a.rows,
                      {a.dst_first_column, size_t{a.dst_first_column} + a.columns});
}

Space LinearOp::measure(const Frame& frame, const Args& a, const Kernels& kernels) {
  Bump bump(nullptr);
  LinearScratch(frame, a, kernels, bump);
  return {bump.used(), 0};
}

void LinearOp::execute(const Frame& frame, const Args& a, const Work& work) {
  const Kernels& kernels = work.kernels;
  Bump bump(work.scratch);
  const LinearScratch scratch(frame, a, kernels, bump);
  const Left& left = scratch.left;
  const bool by_columns = is_cut_by_columns(frame, a);
  const Range rows = by_columns ? Range{0, a.rows} : rows_of(work.tiles, frame.tile_rows, a.rows);
  const Range columns = by_columns ? rows_of(work.tiles, choose_tile_columns(frame, a), a.columns)
                                   : Range{0, a.columns};

  const auto* rhs = static_cast<const std::byte*>(frame.weights.data(a.linear, kernels.int8)) +
                    (a.first_column + columns.begin) / BVE_PANEL *
                        bve_rhs_stride_bytes(left.gemm.packing, left.k);
  const int32_t *src_rows = frame.list(a.src_rows), *dst_rows = frame.list(a.dst_rows);
  const size_t dst_columns = frame.columns(a.dst);
  float* dst =
      frame.floats(a.dst) + a.dst_first_row * dst_columns + a.dst_first_column + columns.begin;
  const bool norm = a.before == bve_layernorm;
  const Norm with{norm ? frame.weights.floats(a.gain) : nullptr,
                  norm ? frame.weights.floats(a.offset) : nullptr, a.epsilon};
  each_block(rows, scratch.most, left.gemm.tile_rows, [&](Range block) {
    pack(kernels, left, block, frame.floats(a.src), frame.columns(a.src), src_rows,
         static_cast<bve_before>(a.before), with);
    multiply(left, block.size(), rhs, columns.size(),
             dst_rows ? dst : dst + block.begin * dst_columns, dst_columns,
             dst_rows ? dst_rows + block.begin : nullptr,
             a.gate == kNone ? nullptr : frame.floats(a.gate) + block.begin, a.accumulate);
  });
}

Cost LinearOp::measure_cost(const Frame& frame, const Args& a) {
  const Weight& weight = frame.program.weights()[a.linear];
  const uint64_t rows = a.rows;
  return {rows * a.columns * weight.columns,
          weight.bytes * a.columns / weight.rows + count_bytes(rows, weight.columns) +
              count_bytes(rows, a.columns) * (a.accumulate ? 2 : 1),
          type_of(weight.type)};
}

}  // namespace bve
