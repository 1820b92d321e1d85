// Where an entry's buffers lie in memory: those that are never alive together share it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "program.h"

namespace bve {

struct Arena {
  std::vector<size_t> offsets;  // bytes, of each buffer; of the image and the logits, unused
  size_t bytes;
};

// A buffer is alive from the first stage that names it to the last: inside a stage the lanes run
// side by side, so there nothing is reused. Stage by stage, best fit, longest lives first: n log n.
Arena plan_arena(const Program& program, const Entry& entry);

// The buffers that an op reads or writes, up to six.
struct Operands {
  uint32_t buffers[6];
  size_t count = 0;
  void add(uint32_t buffer) {
    if (buffer != kNone) buffers[count++] = buffer;
  }
};
Operands list_operands(const Op& op);

}  // namespace bve
