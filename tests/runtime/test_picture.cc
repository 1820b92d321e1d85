// bve_prepare: known numbers, whatever the strides and orders of bytes; nothing behind the pixels
// is read; errors say what was met, what was expected and what to do. tests/runtime/test_picture.py
// has Pillow beside it.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "bve.h"
#include "doctest.h"
#include "json.h"
#include "tiny_program.h"

namespace {

using bve::json::object;
using bve::json::quote;

struct Close {
  void operator()(bve_program* program) const { bve_close(program); }
};
using Handle = std::unique_ptr<bve_program, Close>;

// Levels are themselves in its input.
const std::string kPlain =
    R"({"size": 4, "mean": [0, 0, 0], "std": [1, 1, 1], "scale": 1.0, "crop": "squash"})";

struct Tiny {
  bve::test::Bytes bytes{0};
  Handle program;

  explicit Tiny(const std::string& preprocessing, const std::string& labels = "null") {
    bve::test::ProgramBuilder builder;
    bve::test::add_tiny_entry(builder, bve::test::add_tiny_weights(builder, {bve_f32p}), "main", 1);
    builder.metadata = object({{"preprocessing", quote(preprocessing)}, {"labels", quote(labels)}});
    bytes = builder.build();
    program.reset(bve_open_bytes(bytes.data(), bytes.count(), nullptr));
    REQUIRE(program);
  }

  std::vector<float> prepare(const bve_picture& picture) const {
    std::vector<float> image(3 * 4 * 4, NAN);
    bve_error error{};
    const int status = bve_prepare(program.get(), &picture, image.data(), image.size(), &error);
    REQUIRE_MESSAGE(status == 0, error.text);
    return image;
  }
  std::string refuse(const bve_picture* picture, size_t count = 48) const {
    std::vector<float> image(48, NAN);
    bve_error error{};
    CHECK(bve_prepare(program.get(), picture, image.data(), count, &error) != 0);
    CHECK(std::isnan(image[0]));
    return error.text;
  }
};

bve_picture describe(const void* pixels, uint32_t width, uint32_t height, uint32_t format) {
  return {pixels, size_t{width} * (format == BVE_RGB ? 3 : 4), width, height, format, 0};
}

std::vector<uint8_t> count_up(size_t count) {
  std::vector<uint8_t> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<uint8_t>(i * 5);
  return values;
}

TEST_CASE("a picture of the model's size is only sorted into planes") {
  const std::vector<uint8_t> pixels = count_up(48);
  const std::vector<float> image = Tiny(kPlain).prepare(describe(pixels.data(), 4, 4, BVE_RGB));
  for (size_t i = 0; i < 48; ++i) CHECK(image[i] == pixels[i % 16 * 3 + i / 16]);
}

TEST_CASE("two pixels side by side become four as Pillow widens them") {
  // 0 and 200, bilinear: a quarter and three quarters between them.
  const uint8_t pixels[] = {0, 0, 0, 200, 200, 200};
  const std::vector<float> image = Tiny(kPlain).prepare(describe(pixels, 2, 1, BVE_RGB));
  const float expected[] = {0, 50, 150, 200};
  for (size_t i = 0; i < 48; ++i) CHECK(image[i] == expected[i % 4]);
}

TEST_CASE("numbers are scaled, shifted and divided in float") {
  const Tiny tiny(R"({"size": 4, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]})");
  const std::vector<uint8_t> pixels = count_up(48);
  const std::vector<float> image = tiny.prepare(describe(pixels.data(), 4, 4, BVE_RGB));
  const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};
  for (size_t i = 0; i < 48; ++i) {
    const size_t c = i / 16;
    CHECK(image[i] == (static_cast<float>(pixels[i % 16 * 3 + c]) / 255.0f - mean[c]) / std[c]);
  }
}

