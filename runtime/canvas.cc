#include "canvas.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace bve {
namespace {

constexpr uint32_t kMostSide = 1 << 24;  // what Pillow's box, of floats, tells apart
constexpr uint64_t kMostPixels = 100'000'000;
constexpr double kMostResized = 1 << 26;  // pixels of a picture after the resize, before the crop

struct Size {
  uint64_t width, height;
};

uint64_t round_even(double value) { return static_cast<uint64_t>(std::nearbyint(value)); }

// Of the whole picture after the resize.
Size measure(Size size, const Preprocessing& how) {
  const uint32_t target = how.resize_to ? how.resize_to : how.size;
  const auto longer = static_cast<double>(std::max(size.width, size.height));
  if (how.crop == Crop::kCenter) {
    const auto shorter = static_cast<double>(std::min(size.width, size.height));
    const auto other = static_cast<uint64_t>(target * longer / shorter);
    return size.width <= size.height ? Size{target, other} : Size{other, target};
  }
  if (how.crop != Crop::kBorder) return {target, target};
  const double ratio = longer / target;
  return {std::max<uint64_t>(1, round_even(size.width / ratio)),
          std::max<uint64_t>(1, round_even(size.height / ratio))};
}

// The middle of a resized side of `resized` pixels, as many as the canvas has; of fewer, all, in
// its middle.
Way find_middle(uint64_t origin, uint64_t source, uint64_t resized, const Preprocessing& how) {
  Way way{static_cast<uint32_t>(origin), {}, 0};
  way.side = {static_cast<uint32_t>(source), 0, static_cast<float>(source)};
  way.side.whole = static_cast<uint32_t>(resized);
  way.side.count = std::min(way.side.whole, how.size);
  if (resized <= how.size) {
    way.place = (how.size - way.side.whole) / 2;
  } else {
    const uint32_t extra = way.side.whole - how.size;
    way.side.first = static_cast<uint32_t>(how.rounds_down ? extra / 2 : round_even(extra / 2.0));
  }
  return way;
}

Way find_middle_square(uint32_t length, uint32_t square, const Preprocessing& how) {
  const uint32_t begin = (length - square) / 2;
  Way way{};
  way.side = {length, static_cast<float>(begin), static_cast<float>(begin + square)};
  way.side.whole = way.side.count = how.size;
  return way;
}

Levels tabulate(double scale, double mean, double std) {
  Levels levels;
  const auto white = static_cast<float>(1 / scale);  // a division, as torchvision makes 255ths
  for (size_t i = 0; i < levels.size(); ++i) {
    levels[i] =
        (static_cast<float>(i) / white - static_cast<float>(mean)) / static_cast<float>(std);
  }
  return levels;
}

// The model's channel of red, green or blue.
size_t find_channel(const Preprocessing& how, size_t c) { return how.is_bgr ? 2 - c : c; }

}  // namespace

Ways find_ways(uint32_t width, uint32_t height, const Preprocessing& how) {
  if (how.crop == Crop::kLargestSquare) {
    const uint32_t square = std::min(width, height);
    return {find_middle_square(width, square, how), find_middle_square(height, square, how)};
  }
  Size size{width, height}, cut{0, 0}, resized = measure(size, how);
  const double pixels = static_cast<double>(resized.width) * static_cast<double>(resized.height);
  if (pixels > kMostResized) {  // the ends of a picture so thin are cut off first
    const uint64_t longer = std::max(size.width, size.height);
    const double spare = static_cast<double>(longer) * (1 - kMostResized / pixels);
    const auto ends = static_cast<uint64_t>(spare / 2);
    cut = {size.width == longer ? ends : 0, size.height == longer ? ends : 0};
    size = {size.width - 2 * cut.width, size.height - 2 * cut.height};
    resized = measure(size, how);
  }
  return {find_middle(cut.width, size.width, resized.width, how),
          find_middle(cut.height, size.height, resized.height, how)};
}

void check_size(const char* what, uint32_t width, uint32_t height) {
  if (width < 1 || height < 1) {
    fail("%s of %u x %u pixels, expected 1 or more each; give its size", what, width, height);
  }
  if (width > kMostSide || height > kMostSide || uint64_t{width} * height > kMostPixels) {
    fail("%s of %u x %u pixels, expected at most 100 megapixels and %u a side; make it smaller",
         what, width, height, kMostSide);
  }
}

void check_stride(size_t stride, uint32_t height) {
  if (stride > SIZE_MAX / 2 / height) {
    fail(
        "a stride that is negative or too large for %u rows, expected rows one below the other; "
        "copy them so",
        height);
  }
}

const Preprocessing& need_preprocessing(const Metadata& metadata) {
  if (!metadata.preprocessing) throw Error(metadata.fault);
  return *metadata.preprocessing;
}

std::array<uint8_t, 3> find_fill(const Preprocessing& how) {
  std::array<uint8_t, 3> fill{};
  for (size_t c = 0; how.crop == Crop::kBorder && c < 3; ++c) {
    const double level = std::nearbyint(how.mean[find_channel(how, c)] / how.scale);
    fill[c] = static_cast<uint8_t>(std::min(level, 255.0));
  }
  return fill;
}

std::array<Levels, 3> tabulate(const Preprocessing& how) {
  std::array<Levels, 3> levels;
  for (size_t c = 0; c < 3; ++c) {
    const size_t at = find_channel(how, c);
    levels[c] = tabulate(how.scale, how.mean[at], how.std[at]);
  }
  return levels;
}

}  // namespace bve
