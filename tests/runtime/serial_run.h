// An entry run op by op on one thread that plays a whole team, in memory of exactly the size that
// each buffer and each scratch asks for, so that the address sanitizer sees one byte beyond.
#pragma once

#include <limits>
#include <vector>

#include "execution.h"

namespace bve::test {

// Logits; image is [3, size, size]. teams: the threads of either lane. What no op has written is
// NaN, or -1 in a row list.
inline std::vector<float> run_serially(const Program& program, const Entry& entry, uint32_t isa,
                                       const size_t (&teams)[2], const std::vector<float>& image) {
  const Kernels kernels(isa, bve_any_core);
  Weights weights(program);
  weights.prepare(kernels.int8);
  const Records<Buffer> shapes = program.buffers(entry);
  std::vector<std::vector<std::byte>> memory;
  Frame frame{program, weights, shapes, {}};
  for (const Buffer& shape : shapes) {
    memory.emplace_back(size_t{4} * shape.rows * shape.columns, std::byte{0xff});
    frame.buffers.push_back(memory.back().data());
  }
  std::memcpy(memory[0].data(), image.data(), memory[0].size());
  for (const Op& op : program.ops(entry)) {
    const size_t count = teams[op.lane];
    const Memory scratch = allocate(measure_scratch(frame, op, kernels, count));
    for (size_t i = 0; i < count; i++) execute(frame, op, kernels, {i, count}, scratch.get());
  }
  const float* const logits = frame.floats(1);
  return {logits, logits + entry.classes};
}

}  // namespace bve::test
