#include "frame_axis.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "kernels.h"

namespace bve {
namespace {

constexpr int kMostBits = 22;     // as compute_taps has them
constexpr int kRoundingBits = 7;  // what is added before a sum is shifted is below 2^(bits + 7)

uint32_t round_up(uint32_t value, uint32_t unit) { return (value + unit - 1) / unit * unit; }

struct Pixel {
  uint32_t start;
  std::vector<int32_t> weights;
};

// Rounded so that they sum up to 2^bits exactly: what is flat stays as it is.
std::vector<int16_t> round_weights(const std::vector<int32_t>& weights, int bits) {
  double total = 0, sum = 0;
  for (const int32_t weight : weights) total += weight;
  std::vector<int16_t> rounded;
  long long before = 0;
  for (const int32_t weight : weights) {
    sum += weight;
    const long long after = std::llround(std::ldexp(sum / total, bits));
    rounded.push_back(static_cast<int16_t>(
        std::clamp<long long>(after - before, -BVE_MOST_WEIGHT, BVE_MOST_WEIGHT)));
    before = after;
  }
  return rounded;
}

bool fits(const std::vector<int16_t>& weights, int bits, int64_t largest) {
  int64_t sum = 0, magnitude = 0;
  for (const int16_t weight : weights) {
    sum += weight;
    magnitude += std::abs(weight);
  }
  return sum == int64_t{1} << bits &&
         magnitude * largest + (int64_t{1} << (bits + kRoundingBits)) <= INT32_MAX;
}

}  // namespace

FrameAxis plan_axis(Filter filter, const Way& way, uint32_t length, bool is_flipped, uint32_t align,
                    uint32_t unit, int32_t largest) {
  const Taps taps = compute_taps(filter, way.side);
  std::vector<Pixel> pixels(taps.starts.size());
  for (size_t i = 0; i < pixels.size(); ++i) {
    const int32_t* const weights = taps.weights.data() + i * taps.most;
    Pixel& pixel = pixels[is_flipped ? pixels.size() - 1 - i : i];
    pixel.start = way.origin + taps.starts[i];
    pixel.weights.assign(weights, weights + taps.sizes[i]);
    if (!is_flipped) continue;
    pixel.start = length - pixel.start - taps.sizes[i];
    std::reverse(pixel.weights.begin(), pixel.weights.end());
  }

  FrameAxis axis;
  axis.first = pixels.front().start / 2 * 2;
  axis.place = way.place;
  axis.is_flipped = is_flipped;
  for (Pixel& pixel : pixels) {
    const uint32_t start = pixel.start - axis.first, before = start % align;
    axis.count = std::max(axis.count, start + static_cast<uint32_t>(pixel.weights.size()));
    pixel.weights.insert(pixel.weights.begin(), before, 0);
    axis.starts.push_back(start - before);
    axis.sizes.push_back(round_up(static_cast<uint32_t>(pixel.weights.size()), align));
    axis.depth = std::max(axis.depth, round_up(axis.sizes.back(), unit));
  }
  axis.bits = kMostBits;
  for (const Pixel& pixel : pixels) {
    while (!fits(round_weights(pixel.weights, axis.bits), axis.bits, largest)) --axis.bits;
  }
  axis.weights.resize(pixels.size() * axis.depth);
  for (size_t i = 0; i < pixels.size(); ++i) {
    const std::vector<int16_t> rounded = round_weights(pixels[i].weights, axis.bits);
    std::copy(rounded.begin(), rounded.end(), axis.weights.begin() + i * axis.depth);
  }
  return axis;
}

}  // namespace bve
