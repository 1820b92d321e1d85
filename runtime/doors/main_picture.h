// Pictures that bve-run is given: decoded, upright, of 8 bits a channel.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bve.h"

namespace bve {

using Bytes = std::vector<uint8_t>;

struct DecodedPicture {
  uint32_t width, height;
  uint32_t channels;  // 3: RGB, 4: RGBA
  Bytes pixels;
  std::vector<std::string> notes;  // what was assumed

  bve_picture describe() const {
    return {pixels.data(), size_t{width} * channels,           width,
            height,        channels == 4 ? BVE_RGBA : BVE_RGB, 0};
  }
};

// Of at most 400 MB; throws UserError.
Bytes read_bytes(const std::string& path);

// A PPM or PGM of 8 bits, and JPEG and PNG where bve-run was built with libjpeg-turbo and libpng.
// Throws UserError on what is damaged, of more than 100 megapixels by its header, or no picture.
DecodedPicture read_picture(const std::string& path);

// These throw UserError with what is wrong alone. check_size: before memory is asked for.
void check_size(uint64_t width, uint64_t height);
DecodedPicture decode_jpeg(const Bytes& file);
DecodedPicture decode_png(const Bytes& file);

// What a JPEG or PNG says of its pixels: EXIF's orientation, 1 to 8, 1 where it does not say, and
// whether it has a colour profile.
struct Remarks {
  uint32_t orientation = 1;
  bool has_profile = false;
};
Remarks read_jpeg_remarks(const Bytes& file);
Remarks read_png_remarks(const Bytes& file);

}  // namespace bve
