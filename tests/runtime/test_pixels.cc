// bve_set_pixels: what is cropped and resized already, in either layout.
#include <string>
#include <vector>

#include "bve.h"
#include "doctest.h"
#include "json.h"
#include "tiny_program.h"

namespace bve::test {
namespace {

constexpr size_t kSize = 4, kArea = kSize * kSize;

struct Opened {
  Bytes bytes;
  bve_program* program;
  bve_session* session;

  explicit Opened(const char* preprocessing) : bytes(build(preprocessing)) {
    program = bve_open_bytes(bytes.data(), bytes.count(), nullptr);
    session = bve_start(program, 0, nullptr, nullptr);
    REQUIRE(session);
  }
  ~Opened() {
    bve_stop(session);
    bve_close(program);
  }
  static Bytes build(const char* preprocessing) {
    ProgramBuilder builder;
    add_tiny_entry(builder, add_tiny_weights(builder, {bve_f32p}), "main", 1);
    builder.metadata =
        preprocessing ? json::object({{"preprocessing", json::quote(preprocessing)}}) : "{}";
    return builder.build();
  }
  std::vector<float> run(const float* image, size_t count) {
    std::vector<float> logits(bve_logits_count(session));
    if (bve_run(session, image, count, logits.data(), logits.size(), nullptr)) return {};
    return logits;
  }
  std::string refuse(const uint8_t* pixels, size_t count, uint32_t is_planar) {
    bve_error error{};
    REQUIRE(bve_set_pixels(session, pixels, count, is_planar, &error) != 0);
    return error.text;
  }
};

TEST_CASE("pixels are normalised as the program says, in its order of channels") {
  const double mean[] = {0.25, 0.5, 0.125}, std[] = {0.5, 0.25, 1};
  for (const bool is_bgr : {false, true}) {
    Opened opened(is_bgr ? R"({"size": 4, "mean": [0.25, 0.5, 0.125], "std": [0.5, 0.25, 1],
                               "color": "BGR"})"
                         : R"({"size": 4, "mean": [0.25, 0.5, 0.125], "std": [0.5, 0.25, 1]})");
    uint8_t packed[3 * kArea], planar[3 * kArea];
    std::vector<float> image(3 * kArea);
    for (size_t i = 0; i < kArea; ++i) {
      for (size_t c = 0; c < 3; ++c) {
        const auto level = static_cast<uint8_t>(i * 53 + c * 101 + 7);
        packed[i * 3 + c] = planar[c * kArea + i] = level;
        const size_t channel = is_bgr ? 2 - c : c;
        image[channel * kArea + i] =
            static_cast<float>((level / 255.0 - mean[channel]) / std[channel]);
      }
    }
    const auto expected = opened.run(image.data(), image.size());
    for (const uint32_t is_planar : {0, 1}) {
      REQUIRE(bve_set_pixels(opened.session, is_planar ? planar : packed, 3 * kArea, is_planar,
                             nullptr) == 0);
      const auto found = opened.run(nullptr, 0);
      REQUIRE(found.size() == expected.size());
      for (size_t i = 0; i < found.size(); ++i)
        CHECK(found[i] == doctest::Approx(expected[i]).epsilon(1e-4));
      CHECK(opened.run(nullptr, 0).empty());  // they are gone
    }
  }
}

TEST_CASE("what are no pixels is refused, and what was set before stays") {
  Opened opened(R"({"size": 4, "mean": [0, 0, 0], "std": [1, 1, 1]})");
  const std::vector<uint8_t> pixels(3 * kArea, 9);
  const std::vector<float> image(3 * kArea, 9 / 255.0f);
  REQUIRE(bve_set_pixels(opened.session, pixels.data(), pixels.size(), 0, nullptr) == 0);
  CHECK(opened.refuse(nullptr, pixels.size(), 0) ==
        "pixels that are null, expected their memory; give it");
  CHECK(opened.refuse(pixels.data(), pixels.size() - 1, 1) ==
        "47 bytes of pixels, expected 48: 3 x 4 x 4; give as many");
  const auto found = opened.run(nullptr, 0);  // before the next, which would drop them
  CHECK(found == opened.run(image.data(), image.size()));
  CHECK(Opened(nullptr)
            .refuse(pixels.data(), pixels.size(), 0)
            .find("says nothing of pictures, expected 'preprocessing'") != std::string::npos);
}

}  // namespace
}  // namespace bve::test
