// What stands beside the pixels in a JPEG or PNG. Whatever is damaged says nothing.
#include <cstring>
#include <string_view>

#include "main_picture.h"

namespace bve {
namespace {

constexpr uint32_t kOrientation = 0x0112, kShort = 3;  // EXIF's tag, TIFF's type

std::string_view view(const Bytes& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// A number of 2 or 4 bytes; 0 behind the end.
uint32_t read(std::string_view bytes, size_t at, size_t count, bool big_endian) {
  if (at > bytes.size() || count > bytes.size() - at) return 0;
  uint32_t value = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto byte = static_cast<uint8_t>(bytes[at + (big_endian ? i : count - 1 - i)]);
    value = value << 8 | byte;
  }
  return value;
}

bool begins(std::string_view bytes, std::string_view with) {
  return bytes.substr(0, with.size()) == with;
}

// Of a TIFF's first directory.
uint32_t read_orientation(std::string_view tiff) {
  const bool big = begins(tiff, "MM");
  if (!big && !begins(tiff, "II")) return 1;
  const size_t directory = read(tiff, 4, 4, big);
  const uint32_t count = read(tiff, directory, 2, big);
  for (uint32_t i = 0; i < count; ++i) {
    const size_t entry = directory + 2 + size_t{12} * i;
    if (entry > tiff.size()) break;
    if (read(tiff, entry, 2, big) != kOrientation) continue;
    const uint32_t value = read(tiff, entry + 8, 2, big);
    return read(tiff, entry + 2, 2, big) == kShort && value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}

}  // namespace

Remarks read_jpeg_remarks(const Bytes& file) {
  constexpr std::string_view kExif("Exif\0\0", 6), kProfile("ICC_PROFILE\0", 12);
  const std::string_view all = view(file);
  Remarks remarks;
  size_t at = 2;
  while (at + 4 <= all.size() && static_cast<uint8_t>(all[at]) == 0xff) {
    const auto marker = static_cast<uint8_t>(all[at + 1]);
    if (marker == 0xff) {  // filled up
      ++at;
      continue;
    }
    const uint32_t length = read(all, at + 2, 2, true);
    if (marker == 0xda || length < 2) break;  // pixels
    const std::string_view body = all.substr(at + 4, length - 2);
    if (marker == 0xe1 && begins(body, kExif))
      remarks.orientation = read_orientation(body.substr(kExif.size()));
    if (marker == 0xe2 && begins(body, kProfile)) remarks.has_profile = true;
    at += 2 + size_t{length};
  }
  return remarks;
}

Remarks read_png_remarks(const Bytes& file) {
  const std::string_view all = view(file);
  Remarks remarks;
  for (size_t at = 8; at + 12 <= all.size();) {
    const uint32_t length = read(all, at, 4, true);
    const std::string_view kind = all.substr(at + 4, 4);
    if (kind == "eXIf") remarks.orientation = read_orientation(all.substr(at + 8, length));
    if (kind == "iCCP") remarks.has_profile = true;
    at += size_t{12} + length;
  }
  return remarks;
}

}  // namespace bve
