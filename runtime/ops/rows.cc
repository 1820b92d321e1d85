#include "ops/ops.h"

namespace bve {

void RowsOp::check(OpValidator& validator, const Args& args) {
  validator.need_shape(args.dst, 1, validator.weight(args.rows).columns);
  const Records<uint32_t> rows = validator.rows(args.rows);
  uint32_t bound = 0;
  for (const uint32_t row : rows) {
    validator.need(row < kMaxDim, args.rows, "numbers below %u, and one is %u", kMaxDim, row);
    bound = std::max(bound, row + 1);
  }
  std::vector<bool> seen(bound);
  bool is_distinct = true;
  for (const uint32_t row : rows) {
    is_distinct = is_distinct && !seen[row];
    seen[row] = true;
  }
  validator.set_bound(args.dst, bound, is_distinct);
}

Cut RowsOp::cut(const Frame&, const Args&, Phase) { return {1, 0, 1}; }

void RowsOp::touch(const Frame&, const Args&, Phase, Accesses&) {}

Space RowsOp::measure(const Frame&, const Args&, const Kernels&) { return {}; }

void RowsOp::execute(const Frame& frame, const Args& args, const Work&) {
  std::memcpy(frame.list(args.dst), frame.program.weight_data(args.rows),
              frame.columns(args.dst) * sizeof(int32_t));
}

Cost RowsOp::measure_cost(const Frame& frame, const Args& args) {
  return {0, 2 * bytes_of(frame, args.dst)};
}

}  // namespace bve
