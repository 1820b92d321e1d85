#include "ops/ops.h"

namespace bve {
namespace {

template <typename Kind>
constexpr OpFunctions list_functions() {
  using Args = typename Kind::Args;
  return {
      // in place, so that an error can say where an argument lies
      [](OpValidator& validator, const Op& op) {
        Kind::check(validator, *reinterpret_cast<const Args*>(op.args));
      },
      [](const Frame& frame, const Op& op, Phase phase) {
        return Kind::cut(frame, get<Args>(op), phase);
      },
      [](const Frame& frame, const Op& op, Phase phase, Accesses& accesses) {
        Kind::touch(frame, get<Args>(op), phase, accesses);
      },
      [](const Frame& frame, const Op& op, const Kernels& kernels) {
        return Kind::measure(frame, get<Args>(op), kernels);
      },
      [](const Frame& frame, const Op& op, const Work& work) {
        Kind::execute(frame, get<Args>(op), work);
      },
      [](const Frame& frame, const Op& op) { return Kind::measure_cost(frame, get<Args>(op)); },
  };
}

// In the order of OpKind.
constexpr OpFunctions kFunctions[] = {
#define BVE_OP(number, name, ...) list_functions<name##Op>(),
#include "ops.inc"
};

}  // namespace

const OpFunctions& functions_of(OpKind kind) { return kFunctions[static_cast<uint32_t>(kind)]; }

}  // namespace bve
