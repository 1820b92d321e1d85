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

// Of so many floats or integers.
inline uint64_t count_bytes(uint64_t rows, uint64_t columns) {
  return rows * columns * sizeof(float);
}

// Of a buffer; of none 0.
inline uint64_t bytes_of(const Frame& frame, uint32_t buffer) {
  return buffer == kNone ? 0 : count_bytes(frame.shapes[buffer].rows, frame.columns(buffer));
}

// What a product by a weight is computed in.
bve_type type_of(WeightType type);

}  // namespace bve
