#include "cost.h"

namespace bve {
namespace {

bve_type type_of(WeightType type) {
  switch (type) {
    case WeightType::kF16:
      return bve_f16;
    case WeightType::kQc8x4:
    case WeightType::kQc8x8:
      return bve_qd8;
    default:
      return bve_f32;
  }
}

uint64_t floats(uint64_t rows, uint64_t columns) { return rows * columns * sizeof(float); }

uint64_t bytes_of(const Frame& frame, uint32_t buffer) {
  return buffer == kNone ? 0 : floats(frame.shapes[buffer].rows, frame.columns(buffer));
}

Cost measure(const Frame& frame, const LinearArgs& a) {
  const Weight& weight = frame.program.weights()[a.linear];
  const uint64_t rows = a.rows;
  return {rows * a.columns * weight.columns,
          weight.bytes * a.columns / weight.rows + floats(rows, weight.columns) +
              floats(rows, a.columns) * (a.accumulate ? 2 : 1),
          type_of(weight.type)};
}

Cost measure(const Frame& frame, const AttentionArgs& a) {
  const uint64_t tokens = frame.shapes[a.qkv].rows, dim = frame.columns(a.qkv) / 3;
  return {2 * a.queries * tokens * dim, floats(2 * a.queries + 2 * tokens, dim),
          static_cast<bve_type>(a.type)};
}

Cost measure(const Frame& frame, const MlpArgs& a) {
  const Weight &fc1 = frame.program.weights()[a.fc1], &fc2 = frame.program.weights()[a.fc2];
  return {uint64_t{2} * a.rows * fc1.rows * fc1.columns,
          fc1.bytes + fc2.bytes + 2 * floats(a.rows, fc1.columns), type_of(fc1.type)};
}

}  // namespace

Cost measure_cost(const Frame& frame, const Op& op) {
  switch (op.kind) {
    case OpKind::kPatches: {
      const auto a = get<PatchesArgs>(op);
      return {0, 2 * bytes_of(frame, a.dst)};
    }
    case OpKind::kList:
      return {0, sizeof(int32_t)};
    case OpKind::kFill:
      return {0, 2 * bytes_of(frame, get<FillArgs>(op).dst)};
    case OpKind::kLinear:
      return measure(frame, get<LinearArgs>(op));
    case OpKind::kAttention:
      return measure(frame, get<AttentionArgs>(op));
    case OpKind::kRoute: {
      const auto a = get<RouteArgs>(op);
      const uint64_t macs = uint64_t{frame.shapes[a.src].rows} * frame.columns(a.src);
      return {macs, bytes_of(frame, a.src) + bytes_of(frame, a.selected) +
                        bytes_of(frame, a.skipped) + bytes_of(frame, a.gate)};
    }
    case OpKind::kMlp:
      return measure(frame, get<MlpArgs>(op));
  }
  return {};
}

}  // namespace bve
