// Frames through the C ABI: known levels, wherever they lie; nothing behind them is read; a session
// runs them as it does their images; errors in three parts. tests/runtime/test_frame_reader.py has
// numpy and Pillow beside it.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "bve.h"
#include "doctest.h"
#include "json.h"
#include "tiny_program.h"

namespace {

std::atomic<size_t> allocations{0};

}  // namespace

void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

using bve::json::object;
using bve::json::quote;

constexpr uint32_t kFormats[] = {BVE_RGB, BVE_RGBA, BVE_BGRA, BVE_NV12, BVE_NV21, BVE_YUV420};

std::string describe(const std::string& more = "", uint32_t size = 4) {
  return object({{"preprocessing",
                  quote(R"({"size": )" + std::to_string(size) +
                        R"(, "mean": [0, 0, 0], "std": [1, 1, 1], "scale": 1.0)" + more + "}")}});
}

struct Plane {
  size_t width_bytes, height;
};

std::vector<Plane> list_planes(const bve_frame& frame) {
  const size_t width = frame.width, height = frame.height;
  const size_t half = (width + 1) / 2, rows = (height + 1) / 2;
  switch (frame.format) {
    case BVE_RGB:
      return {{width * 3, height}};
    case BVE_RGBA:
    case BVE_BGRA:
      return {{width * 4, height}};
    case BVE_NV12:
    case BVE_NV21:
      return {{width, height}, {half * 2, rows}};
    default:
      const size_t bytes = (half - 1) * frame.pixel_stride + 1;
      return {{width, height}, {bytes, rows}, {bytes, rows}};
  }
}

bve_frame make_frame(uint32_t width, uint32_t height, uint32_t format, uint32_t rotation = 0,
                     uint32_t step = 1) {
  bve_frame frame{};
  frame.width = width;
  frame.height = height;
  frame.format = format;
  frame.rotation = rotation;
  frame.pixel_stride = format == BVE_YUV420 ? step : 0;
  return frame;
}

// A frame with memory of its own, of pseudo-random levels.
struct Drawn {
  bve_frame frame;
  std::vector<std::vector<uint8_t>> planes;

  explicit Drawn(bve_frame described) : frame(described) {
    uint32_t state = 1;
    for (const Plane& plane : list_planes(frame)) {
      const size_t i = planes.size();
      planes.emplace_back(plane.width_bytes * plane.height);
      for (uint8_t& value : planes.back())
        value = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
      frame.planes[i] = planes.back().data();
      frame.stride_bytes[i] = plane.width_bytes;
    }
  }
};

std::vector<uint8_t> read(const bve_frame& frame, const std::string& metadata, size_t size = 4) {
  std::vector<uint8_t> pixels(size * size * 3);
  bve_error error{};
  const int status =
      bve_read_frame_by(metadata.c_str(), &frame, pixels.data(), pixels.size(), &error);
  REQUIRE_MESSAGE(status == 0, error.text);
  return pixels;
}

struct Close {
  void operator()(bve_program* program) const { bve_close(program); }
};
struct Stop {
  void operator()(bve_session* session) const { bve_stop(session); }
};

struct Tiny {
  bve::test::Bytes bytes{0};
  std::unique_ptr<bve_program, Close> program;
  std::unique_ptr<bve_session, Stop> session;

  explicit Tiny(const std::string& metadata, uint32_t threads = 1, bool image_twice = false) {
    bve::test::ProgramBuilder builder;
    bve::test::add_tiny_entry(builder, bve::test::add_tiny_weights(builder, {bve_f32p}), "main", 1);
    if (image_twice)
      builder.add_op("again", 12, 0, bve::PatchesArgs{0, builder.add_buffer(4, 12), 2});
    builder.metadata = metadata;
    bytes = builder.build();
    program.reset(bve_open_bytes(bytes.data(), bytes.count(), nullptr));
    REQUIRE(program);
    bve_options options{BVE_ABI_VERSION, threads, 0, 0, 0, 0, 0};
    session.reset(bve_start(program.get(), 0, &options, nullptr));
    REQUIRE(session);
  }

  std::vector<float> run(const float* image, size_t count) {
    std::vector<float> logits(3, NAN);
    bve_error error{};
    const int status = bve_run(session.get(), image, count, logits.data(), 3, &error);
    REQUIRE_MESSAGE(status == 0, error.text);
    return logits;
  }
  std::vector<float> run_frame(const bve_frame& frame) {
    bve_error error{};
    const int status = bve_set_frame(session.get(), &frame, &error);
    REQUIRE_MESSAGE(status == 0, error.text);
    return run(nullptr, 0);
  }
};

