#include "metadata.h"

#include <cmath>
#include <iterator>
#include <utility>

#include "error.h"
#include "json_reader.h"
#include "program.h"

namespace bve {
namespace {

constexpr uint32_t kMostPixels = 8192;  // of a side
constexpr const char* kExportAgain = "export the model again";

template <typename Value>
struct Word {
  const char* word;
  Value value;
};
constexpr Word<bool> kColors[] = {{"RGB", false}, {"BGR", true}};
constexpr Word<bool> kRoundings[] = {{"half to even", false}, {"down", true}};
constexpr Word<bool> kLayouts[] = {{"NCHW", false}, {"NHWC", true}};
constexpr Word<bool> kDtypes[] = {{"float32", false}, {"uint8", true}};
constexpr Word<Crop> kCrops[] = {{"largest centre square", Crop::kLargestSquare},
                                 {"center", Crop::kCenter},
                                 {"squash", Crop::kSquash},
                                 {"border", Crop::kBorder}};
constexpr Word<Filter> kResizes[] = {{"nearest", Filter::kNearest},
                                     {"bilinear, antialiased", Filter::kBilinear},
                                     {"bicubic, antialiased", Filter::kBicubic},
                                     {"lanczos, antialiased", Filter::kLanczos}};

// A file's word, if it can be printed.
std::string show(const std::string& word) {
  return word.size() <= 60 && is_text(word) ? "'" + word + "'" : "what cannot be printed";
}

template <typename Value, size_t N>
Value choose(const std::string& key, const std::string& word, const Word<Value> (&words)[N]) {
  std::string known;
  for (const auto& [name, value] : words) {
    if (word == name) return value;
    known += (known.empty() ? "'" : ", '") + std::string(name) + "'";
  }
  fail("preprocessing with %s %s, expected one of %s; update bigvit-edge, or %s", key.c_str(),
       show(word).c_str(), known.c_str(), kExportAgain);
}

uint32_t read_pixels(const std::string& key, json::Reader& reader) {
  const double value = reader.read_number();
  if (value < 1 || value > kMostPixels || value != std::floor(value)) {
    fail("preprocessing with %s %g, expected 1 to %u pixels; %s", key.c_str(), value, kMostPixels,
         kExportAgain);
  }
  return static_cast<uint32_t>(value);
}

std::array<double, 3> read_triple(const std::string& key, json::Reader& reader) {
  std::array<double, 3> values{};
  size_t count = 0;
  reader.read_list([&] {
    const double value = reader.read_number();
    if (count < values.size()) values[count] = value;
    ++count;
  });
  if (count != values.size()) {
    fail("preprocessing with %zu numbers for %s, expected one for each of 3 channels; %s", count,
         key.c_str(), kExportAgain);
  }
  return values;
}

void read_field(const std::string& key, json::Reader& reader, Preprocessing& how) {
  if (key == "size") {
    how.size = read_pixels(key, reader);
  } else if (key == "mean") {
    how.mean = read_triple(key, reader);
  } else if (key == "std") {
    how.std = read_triple(key, reader);
  } else if (key == "color") {
    how.is_bgr = choose(key, reader.read_string(), kColors);
  } else if (key == "crop") {
    how.crop = choose(key, reader.read_string(), kCrops);
  } else if (key == "resize") {
    how.resize = choose(key, reader.read_string(), kResizes);
  } else if (key == "layout") {
    how.is_nhwc = choose(key, reader.read_string(), kLayouts);
  } else if (key == "dtype") {
    how.takes_pixels = choose(key, reader.read_string(), kDtypes);
  } else if (key == "scale") {
    how.scale = reader.read_number();
  } else if (key == "resize_to") {
    how.resize_to = reader.read_null() ? 0 : read_pixels(key, reader);
  } else if (key == "crop_rounding") {
    how.rounds_down = choose(key, reader.read_string(), kRoundings);
  } else {
    fail("preprocessing with %s, expected what this library knows; update bigvit-edge",
         show(key).c_str());
  }
}

// As Preprocessing.__post_init__ has it: numbers that no picture has cannot be obeyed.
void check(const Preprocessing& how) {
  const double white = 255 * how.scale, most = white * 1.001;
  bool possible = how.size > 0 && std::isfinite(white) && white > 0;
  for (const double mean : how.mean) possible = possible && mean >= 0 && mean <= most;
  for (const double std : how.std) possible = possible && std > 0 && std <= most;
  possible = possible && (how.resize_to == 0 || how.crop != Crop::kLargestSquare);
  if (!possible) {
    fail(
        "preprocessing of size %u, scale %g, mean %g, %g, %g and std %g, %g, %g, expected a size, "
        "and of scale, mean and std those of a picture; %s",
        how.size, how.scale, how.mean[0], how.mean[1], how.mean[2], how.std[0], how.std[1],
        how.std[2], kExportAgain);
  }
  if (how.is_nhwc && !how.takes_pixels) {
    fail("preprocessing with layout 'NHWC' for dtype 'float32', expected 'NCHW'; %s", kExportAgain);
  }
}

Preprocessing read_preprocessing(const std::string& text) {
  Preprocessing how;
  json::Reader reader("preprocessing", text);
  reader.read_object([&](const std::string& key) { read_field(key, reader, how); });
  reader.finish();
  check(how);
  return how;
}

std::vector<std::string> read_labels(const std::string& text) {
  std::vector<std::string> labels;
  json::Reader reader("labels", text);
  if (reader.read_null()) return labels;
  reader.read_list([&] { labels.push_back(reader.read_string()); });
  reader.finish();
  return labels;
}

}  // namespace

Metadata read_metadata(std::string_view text) {
  Metadata metadata;
  std::string preprocessing, labels = "null";
  json::Reader reader("metadata", text);
  reader.read_object([&](const std::string& key) {
    std::string value = reader.read_string();
    if (key == "preprocessing") preprocessing = std::move(value);
    if (key == "labels") labels = std::move(value);
  });
  try {
    if (preprocessing.empty()) {
      fail(
          "a program that says nothing of pictures, expected 'preprocessing' in its metadata; "
          "prepare the image yourself, or %s",
          kExportAgain);
    }
    metadata.preprocessing = read_preprocessing(preprocessing);
  } catch (const Error& e) {
    metadata.fault = e.what();
  }
  try {
    metadata.labels = read_labels(labels);
  } catch (const Error&) {
  }
  return metadata;
}

}  // namespace bve
