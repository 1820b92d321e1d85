// How a camera's frame lies in memory, and whether it can be read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "bve.h"

namespace bve {

struct FrameFormat {
  uint32_t format;
  const char* name;
  size_t planes;
  uint32_t bytes;  // of a pixel; 0: YUV
  uint32_t red;    // where in a pixel; blue is at 2 - red
};

// Throws Error unless all of it says what it must.
const FrameFormat& check_frame(const bve_frame& frame);

}  // namespace bve
