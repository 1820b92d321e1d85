#include "execution.h"

#include <numeric>

#include "ops/ops.h"

namespace bve {
namespace {

constexpr size_t kLeastRows = 12;  // of a tile, and queries of a head with their scores

}  // namespace

size_t choose_tile_rows(const Kernels* kernels, size_t count) {
  size_t rows = 1;
  for (size_t i = 0; i < count; i++) {
    for (const bve_packing packing : {bve_f32p, bve_f16p, kernels[i].int8})
      rows = std::lcm(rows, kernels[i].gemms[packing]->tile_rows);
  }
  return round_up(kLeastRows, rows);
}

Cut cut(const Frame& frame, const Op& op, Phase phase) {
  return functions_of(op.kind).cut(frame, op, phase);
}

void execute(const Frame& frame, const Op& op, Phase phase, Range tiles, const Kernels& kernels,
             std::byte* scratch, std::byte* packed) {
  functions_of(op.kind).execute(frame, op, {phase, tiles, kernels, scratch, packed});
}

size_t measure_scratch(const Frame& frame, const Op& op, const Kernels& kernels) {
  return functions_of(op.kind).measure(frame, op, kernels).scratch;
}

size_t measure_packed(const Frame& frame, const Op& op, const Kernels& kernels) {
  return functions_of(op.kind).measure(frame, op, kernels).packed;
}

}  // namespace bve
