// A camera's frame as a program's first op makes it of an image: patches, normalised.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "frame_reader.h"
#include "program.h"

namespace bve {

class FrameInput {
 public:
  // For an entry whose images are of the size that `how` says; throws Error else.
  FrameInput(const Program& program, const Entry& entry, const Preprocessing& how, uint32_t isa);

  // Whether write leaves what the entry's first op would: it need not run then.
  bool is_patches() const { return patches_ != kNone; }
  // The buffer that it writes: patches, or else the image, number 0, which has memory here.
  uint32_t buffer() const { return is_patches() ? patches_ : 0; }
  std::byte* image() const { return image_.get(); }

  // dst: of that buffer. Throws Error, before it writes any, on a frame that cannot be read.
  void write(const bve_frame& frame, float* dst);
  // The same of pixels as the reader gives them, or of a plane for each channel.
  void write_pixels(const uint8_t* pixels, bool is_planar, float* dst) const;

 private:
  FrameReader reader_;
  std::array<Levels, 3> levels_;   // of the model's channels
  std::array<size_t, 3> sources_;  // and where each is in RGB
  uint32_t patches_ = kNone;       // buffer
  size_t patch_;                   // its side; the image's own, of an image
  std::vector<uint8_t> pixels_;
  Memory image_;
};

}  // namespace bve
