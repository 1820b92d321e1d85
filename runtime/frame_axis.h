// A side of a frame, and which of its pixels make each of the canvas's: taps in 16 bits, as the
// kernels of frames take them.
#pragma once

#include <cstdint>
#include <vector>

#include "canvas.h"

namespace bve {

struct FrameAxis {
  uint32_t first = 0, count = 0;  // pixels that are read: from an even one on
  uint32_t depth = 0;             // room for the taps of a canvas's pixel
  std::vector<uint32_t> starts;   // by the canvas's pixels, counted from first; they never fall
  std::vector<uint32_t> sizes;    // at most depth
  std::vector<int16_t> weights;   // [pixels][depth]; behind sizes they are 0
  int bits = 0;                   // of a weight behind the point: each pixel's sum up to 1
  bool is_signed = false;         // there are weights below 0
  uint32_t place = 0;             // on the canvas
  bool is_flipped = false;        // the canvas's pixels go from place's far end back to it

  size_t pixels() const { return starts.size(); }
  uint32_t place_of(size_t pixel) const {
    return place + static_cast<uint32_t>(is_flipped ? pixels() - 1 - pixel : pixel);
  }
};

// way: of the upright picture, whose side has `length` pixels and lies in the frame the other way
// round where is_flipped. Starts are multiples of `align`, sizes too, and depth one of `unit`.
// largest: of what is multiplied, so that no sum leaves 32 bits.
FrameAxis plan_axis(Filter filter, const Way& way, uint32_t length, bool is_flipped, uint32_t align,
                    uint32_t unit, int32_t largest);

}  // namespace bve
