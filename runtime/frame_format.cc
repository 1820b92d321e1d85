#include "frame_format.h"

#include "canvas.h"
#include "error.h"

namespace bve {
namespace {

constexpr FrameFormat kFormats[] = {{BVE_RGB, "RGB", 1, 3, 0},   {BVE_RGBA, "RGBA", 1, 4, 0},
                                    {BVE_BGRA, "BGRA", 1, 4, 2}, {BVE_NV12, "NV12", 2, 0, 0},
                                    {BVE_NV21, "NV21", 2, 0, 0}, {BVE_YUV420, "YUV420", 3, 0, 0}};

const FrameFormat& find_format(uint32_t format) {
  for (const FrameFormat& known : kFormats) {
    if (known.format == format) return known;
  }
  fail(
      "a frame of format %u, expected BVE_RGB, BVE_RGBA, BVE_BGRA, BVE_NV12, BVE_NV21 or "
      "BVE_YUV420 (%d to %d); convert it",
      format, BVE_RGB, BVE_YUV420);
}

// Bytes of a plane's row, from its first to its last.
uint64_t measure_row(const bve_frame& frame, const FrameFormat& format, size_t plane) {
  if (format.bytes != 0) return uint64_t{frame.width} * format.bytes;
  const uint64_t half = (uint64_t{frame.width} + 1) / 2;
  if (plane == 0) return frame.width;
  return format.planes == 2 ? half * 2 : (half - 1) * frame.pixel_stride + 1;
}

void check_plane(const bve_frame& frame, const FrameFormat& format, size_t plane) {
  if (!frame.planes[plane]) {
    fail("a frame of %s whose plane %zu is null, expected its first row; give %zu %s", format.name,
         plane, format.planes, format.planes == 1 ? "plane" : "planes");
  }
  const size_t stride = frame.stride_bytes[plane];
  const uint64_t least = measure_row(frame, format, plane);
  check_stride(stride, frame.height);
  if (stride < least) {
    fail(
        "a stride of %zu bytes for plane %zu of %u x %u pixels of %s, expected %llu or more; give "
        "the bytes from one row to the next",
        stride, plane, frame.width, frame.height, format.name,
        static_cast<unsigned long long>(least));
  }
}

}  // namespace

const FrameFormat& check_frame(const bve_frame& frame) {
  const FrameFormat& format = find_format(frame.format);
  if (frame.reserved[0] != 0 || frame.reserved[1] != 0) {
    fail("a frame with %u, %u in reserved, expected 0; set all of bve_frame", frame.reserved[0],
         frame.reserved[1]);
  }
  check_size("a frame", frame.width, frame.height);
  if (frame.rotation % 90 != 0 || frame.rotation > 270) {
    fail("a frame with a rotation of %u degrees, expected 0, 90, 180 or 270 clockwise; round it",
         frame.rotation);
  }
  if (frame.matrix > BVE_BT709) {
    fail(
        "a frame of matrix %u, expected BVE_BT601_FULL to BVE_BT709 (%d to %d); choose the nearest",
        frame.matrix, BVE_BT601_FULL, BVE_BT709);
  }
  const bool is_planar = frame.format == BVE_YUV420;
  if (is_planar ? frame.pixel_stride < 1 || frame.pixel_stride > 2 : frame.pixel_stride != 0) {
    fail(
        "a frame of %s with a pixel stride of %u, expected %s; give the bytes from a U to the next",
        format.name, frame.pixel_stride, is_planar ? "1 or 2" : "0, for only YUV420 has one");
  }
  for (size_t plane = 0; plane < format.planes; ++plane) check_plane(frame, format, plane);
  return format;
}

}  // namespace bve