TEST_CASE("the orders of bytes mean the same picture, and so do rows with room behind them") {
  const uint32_t width = 7, height = 6;
  const std::vector<uint8_t> rgb = count_up(width * height * 3);
  const Tiny tiny(kPlain);
  const std::vector<float> expected = tiny.prepare(describe(rgb.data(), width, height, BVE_RGB));
  for (const uint32_t format : {BVE_RGB, BVE_RGBA, BVE_BGRA}) {
    const size_t bytes = format == BVE_RGB ? 3 : 4;
    for (const size_t room : {0, 1, 13}) {
      const size_t stride = width * bytes + room;
      std::vector<uint8_t> pixels(stride * height, 0xcc);
      for (size_t i = 0; i < size_t{width} * height; ++i) {
        uint8_t* const pixel = pixels.data() + i / width * stride + i % width * bytes;
        for (size_t c = 0; c < 3; ++c) pixel[format == BVE_BGRA ? 2 - c : c] = rgb[i * 3 + c];
        if (bytes == 4) pixel[3] = 255;
      }
      bve_picture picture = describe(pixels.data(), width, height, format);
      picture.stride_bytes = stride;
      CHECK(tiny.prepare(picture) == expected);
    }
  }
}

TEST_CASE("half of white lies on white, and on black where white would hide it") {
  std::vector<uint8_t> pixels(4 * 4 * 4, 255);
  for (size_t i = 0; i < 8; ++i) pixels[i * 4 + 3] = 0;
  const Tiny tiny(kPlain);
  std::vector<float> image = tiny.prepare(describe(pixels.data(), 4, 4, BVE_RGBA));
  for (size_t i = 0; i < 48; ++i) CHECK(image[i] == (i % 16 < 8 ? 0 : 255));
  pixels[15 * 4] = 0;  // something on it that is not white
  image = tiny.prepare(describe(pixels.data(), 4, 4, BVE_RGBA));
  for (size_t i = 0; i < 48; ++i) CHECK(image[i] == (i == 15 ? 0 : 255));
}

// Checksums of what export/image.py makes of draw()'s picture, as bytes, in the order of the loops:
// tests/runtime/test_picture.py holds them to Pillow.
constexpr struct {
  const char* crop;
  uint32_t checksum;
} kPillow[] = {{"largest centre square", 0x075aac05},
               {"center", 0xb826af46},
               {"squash", 0x87188b11},
               {"border", 0x8a041296}};

std::vector<uint8_t> draw(size_t bytes) {
  std::vector<uint8_t> values(bytes);
  uint32_t state = 1;
  for (uint8_t& value : values)
    value = static_cast<uint8_t>((state = state * 1664525 + 1013904223) >> 24);
  return values;
}

TEST_CASE("every crop and filter gives what Pillow does, on this CPU too") {
  for (const auto& pillow : kPillow) {
    const std::string crop = pillow.crop;
    uint32_t found = 0;
    for (const char* resize :
         {"nearest", "bilinear, antialiased", "bicubic, antialiased", "lanczos, antialiased"}) {
      for (const auto& [width, height] : {std::pair{61u, 40u}, {33u, 170u}, {3u, 2u}}) {
        const std::vector<uint8_t> pixels = draw(size_t{width} * height * 4);
        const std::string rest = crop == "largest centre square" ? "}" : R"(, "resize_to": 5})";
        const Tiny tiny(
            R"({"size": 4, "mean": [0, 0, 0], "std": [1, 1, 1], "scale": 1, "crop": ")" +
            std::string(crop) + R"(", "resize": ")" + resize + "\"" + rest);
        const std::vector<float> image =
            tiny.prepare(describe(pixels.data(), width, height, BVE_RGBA));
        const std::vector<uint8_t> levels(image.begin(), image.end());
        found = bve::compute_checksum(reinterpret_cast<const std::byte*>(levels.data()),
                                      levels.size(), found);
      }
    }
    CHECK_MESSAGE(found == pillow.checksum, crop, ": ", found);
  }
}

TEST_CASE("nothing before or behind the pixels is read") {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t pages = 3;
  void* const memory =
      mmap(nullptr, (pages + 2) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  uint8_t* const first = static_cast<uint8_t*>(memory) + page;
  REQUIRE(mprotect(first, pages * page, PROT_READ | PROT_WRITE) == 0);
  for (const char* crop : {"largest centre square", "center", "border", "squash"}) {
    for (const char* resize : {"nearest", "lanczos, antialiased"}) {
      const Tiny tiny(
          R"({"size": 4, "mean": [0, 0, 0], "std": [1, 1, 1], "scale": 1.0, "crop": ")" +
          std::string(crop) + R"(", "resize": ")" + resize + "\"}");
      for (const uint32_t format : {BVE_RGB, BVE_RGBA, BVE_BGRA}) {
        for (const auto& [width, height] : {std::pair{5u, 3u}, {3u, 50u}, {60u, 7u}, {1u, 1u}}) {
          bve_picture picture = describe(first, width, height, format);
          tiny.prepare(picture);
          picture.pixels = first + pages * page - picture.stride_bytes * height;
          tiny.prepare(picture);
          picture.stride_bytes += 5;  // of which the last row has none
          picture.pixels = first + pages * page - picture.stride_bytes * height + 5;
          tiny.prepare(picture);
        }
      }
    }
  }
  munmap(memory, (pages + 2) * page);
}

