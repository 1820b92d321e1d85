#include "ops/ops.h"

namespace bve {

void ListOp::check(OpValidator& validator, const Args& args) {
  validator.need_shape(args.dst, 1, 1);
  validator.need(args.value < kMaxDim, args.value, "less than %u", kMaxDim);
  validator.set_bound(args.dst, args.value + 1);
}

Cut ListOp::cut(const Frame&, const Args&, Phase) { return {1, 0, 1}; }

void ListOp::touch(const Frame&, const Args&, Phase, Accesses&) {}

Space ListOp::measure(const Frame&, const Args&, const Kernels&) { return {}; }

void ListOp::execute(const Frame& frame, const Args& args, const Work&) {
  *frame.list(args.dst) = static_cast<int32_t>(args.value);
}

Cost ListOp::measure_cost(const Frame&, const Args&) { return {0, sizeof(int32_t)}; }

}  // namespace bve
