// Frames of any size, layout and preprocessing: an Error that can be printed, or pixels, the same
// ones with and without vectors. Planes have not a byte more than they must.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "error.h"
#include "frame_reader.h"
#include "program.h"

namespace bve {
namespace {

void require(bool is_so, const char* what) {
  if (is_so) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

// Numbers out of the input, zeros behind its end.
struct Input {
  const uint8_t* data;
  size_t size;

  uint32_t take(size_t bytes) {
    uint32_t value = 0;
    for (; bytes > 0; --bytes) {
      value = value << 8 | (size > 0 ? *data : 0);
      if (size > 0) ++data, --size;
    }
    return value;
  }
  // Mostly of what is allowed.
  uint32_t choose(uint32_t count) {
    const uint32_t value = take(1);
    return value == 255 ? take(4) : value % count;
  }
};

Preprocessing take_preprocessing(Input& input) {
  Preprocessing how;
  how.size = 1 + input.take(1) % 24;
  how.std = {1, 1, 1};
  how.scale = 1;
  how.crop = static_cast<Crop>(input.take(1) % 4);
  how.resize = static_cast<Filter>(input.take(1) % 4);
  how.resize_to = how.crop == Crop::kLargestSquare ? 0 : input.take(1) % 40;
  how.rounds_down = input.take(1) % 2;
  return how;
}

using Planes = std::vector<std::unique_ptr<uint8_t[]>>;

// Bytes that a plane's rows must have, as bve.h says.
size_t measure(const bve_frame& frame, size_t plane) {
  const size_t half = (size_t{frame.width} + 1) / 2, rows = (size_t{frame.height} + 1) / 2;
  const size_t stride = frame.stride_bytes[plane];
  if (frame.format <= BVE_BGRA)
    return stride * (frame.height - 1) + size_t{frame.width} * (frame.format == BVE_RGB ? 3 : 4);
  if (plane == 0) return stride * (frame.height - 1) + frame.width;
  return stride * (rows - 1) +
         (frame.format == BVE_YUV420 ? (half - 1) * frame.pixel_stride + 1 : half * 2);
}

bve_frame take_frame(Input& input) {
  bve_frame frame{};
  frame.width = input.choose(80);
  frame.height = input.choose(80);
  frame.format = 1 + input.choose(6);
  frame.rotation = input.choose(4) * 90;
  frame.matrix = input.choose(4);
  frame.pixel_stride = frame.format == BVE_YUV420 ? 1 + input.choose(2) : input.choose(1);
  const size_t bytes = frame.format == BVE_RGB ? 3 : frame.format <= BVE_BGRA ? 4 : 1;
  for (size_t i = 0; i < 3; ++i)
    frame.stride_bytes[i] = frame.width * bytes + input.choose(5) - (input.take(1) == 255);
  frame.reserved[1] = input.choose(1);
  return frame;
}

// Memory for a frame that could be one, so that the sanitizer sees a byte too many.
Planes fill(bve_frame& frame, Input& input) {
  Planes planes;
  for (size_t i = 0; i < 3; ++i) {
    const size_t bytes = measure(frame, i);
    planes.emplace_back(new uint8_t[bytes]);
    uint32_t state = input.take(2);
    for (size_t j = 0; j < bytes; ++j)
      planes[i][j] = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
    frame.planes[i] = planes[i].get();
  }
  return planes;
}

void read(Input input) try {
  const Preprocessing how = take_preprocessing(input);
  bve_frame frame = take_frame(input);
  const uint8_t nothing = 0;
  for (const void*& plane : frame.planes) plane = &nothing;
  check_frame(frame);  // and only then there is memory for it
  if (uint64_t{frame.width} * frame.height > 1 << 17 || frame.stride_bytes[0] > 1 << 12) return;
  for (const size_t stride : frame.stride_bytes) {
    if (stride > 1 << 12) return;
  }
  const Planes planes = fill(frame, input);
  const size_t count = size_t{3} * how.size * how.size;
  std::vector<uint8_t> pixels(count), plain(count);
  FrameReader reader(how, bve_detect_isa());
  reader.read(frame, pixels.data());
  FrameReader(how, 0).read(frame, plain.data());
  require(pixels == plain, "vectors make other pixels");
  reader.read(frame, plain.data());
  require(pixels == plain, "a frame read again has other pixels");
} catch (const Error& error) {
  const std::string text = error.what();
  require(is_text(text) && text.find(", expected ") < text.find("; "), "an error of other parts");
}

}  // namespace
}  // namespace bve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bve::read({data, size});
  return 0;
}
