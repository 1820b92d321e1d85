// What both doors' tests give the tiny program: an image, or pixels.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "bve.h"
#include "program_builder.h"

namespace bve::test {

inline constexpr size_t kPixels = 3 * 4 * 4;

inline std::vector<float> draw_image(uint32_t seed = 7) { return Noise(seed).take(kPixels); }

// 4 x 4 RGB, and as the program takes it: level / 255.
struct Pixels {
  std::array<uint8_t, kPixels> packed, planar;
  std::vector<float> image = std::vector<float>(kPixels);

  explicit Pixels(uint32_t seed) {
    const auto noise = draw_image(seed);
    for (size_t i = 0; i < kPixels; i++) {
      packed[i] = static_cast<uint8_t>(static_cast<int>(noise[i] * 1000) & 255);
      const size_t at = i % 3 * 16 + i / 3;
      planar[at] = packed[i];
      image[at] = packed[i] / 255.0f;
    }
  }
  bve_frame describe() const {
    bve_frame frame{};
    frame.planes[0] = packed.data();
    frame.stride_bytes[0] = 12;
    frame.width = frame.height = 4;
    frame.format = BVE_RGB;
    return frame;
  }
};

}  // namespace bve::test
