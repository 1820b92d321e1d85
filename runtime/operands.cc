#include "operands.h"

#include <cstdlib>
#include <cstring>

namespace bve {

void Free::operator()(void* memory) const { std::free(memory); }

Memory allocate(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  void* data;  // by POSIX, because Android has C11's aligned_alloc only from version 9 on
  if (posix_memalign(&data, 64, bytes == 0 ? 64 : bytes) != 0)
    fail("no memory for %zu bytes; expected that much to be free; close other programs", bytes);
  Memory memory(static_cast<std::byte*>(data));
  std::memset(memory.get(), 0, bytes);
  return memory;
}

Kernels::Kernels(uint32_t isa, bve_core core)
    : keys(bve_select_keys(isa)),
      values(bve_select_values(isa)),
      route(bve_select_route(isa)),
      int8(bve_prefer_packing(isa)) {
  for (int packing = 0; packing < 4; packing++) {
    gemms[packing] = bve_select_gemm(static_cast<bve_packing>(packing), isa, core);
  }
  for (int type = 0; type < 3; type++) {
    packs[type] = bve_select_pack(static_cast<bve_type>(type), isa);
    softmaxes[type] = bve_select_softmax(static_cast<bve_type>(type), isa);
  }
}

const bve_gemm_row& Kernels::gemm(bve_type type) const {
  return *gemms[type == bve_qd8 ? int8 : type == bve_f16 ? bve_f16p : bve_f32p];
}

bve_packing packing_of(const Weight& weight, bve_packing int8) {
  switch (weight.type) {
    case WeightType::kF32:
      return bve_f32p;
    case WeightType::kF16:
      return bve_f16p;
    default:
      return int8;
  }
}

void Weights::prepare(bve_packing int8) {
  const WeightType other = int8 == bve_qc8p4 ? WeightType::kQc8x8 : WeightType::kQc8x4;
  const bve_packing from = int8 == bve_qc8p4 ? bve_qc8p8 : bve_qc8p4;
  std::lock_guard lock(mutex_);
  for (uint32_t i = 0; i < program_.weights().count; i++) {
    const Weight& weight = program_.weights()[i];
    if (weight.type != other || repacked_[i]) continue;
    const size_t panels = (weight.rows + BVE_PANEL - 1) / BVE_PANEL;
    const size_t bytes = panels * bve_rhs_stride_bytes(int8, weight.columns);
    Memory memory = allocate(bytes);
    bve_repack_qc8(from, int8, weight.rows, weight.columns, program_.weight_data(i), memory.get());
    repacked_[i] = std::move(memory);
    repacked_bytes_ += bytes;
  }
}

const void* Weights::data(uint32_t weight, bve_packing int8) const {
  const WeightType wanted = int8 == bve_qc8p4 ? WeightType::kQc8x4 : WeightType::kQc8x8;
  const bool as_is = program_.weights()[weight].type == wanted || !repacked_[weight];
  return as_is ? program_.weight_data(weight) : repacked_[weight].get();
}

}  // namespace bve
