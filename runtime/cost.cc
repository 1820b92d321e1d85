#include "cost.h"

#include "ops/ops.h"

namespace bve {

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

Cost measure_cost(const Frame& frame, const Op& op) {
  return functions_of(op.kind).measure_cost(frame, op);
}

}  // namespace bve