TEST_CASE("colours of known YUV") {
  // Rec. ITU-R BT.601 and BT.709: white, black, and pure red of either range.
  struct Case {
    uint32_t matrix;
    uint8_t y, u, v, red, green, blue;
  };
  const Case cases[] = {{BVE_BT601_FULL, 255, 128, 128, 255, 255, 255},
                        {BVE_BT601_FULL, 76, 85, 255, 254, 0, 0},
                        {BVE_BT601, 235, 128, 128, 255, 255, 255},
                        {BVE_BT601, 16, 128, 128, 0, 0, 0},
                        {BVE_BT601, 81, 90, 240, 254, 0, 0},
                        {BVE_BT709, 63, 102, 240, 255, 1, 0},
                        {BVE_BT709_FULL, 54, 99, 255, 254, 0, 0}};
  for (const Case& known : cases) {
    const std::vector<uint8_t> y(16, known.y);
    for (const bool is_21 : {false, true}) {
      std::vector<uint8_t> uv(8, is_21 ? known.v : known.u);
      for (size_t i = 1; i < uv.size(); i += 2) uv[i] = is_21 ? known.u : known.v;
      bve_frame frame = make_frame(4, 4, is_21 ? BVE_NV21 : BVE_NV12);
      frame.planes[0] = y.data();
      frame.planes[1] = uv.data();
      frame.stride_bytes[0] = frame.stride_bytes[1] = 4;
      frame.matrix = known.matrix;
      const std::vector<uint8_t> pixels = read(frame, describe());
      for (size_t i = 0; i < 48; ++i) {
        const int expected = i % 3 == 0 ? known.red : i % 3 == 1 ? known.green : known.blue;
        CHECK(std::abs(pixels[i] - expected) <= 1);
      }
    }
  }
}

TEST_CASE("a rotation turns clockwise") {
  std::vector<uint8_t> pixels(48);
  for (size_t i = 0; i < 48; ++i) pixels[i] = static_cast<uint8_t>(i);
  for (const uint32_t rotation : {0u, 90u, 180u, 270u}) {
    bve_frame frame = make_frame(4, 4, BVE_RGB, rotation);
    frame.planes[0] = pixels.data();
    frame.stride_bytes[0] = 12;
    const std::vector<uint8_t> found = read(frame, describe());
    for (size_t y = 0; y < 4; ++y) {
      for (size_t x = 0; x < 4; ++x) {
        const size_t fx = rotation == 0 ? x : rotation == 90 ? y : rotation == 180 ? 3 - x : 3 - y;
        const size_t fy = rotation == 0 ? y : rotation == 90 ? 3 - x : rotation == 180 ? 3 - y : x;
        CHECK(found[(y * 4 + x) * 3] == pixels[(fy * 4 + fx) * 3]);
      }
    }
  }
}

