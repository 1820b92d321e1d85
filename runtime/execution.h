// Ops, carried out: the arithmetic of a program between its kernels.
#pragma once

#include <cstddef>
#include <vector>

#include "operands.h"

namespace bve {

// Who takes part in an op: thread `index` of `count`, each doing its share.
struct Team {
  size_t index, count;
};

// What all ops of a run share.
struct Frame {
  const Program& program;
  const Weights& weights;
  Records<Buffer> shapes;
  std::vector<std::byte*> buffers;  // by number

  float* floats(uint32_t buffer) const { return reinterpret_cast<float*>(buffers[buffer]); }
  int32_t* list(uint32_t buffer) const {
    return buffer == kNone ? nullptr : reinterpret_cast<int32_t*>(buffers[buffer]);
  }
  size_t columns(uint32_t buffer) const { return shapes[buffer].columns; }
};

// One thread's share of an op. scratch: measure_scratch's bytes.
void execute(const Frame& frame, const Op& op, const Kernels& kernels, Team team,
             std::byte* scratch);

// Bytes that one thread of a team of `threads` needs for an op.
size_t measure_scratch(const Frame& frame, const Op& op, const Kernels& kernels, size_t threads);

const char* name_kind(OpKind kind);

}  // namespace bve
