// What a .bve's metadata says to who has pictures: how they become the model's input, and what its
// classes are called.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "resampling.h"

namespace bve {

enum class Crop { kLargestSquare, kCenter, kSquash, kBorder };

// As bigvit_edge/preprocessing.py says it of its fields of these names.
struct Preprocessing {
  uint32_t size = 0;
  std::array<double, 3> mean{}, std{};  // in the order of the model's channels
  bool is_bgr = false;
  Crop crop = Crop::kLargestSquare;
  Filter resize = Filter::kBilinear;
  double scale = 1.0 / 255;
  uint32_t resize_to = 0;  // 0: size
  bool rounds_down = false;
  bool takes_pixels = false;  // dtype "uint8": the file itself does color, scale, mean and std
  bool is_nhwc = false;       // layout; of pixels alone
};

struct Metadata {
  std::optional<Preprocessing> preprocessing;
  std::string fault;                // why there is no preprocessing, as an Error's text
  std::vector<std::string> labels;  // none: the file has none that can be read
};

// Of a program's metadata, a JSON object of strings. Throws nothing but for want of memory: a
// program runs without.
Metadata read_metadata(std::string_view text);

}  // namespace bve