TEST_CASE("the stride of a single row is not looked at, however large") {
  const std::vector<uint8_t> pixels = count_up(12);
  const Tiny tiny(kPlain);
  bve_picture picture = describe(pixels.data(), 4, 1, BVE_RGB);
  const std::vector<float> expected = tiny.prepare(picture);
  picture.stride_bytes = static_cast<size_t>(-12);
  CHECK(tiny.prepare(picture) == expected);
}

TEST_CASE("what cannot be is refused in three parts, and nothing is written") {
  const std::vector<uint8_t> pixels = count_up(48);
  const bve_picture good = describe(pixels.data(), 4, 4, BVE_RGB);
  struct Case {
    const char* met;
    void (*spoil)(bve_picture&);
  };
  const Case cases[] = {
      {"a picture whose pixels are null", [](bve_picture& p) { p.pixels = nullptr; }},
      {"a picture of 0 x 4 pixels", [](bve_picture& p) { p.width = 0; }},
      {"a picture of 4 x 0 pixels", [](bve_picture& p) { p.height = 0; }},
      {"a stride of 11 bytes for rows of 4 pixels of RGB",
       [](bve_picture& p) { p.stride_bytes = 11; }},
      {"a stride of 12 bytes for rows of 4 pixels of RGBA",
       [](bve_picture& p) { p.format = BVE_RGBA; }},
      {"a stride that is negative or too large for 4 rows, expected rows one below the other; "
       "copy them so",
       [](bve_picture& p) { p.stride_bytes = static_cast<size_t>(-12); }},
      {"a picture of format 0", [](bve_picture& p) { p.format = 0; }},
      {"a picture of format 4", [](bve_picture& p) { p.format = 4; }},
      {"a picture with 1 in reserved", [](bve_picture& p) { p.reserved = 1; }},
      {"a picture of 4294967295 x 1 pixels",
       [](bve_picture& p) { p.width = UINT32_MAX, p.height = 1; }},
      {"a picture of 10001 x 10000 pixels",
       [](bve_picture& p) { p.width = 10001, p.height = 10000; }},
  };
  const Tiny tiny(kPlain);
  const auto check_parts = [](const std::string& text, const std::string& met) {
    CHECK_MESSAGE(text.rfind(met, 0) == 0, text);
    CHECK(text.find(", expected ") < text.find("; "));
    CHECK(text.find("; ") != text.npos);
  };
  for (const Case& wrong : cases) {
    bve_picture picture = good;
    wrong.spoil(picture);
    check_parts(tiny.refuse(&picture), wrong.met);
  }
  check_parts(tiny.refuse(nullptr), "a picture that is null");
  check_parts(tiny.refuse(&good, 47), "an image of 47 floats");
  bve_error error{};
  CHECK(bve_prepare(tiny.program.get(), &good, nullptr, 48, &error) != 0);
  check_parts(error.text, "an image that is null");
  CHECK(bve_prepare(tiny.program.get(), &good, nullptr, 48, nullptr) != 0);
  check_parts(Tiny("{}").refuse(&good), "preprocessing of size 0");
  check_parts(Tiny("").refuse(&good), "a program that says nothing of pictures");
  check_parts(Tiny("{\"size\": 4").refuse(&good), "preprocessing that cannot be read");
}

TEST_CASE("labels by number, and none behind the last") {
  const Tiny tiny(kPlain, R"(["one", "zw\u00f6lf"])");
  CHECK(std::string(bve_label(tiny.program.get(), 0)) == "one");
  CHECK(std::string(bve_label(tiny.program.get(), 1)) == "zwölf");
  CHECK(bve_label(tiny.program.get(), 2) == nullptr);
  CHECK(bve_label(tiny.program.get(), SIZE_MAX) == nullptr);
  CHECK(bve_label(Tiny(kPlain).program.get(), 0) == nullptr);
}

}  // namespace
