#include "main_picture.h"

#include <cctype>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "main_arguments.h"
#include "main_program.h"

namespace bve {
namespace {

constexpr size_t kMostBytes = 400'000'000;
constexpr uint64_t kMostPixels = 100'000'000, kMostSide = 1 << 24;

// A number of a PPM's header, behind white space and comments.
uint64_t read_number(const Bytes& file, size_t& at) {
  while (at < file.size() && (std::isspace(file[at]) || file[at] == '#')) {
    if (file[at] == '#') {
      while (at < file.size() && file[at] != '\n') ++at;
    } else {
      ++at;
    }
  }
  uint64_t value = 0;
  const size_t first = at;
  for (; at < file.size() && std::isdigit(file[at]) && value < kMostSide * 10; ++at)
    value = value * 10 + (file[at] - '0');
  if (at == first) throw UserError("a PPM whose header is damaged, expected its size; check it");
  return value;
}

// P6, or P5 of gray alone.
DecodedPicture decode_ppm(const Bytes& file) {
  size_t at = 2;
  const uint64_t width = read_number(file, at), height = read_number(file, at);
  const uint64_t most = read_number(file, at);
  check_size(width, height);
  if (most != 255)
    throw UserError("a PPM of levels up to " + std::to_string(most) +
                    ", expected 8 bits a channel, 255; save it so");
  const size_t channels = file[1] == '6' ? 3 : 1, bytes = width * height * channels;
  if (at == file.size() || !std::isspace(file[at]) || file.size() - at - 1 < bytes)
    throw UserError("a PPM that is cut short, expected " + std::to_string(bytes) +
                    " bytes of pixels; check it");
  DecodedPicture picture{static_cast<uint32_t>(width), static_cast<uint32_t>(height), 3, {}, {}};
  const auto* const from = file.data() + at + 1;
  if (channels == 3) {
    picture.pixels.assign(from, from + bytes);
  } else {
    picture.pixels.reserve(3 * bytes);
    for (size_t i = 0; i < bytes; ++i) picture.pixels.insert(picture.pixels.end(), 3, from[i]);
  }
  return picture;
}

// As EXIF's orientation wants it: from 5 on rows become columns; mirrored or not.
void turn(DecodedPicture& picture, uint32_t orientation) {
  if (orientation == 1) return;
  const bool transposes = orientation >= 5;
  const bool flips_x = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  const bool flips_y = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  const uint32_t width = transposes ? picture.height : picture.width;
  const uint32_t height = transposes ? picture.width : picture.height;
  Bytes turned(picture.pixels.size());
  uint8_t* to = turned.data();
  for (uint32_t y = 0; y < height; ++y) {
    for (uint32_t x = 0; x < width; ++x, to += picture.channels) {
      const uint32_t across = flips_x ? width - 1 - x : x, down = flips_y ? height - 1 - y : y;
      const size_t at = transposes ? size_t{across} * picture.width + down
                                   : size_t{down} * picture.width + across;
      std::memcpy(to, picture.pixels.data() + at * picture.channels, picture.channels);
    }
  }
  picture.pixels = std::move(turned);
  picture.width = width;
  picture.height = height;
}

[[maybe_unused]] DecodedPicture finish(DecodedPicture picture, const Remarks& remarks) {
  turn(picture, remarks.orientation);
  if (remarks.has_profile)
    picture.notes.push_back("its colour profile is not applied: it is taken as sRGB");
  return picture;
}

[[noreturn, maybe_unused]] void refuse(const char* format, const char* tool) {
  throw UserError(std::string("a ") + format +
                  ", which this bve-run was built without, expected a PPM; " + tool +
                  " PICTURE > picture.ppm, or bigvit-edge run");
}

DecodedPicture decode(const Bytes& file) {
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  const auto begins = [&](std::string_view magic) { return text.substr(0, magic.size()) == magic; };
  if (begins("P6") || begins("P5")) return decode_ppm(file);
  if (begins("\xff\xd8\xff")) {
#ifdef BVE_JPEG
    return finish(decode_jpeg(file), read_jpeg_remarks(file));
#else
    refuse("JPEG", "djpeg");
#endif
  }
  if (begins("\x89PNG\r\n\x1a\n")) {
#ifdef BVE_PNG
    return finish(decode_png(file), read_png_remarks(file));
#else
    refuse("PNG", "pngtopnm");
#endif
  }
  throw UserError("what begins as no picture, expected a PPM, JPEG or PNG; check it");
}

}  // namespace

void check_size(uint64_t width, uint64_t height) {
  if (width < 1 || height < 1 || width > kMostSide || height > kMostSide ||
      width * height > kMostPixels) {
    throw UserError(std::to_string(width) + " x " + std::to_string(height) +
                    " pixels, expected 1 to 100 megapixels; make it smaller");
  }
}

Bytes read_bytes(const std::string& path) {
  const File file(std::fopen(path.c_str(), "rb"), std::fclose);
  Bytes bytes;
  uint8_t block[1 << 16];
  while (file && bytes.size() <= kMostBytes) {
    const size_t count = std::fread(block, 1, sizeof block, file.get());
    if (count == 0) break;
    bytes.insert(bytes.end(), block, block + count);
  }
  if (!file || std::ferror(file.get()))
    throw UserError(path + ": " + std::strerror(errno) + ", expected a file; check the path");
  if (bytes.size() > kMostBytes)
    throw UserError(path + " of more than 400 MB, expected a picture; make it smaller");
  return bytes;
}

DecodedPicture read_picture(const std::string& path) {
  const Bytes file = read_bytes(path);
  try {
    return decode(file);
  } catch (const UserError& e) {
    throw UserError(path + ": " + e.what());
  }
}

}  // namespace bve
