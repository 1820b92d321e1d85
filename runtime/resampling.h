// Resampling of 8-bit pixels as Pillow 13 does it, bit by bit: along rows and then along columns,
// or first along columns, each in fixed point and rounded to 8 bits. Filters and rounding as in its
// libImaging/Resample.c and, for the nearest pixel, Geometry.c.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace bve {

enum class Filter { kNearest, kBilinear, kBicubic, kLanczos };

// Along one side of a picture: `source` pixels, of which those from `begin` to `end` become `whole`
// ones, and of these `count` from `first` on are wanted.
struct Side {
  uint32_t source = 0;
  float begin = 0, end = 0;
  uint32_t whole = 0, first = 0, count = 0;
};

// Which of the source's pixels make each of a side's wanted ones: pixel i is the sum of
// sizes[i] of them from starts[i] on, times weights[i * most] and so on, of which 2^22 are one.
// Starts and ends never fall.
struct Taps {
  uint32_t most = 1;
  std::vector<uint32_t> starts, sizes;
  std::vector<int32_t> weights;
};
Taps compute_taps(Filter filter, const Side& side);

// Whether Pillow goes along columns first: where these are shortened, and by more than twice what
// rows are. Older than 13, it never does; few pixels differ, most of them by one.
bool goes_down_first(const Side& across, const Side& down);

// Calls take(y, row) for each wanted row in turn. read(y, row) writes the picture's row y, channels
// side by side, from the first pixel of `across` to the last. Never holds more of them than one
// wanted row is made of.
void resample(const Taps& across, const Taps& down, bool down_first, uint32_t channels,
              const std::function<void(uint32_t y, uint8_t* row)>& read,
              const std::function<void(uint32_t y, const uint8_t* row)>& take);

}  // namespace bve
