#include "ops/ops.h"

namespace bve {

void FillOp::check(OpValidator& validator, const Args& args) {
  const Weight& matrix = validator.weight(args.matrix);
  validator.need_shape(args.dst, matrix.rows, matrix.columns);
}

Cut FillOp::cut(const Frame& frame, const Args& args, Phase) {
  return cut_rows(frame, frame.shapes[args.dst].rows, frame.columns(args.dst) * kWorkOfFloat);
}

void FillOp::touch(const Frame& frame, const Args& args, Phase, Accesses& accesses) {
  accesses.touch_rows(args.dst, true, kNone, 0, frame.shapes[args.dst].rows,
                      {0, frame.columns(args.dst)});
}

Space FillOp::measure(const Frame&, const Args&, const Kernels&) { return {}; }

void FillOp::execute(const Frame& frame, const Args& args, const Work& work) {
  const size_t columns = frame.columns(args.dst);
  const Range rows = rows_of(work.tiles, frame.tile_rows, frame.shapes[args.dst].rows);
  std::memcpy(frame.floats(args.dst) + rows.begin * columns,
              frame.weights.floats(args.matrix) + rows.begin * columns,
              rows.size() * columns * sizeof(float));
}

Cost FillOp::measure_cost(const Frame& frame, const Args& args) {
  return {0, 2 * bytes_of(frame, args.dst)};
}

}  // namespace bve