TEST_CASE("nothing before or behind a plane's pixels is read") {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t pages = 4;  // of each plane, between pages that nobody may touch
  uint8_t* first[3];
  std::vector<void*> mapped;
  for (uint8_t*& start : first) {
    void* const memory =
        mmap(nullptr, (pages + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    mapped.push_back(memory);
    start = static_cast<uint8_t*>(memory) + page;
    REQUIRE(mprotect(start, pages * page, PROT_READ | PROT_WRITE) == 0);
  }
  for (const char* more : {"", R"(, "resize": "nearest")",
                           R"(, "crop": "squash", "resize": "lanczos, antialiased")"}) {
    const std::string metadata = describe(more);
    for (const uint32_t format : kFormats) {
      for (const uint32_t rotation : {0u, 90u, 180u, 270u}) {
        for (const auto& [width, height] :
             {std::pair{65u, 7u}, {64u, 8u}, {31u, 3u}, {2u, 33u}, {1u, 1u}}) {
          for (const uint32_t step : {1u, 2u}) {
            bve_frame frame = make_frame(width, height, format, rotation, step);
            const std::vector<Plane> planes = list_planes(frame);
            for (const size_t room : {0, 9}) {  // of which the last row has none
              for (const bool at_end : {false, true}) {
                for (size_t i = 0; i < planes.size(); ++i) {
                  const size_t stride = planes[i].width_bytes + room;
                  const size_t bytes = stride * planes[i].height - room;
                  REQUIRE(bytes <= pages * page);
                  frame.stride_bytes[i] = stride;
                  frame.planes[i] = first[i] + (at_end ? pages * page - bytes : 0);
                }
                read(frame, metadata);
              }
            }
          }
        }
      }
    }
  }
  for (void* memory : mapped) munmap(memory, (pages + 2) * page);
}

TEST_CASE("U and V a byte apart are taken as they are in turns") {
  const Drawn nv21(make_frame(21, 13, BVE_NV21));
  bve_frame planar = make_frame(21, 13, BVE_YUV420, 0, 2);
  planar.planes[0] = nv21.frame.planes[0];
  planar.planes[1] = nv21.planes[1].data() + 1;
  planar.planes[2] = nv21.planes[1].data();
  planar.stride_bytes[0] = 21;
  planar.stride_bytes[1] = planar.stride_bytes[2] = 22;
  CHECK(read(planar, describe()) == read(nv21.frame, describe()));
}

TEST_CASE("a session runs a frame as the image that it is") {
  const std::string how = describe(R"(, "crop": "border", "resize_to": 3, "color": "BGR")");
  for (const bool image_twice : {false, true}) {
    for (const uint32_t threads : {1u, std::min(2u, bve_count_cores())}) {
      Tiny tiny(how, threads, image_twice);
      for (const uint32_t format : kFormats) {
        const Drawn drawn(make_frame(33, 18, format, 90));
        std::vector<uint8_t> pixels(48);
        REQUIRE(bve_read_frame(tiny.program.get(), &drawn.frame, pixels.data(), 48, nullptr) == 0);
        std::vector<float> image(48);
        for (size_t i = 0; i < 48; ++i) image[i] = pixels[i % 16 * 3 + 2 - i / 16];
        const std::vector<float> expected = tiny.run(image.data(), 48);
        CHECK(tiny.run_frame(drawn.frame) == expected);
        std::fill(image.begin(), image.end(), 1.0f);
        CHECK(tiny.run(image.data(), 48) != expected);
      }
    }
  }
}

TEST_CASE("a frame that was run is gone, whichever image was run") {
  Tiny tiny(describe());
  const Drawn drawn(make_frame(9, 9, BVE_NV12));
  std::vector<float> image(48), logits(3);
  const auto refuse = [&] {
    bve_error error{};
    CHECK(bve_run(tiny.session.get(), nullptr, 0, logits.data(), 3, &error) != 0);
    CHECK(std::string(error.text).rfind("no image, expected 48 floats", 0) == 0);
  };
  refuse();
  tiny.run_frame(drawn.frame);
  refuse();
  REQUIRE(bve_set_frame(tiny.session.get(), &drawn.frame, nullptr) == 0);
  tiny.run(image.data(), 48);
  refuse();
  // What fails leaves what was set.
  const std::vector<float> expected = tiny.run_frame(drawn.frame);
  REQUIRE(bve_set_frame(tiny.session.get(), &drawn.frame, nullptr) == 0);
  CHECK(bve_set_frame(tiny.session.get(), nullptr, nullptr) != 0);
  CHECK(bve_run(tiny.session.get(), nullptr, 48, logits.data(), 3, nullptr) != 0);
  CHECK(bve_run(tiny.session.get(), nullptr, 0, logits.data(), 2, nullptr) != 0);
  CHECK(tiny.run(nullptr, 0) == expected);
}

TEST_CASE("frames like the last one are set without allocating") {
  Tiny tiny(describe());
  for (const uint32_t format : kFormats) {
    const Drawn drawn(make_frame(50, 30, format, 270));
    tiny.run_frame(drawn.frame);
    const size_t before = allocations;
    REQUIRE(bve_set_frame(tiny.session.get(), &drawn.frame, nullptr) == 0);
    CHECK(allocations == before);
    tiny.run(nullptr, 0);
  }
}

TEST_CASE("what cannot be is refused in three parts, and nothing is written") {
  const Drawn rgb(make_frame(4, 4, BVE_RGB)), nv21(make_frame(5, 4, BVE_NV21)),
      planar(make_frame(5, 4, BVE_YUV420));
  struct Case {
    const char* met;
    const Drawn& good;
    std::function<void(bve_frame&)> spoil;
  };
  const Case cases[] = {
      {"a frame of format 0", rgb, [](bve_frame& f) { f.format = 0; }},
      {"a frame of format 7", rgb, [](bve_frame& f) { f.format = 7; }},
      {"a frame with 0, 3 in reserved", rgb, [](bve_frame& f) { f.reserved[1] = 3; }},
      {"a frame of 0 x 4 pixels", rgb, [](bve_frame& f) { f.width = 0; }},
      {"a frame of 4 x 0 pixels", rgb, [](bve_frame& f) { f.height = 0; }},
      {"a frame of 10001 x 10000 pixels", rgb,
       [](bve_frame& f) { f.width = 10001, f.height = 10000; }},
      {"a frame of 4294967295 x 1 pixels", nv21,
       [](bve_frame& f) { f.width = UINT32_MAX, f.height = 1; }},
      {"a frame with a rotation of 45 degrees", rgb, [](bve_frame& f) { f.rotation = 45; }},
      {"a frame with a rotation of 360 degrees", rgb, [](bve_frame& f) { f.rotation = 360; }},
      {"a frame of matrix 4", nv21, [](bve_frame& f) { f.matrix = 4; }},
      {"a frame of YUV420 with a pixel stride of 0", planar,
       [](bve_frame& f) { f.pixel_stride = 0; }},
      {"a frame of YUV420 with a pixel stride of 3", planar,
       [](bve_frame& f) { f.pixel_stride = 3; }},
      {"a frame of NV21 with a pixel stride of 1", nv21, [](bve_frame& f) { f.pixel_stride = 1; }},
      {"a frame of RGB whose plane 0 is null", rgb, [](bve_frame& f) { f.planes[0] = nullptr; }},
      {"a frame of NV21 whose plane 1 is null", nv21, [](bve_frame& f) { f.planes[1] = nullptr; }},
      {"a frame of YUV420 whose plane 2 is null", planar,
       [](bve_frame& f) { f.planes[2] = nullptr; }},
      {"a stride of 0 bytes for plane 0 of 4 x 4 pixels of RGB", rgb,
       [](bve_frame& f) { f.stride_bytes[0] = 0; }},
      {"a stride of 11 bytes for plane 0 of 4 x 4 pixels of RGB", rgb,
       [](bve_frame& f) { f.stride_bytes[0] = 11; }},
      {"a stride of 4 bytes for plane 0", nv21, [](bve_frame& f) { f.stride_bytes[0] = 4; }},
      {"a stride of 5 bytes for plane 1", nv21, [](bve_frame& f) { f.stride_bytes[1] = 5; }},
      {"a stride of 2 bytes for plane 2", planar, [](bve_frame& f) { f.stride_bytes[2] = 2; }},
      {"a stride of 3 bytes for plane 1", planar, [](bve_frame& f) { f.pixel_stride = 2; }},
      {"a stride that is negative or too large for 4 rows, expected rows one below the other; "
       "copy them so",
       nv21, [](bve_frame& f) { f.stride_bytes[1] = static_cast<size_t>(-6); }},
  };
  const auto check_parts = [](const std::string& text, const std::string& met) {
    CHECK_MESSAGE(text.rfind(met, 0) == 0, text);
    CHECK(text.find(", expected ") < text.find("; "));
    CHECK(text.find("; ") != text.npos);
  };
  Tiny tiny(describe());
  std::vector<uint8_t> pixels(48, 7);
  const auto refuse = [&](const bve_frame* frame, uint8_t* to, size_t count, const char* met) {
    bve_error error{};
    CHECK(bve_read_frame(tiny.program.get(), frame, to, count, &error) != 0);
    check_parts(error.text, met);
    CHECK(pixels == std::vector<uint8_t>(48, 7));
  };
  for (const Case& wrong : cases) {
    bve_frame frame = wrong.good.frame;
    wrong.spoil(frame);
    refuse(&frame, pixels.data(), 48, wrong.met);
    bve_error error{};
    CHECK(bve_set_frame(tiny.session.get(), &frame, &error) != 0);
    check_parts(error.text, wrong.met);
  }
  refuse(nullptr, pixels.data(), 48, "a frame that is null");
  refuse(&rgb.frame, nullptr, 48, "room for pixels that is null");
  refuse(&rgb.frame, pixels.data(), 47, "room for 47 bytes of pixels");
  Tiny silent("{}"), other(describe("", 8));
  for (const auto& [unfit, met] : {std::pair{&silent, "a program that says nothing of pictures"},
                                   {&other, "preprocessing of size 8 for images of size 4"}}) {
    bve_error error{};
    CHECK(bve_set_frame(unfit->session.get(), &rgb.frame, &error) != 0);
    check_parts(error.text, met);
  }
}

}  // namespace
