// Where a picture's pixels go on a model's canvas, size x size, and which number a level is there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "metadata.h"
#include "resampling.h"

namespace bve {

// A side of the picture, and where its pixels go on a side of the canvas.
struct Way {
  uint32_t origin;  // of what is taken of the picture
  Side side;
  uint32_t place;  // on the canvas, of the first
};

struct Ways {
  Way across, down;
};

// Of an upright picture.
Ways find_ways(uint32_t width, uint32_t height, const Preprocessing& how);

// Throws Error on a size that none can have. what: "a picture".
void check_size(const char* what, uint32_t width, uint32_t height);
// The same of bytes from a row to the next, such as a number below 0 becomes.
void check_stride(size_t stride, uint32_t height);

// How the model is prepared for; throws Error where the metadata does not say.
const Preprocessing& need_preprocessing(const Metadata& metadata);

// Of red, green and blue in turn: the level of what no pixel covers, and the model's number of each
// of 256 levels, in float as numpy computes it.
std::array<uint8_t, 3> find_fill(const Preprocessing& how);
using Levels = std::array<float, 256>;
std::array<Levels, 3> tabulate(const Preprocessing& how);

}  // namespace bve
