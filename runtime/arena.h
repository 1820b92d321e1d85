// Where an entry's buffers lie in memory: those that are never alive together share it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "program.h"

namespace bve {

struct Arena {
  std::vector<size_t> offsets;  // bytes, of each buffer; of ports', which are the caller's, unused
  size_t bytes;
};

// A buffer is alive from the first stage that names it to the last: inside a stage the lanes run
// side by side, so there nothing is reused. Stage by stage, best fit, longest lives first: n log n.
Arena plan_arena(const Program& program, const Entry& entry);

// By number: whether it is a port's, which lies where the caller has it.
std::vector<bool> list_port_buffers(const Program& program, const Entry& entry);

}  // namespace bve
