// What an op has to do at least, for those who ask how far its time is from the machine's best.
#pragma once

#include <cstdint>

#include "execution.h"

namespace bve {

struct Cost {
  uint64_t macs = 0;   // multiply-accumulates of products; an entry's are those of its ops together
  uint64_t bytes = 0;  // weights and floats, each read once and each written once
  bve_type type = bve_f32;  // that the products are computed in
};

Cost measure_cost(const Frame& frame, const Op& op);

}  // namespace bve
