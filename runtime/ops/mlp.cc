// The hidden rows are never stored whole.
#include "ops/ops.h"

namespace bve {
namespace {

// Chosen on a Zen 4 with 1 MB of second-level cache, where blvit_s took within 3 % of the same time
// with 24 to 108; on CPUs with smaller caches nothing was tried.
constexpr size_t kRowsAtOnce = 48;  // with their hidden rows

struct MlpScratch {
  size_t most, hidden_columns;  // most: rows at once
  Left in, hidden;
  float* values;  // [most, hidden_columns]: what fc1 gives

  MlpScratch(const Frame& frame, const MlpArgs& a, const Kernels& kernels, Bump& bump)
      : MlpScratch(choose_most(a.rows, kRowsAtOnce, frame.tile_rows),
                   frame.program.weights()[a.fc1], gemm_for(frame, kernels, a.fc1),
                   gemm_for(frame, kernels, a.fc2), bump) {}

 private:
  MlpScratch(size_t most, const Weight& fc1, const bve_gemm_row& first, const bve_gemm_row& second,
             Bump& bump)
      : most(most),
        hidden_columns(fc1.rows),
        in(first, most, fc1.columns, bump),
        hidden(second, most, fc1.rows, bump),
        values(bump.take<float>(most * hidden_columns)) {}
};

}  // namespace

void MlpOp::check(OpValidator& validator, const Args& args) {
  const Weight &fc1 = validator.weight(args.fc1), &fc2 = validator.weight(args.fc2);
  const uint32_t width = validator.buffer(args.data).columns;
  validator.need_distinct_rows(args.rows, args.list, args.data);
  validator.need_vector(args.gain, width);
  validator.need_vector(args.offset, width);
  validator.need(fc1.columns == width, args.fc1, "a weight with %u columns, and it has %u", width,
                 fc1.columns);
  validator.need(fc2.columns == fc1.rows, args.fc2,
                 "a weight with %u columns, as fc1 has rows; it has %u", fc1.rows, fc2.columns);
  validator.need(fc2.rows == width, args.fc2, "a weight with %u rows, and it has %u", width,
                 fc2.rows);
  validator.need_gate(args.gate, args.rows);
}

Cut MlpOp::cut(const Frame& frame, const Args& a, Phase) {
  const Weight& fc1 = frame.program.weights()[a.fc1];
  return cut_rows(frame, a.rows, size_t{2} * fc1.rows * fc1.columns);
}

void MlpOp::touch(const Frame& frame, const Args& a, Phase, Accesses& accesses) {
  accesses.touch_rows(a.data, true, a.list, 0, a.rows, {0, frame.columns(a.data)});
}

Space MlpOp::measure(const Frame& frame, const Args& a, const Kernels& kernels) {
  Bump bump(nullptr);
  MlpScratch(frame, a, kernels, bump);
  return {bump.used(), 0};
}

void MlpOp::execute(const Frame& frame, const Args& a, const Work& work) {
  const Kernels& kernels = work.kernels;
  Bump bump(work.scratch);
  const Range rows = rows_of(work.tiles, frame.tile_rows, a.rows);
  const MlpScratch scratch(frame, a, kernels, bump);
  const void* fc1 = frame.weights.data(a.fc1, kernels.int8);
  const void* fc2 = frame.weights.data(a.fc2, kernels.int8);
  const Norm norm{frame.weights.floats(a.gain), frame.weights.floats(a.offset), a.epsilon};
  const int32_t* list = frame.list(a.list);
  const size_t columns = frame.columns(a.data);
  float* data = frame.floats(a.data);
  each_block(rows, scratch.most, frame.tile_rows, [&](Range block) {
    const size_t i = block.begin;
    pack(kernels, scratch.in, block, data, columns, list, bve_layernorm, norm);
    multiply(scratch.in, block.size(), fc1, scratch.hidden_columns, scratch.values,
             scratch.hidden_columns);
    pack(kernels, scratch.hidden, {0, block.size()}, scratch.values, scratch.hidden_columns,
         nullptr, bve_gelu);
    multiply(scratch.hidden, block.size(), fc2, columns, list ? data : data + i * columns, columns,
             list ? list + i : nullptr, a.gate == kNone ? nullptr : frame.floats(a.gate) + i, true);
  });
}

Cost MlpOp::measure_cost(const Frame& frame, const Args& a) {
  const Weight &fc1 = frame.program.weights()[a.fc1], &fc2 = frame.program.weights()[a.fc2];
  return {uint64_t{2} * a.rows * fc1.rows * fc1.columns,
          fc1.bytes + fc2.bytes + 2 * count_bytes(a.rows, fc1.columns), type_of(fc1.type)};
}

}  // namespace bve
