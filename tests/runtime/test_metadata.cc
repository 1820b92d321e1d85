// What is read of a program's metadata, and that no text in it does harm.
#include <clocale>
#include <string>

#include "doctest.h"
#include "error.h"
#include "json.h"
#include "json_reader.h"
#include "metadata.h"
#include "program.h"
#include "tiny_program.h"

namespace bve {
namespace {

const std::string kWords =
    R"({"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "color": "BGR",)"
    R"( "crop": "center", "resize": "bicubic, antialiased", "layout": "NCHW",)"
    R"( "scale": 0.00392156862745098, "resize_to": 256, "crop_rounding": "down"})";

Metadata read(const std::string& preprocessing, const std::string& labels = "null") {
  return read_metadata(json::object(
      {{"preprocessing", json::quote(preprocessing)}, {"labels", json::quote(labels)}}));
}

TEST_CASE("preprocessing is read field by field") {
  const Metadata metadata = read(kWords);
  REQUIRE_MESSAGE(metadata.preprocessing, metadata.fault);
  const Preprocessing& how = *metadata.preprocessing;
  CHECK(how.size == 224);
  CHECK(how.mean == std::array<double, 3>{0.485, 0.456, 0.406});
  CHECK(how.std == std::array<double, 3>{0.229, 0.224, 0.225});
  CHECK(how.is_bgr);
  CHECK(how.crop == Crop::kCenter);
  CHECK(how.resize == Filter::kBicubic);
  CHECK(how.scale == 1.0 / 255);
  CHECK(how.resize_to == 256);
  CHECK(how.rounds_down);
}

TEST_CASE("what a file's input is of is read, and what no file has is refused") {
  const auto read_input = [](const std::string& words) {
    return read(R"({"size": 4, "mean": [0, 0, 0], "std": [1, 1, 1])" + words + "}");
  };
  for (const char* words : {"", R"(, "dtype": "float32")", R"(, "layout": "NCHW")"}) {
    const Metadata metadata = read_input(words);
    REQUIRE_MESSAGE(metadata.preprocessing, metadata.fault);
    CHECK_FALSE(metadata.preprocessing->takes_pixels);
  }
  for (const char* layout : {"NCHW", "NHWC"}) {
    const Metadata metadata =
        read_input(R"(, "layout": ")" + std::string(layout) + R"(", "dtype": "uint8")");
    REQUIRE_MESSAGE(metadata.preprocessing, metadata.fault);
    CHECK(metadata.preprocessing->takes_pixels);
  }
  CHECK(read_input(R"(, "dtype": "int8")").fault ==
        "preprocessing with dtype 'int8', expected one of 'float32', 'uint8'; update bigvit-edge, "
        "or export the model again");
  CHECK(read_input(R"(, "layout": "NHWC")").fault ==
        "preprocessing with layout 'NHWC' for dtype 'float32', expected 'NCHW'; export the model "
        "again");
}

TEST_CASE("a number's point is a point, whatever the program's locale") {
  const char* const comma = std::setlocale(LC_NUMERIC, "de_DE.UTF-8");
  json::Reader reader("a number", " -1.5e1");
  CHECK(reader.read_number() == -15);
  if (comma) std::setlocale(LC_NUMERIC, "C");
}

TEST_CASE("texts are read as JSON has them") {
  const auto read_text = [](const std::string& text) {
    json::Reader reader("a text", text);
    const std::string found = reader.read_string();
    reader.finish();
    return found;
  };
  CHECK(read_text(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
  CHECK(read_text(R"("\u0041\u00e4\u20AC")") == "Aä€");
  CHECK(read_text(R"("\ud83e\udd8a")") == "\xf0\x9f\xa6\x8a");
  CHECK(read_text(R"("\ud83e.\udd8a\ud83e\u0041")") ==
        "\xef\xbf\xbd.\xef\xbf\xbd\xef\xbf\xbd"
        "A");
  for (const char* bad : {"", "\"", "\"\\", "\"\\u12", "\"\\u12g4\"", "\"\\x\"", "\"\n\"", "a"}) {
    CHECK_THROWS_AS(read_text(bad), Error);
  }
}

TEST_CASE("what is no number is refused") {
  for (const char* bad : {"", "-", ".5", "+1", "1e999", "1.2.3", "nan", "1e", "--1", "\"1\""}) {
    json::Reader reader("a number", bad);
    CHECK_THROWS_AS_MESSAGE(reader.read_number(), Error, bad);
  }
}

TEST_CASE("labels that cannot be read are none, and the rest is read") {
  CHECK(read(kWords, R"(["a", "b"])").labels == std::vector<std::string>{"a", "b"});
  for (const char* none : {"null", "", "[\"a\"", "[1]", "{}", "[\"a\"] x"}) {
    const Metadata metadata = read(kWords, none);
    CHECK(metadata.labels.empty());
    CHECK(metadata.preprocessing);
  }
}

TEST_CASE("any text is read or refused, with a reason that can be printed") {
  test::Noise noise(1);
  size_t refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = kWords;
    for (const float draw : noise.take(1 + round % 3)) {
      const auto bits = static_cast<size_t>((draw + 8) * 65536);
      const size_t at = bits % text.size();
      if (round % 2) {
        text[at] = static_cast<char>(bits >> 7);
      } else {
        text.erase(at, 1 + bits % 5);
      }
    }
    Metadata metadata;
    try {
      metadata = read_metadata("{\"preprocessing\": " + json::quote(text) + "}");
    } catch (const Error& error) {
      metadata.fault = error.what();
    }
    CHECK(metadata.preprocessing.has_value() == metadata.fault.empty());
    CHECK_MESSAGE(is_text(metadata.fault), metadata.fault);
    refused += !metadata.fault.empty();
  }
  CHECK(refused > 1000);
}

}  // namespace
}  // namespace bve
