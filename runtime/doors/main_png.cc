// By libpng's simplified interface.
#include <png.h>

#include <algorithm>
#include <string_view>

#include "main_arguments.h"
#include "main_picture.h"

namespace bve {
namespace {

struct Reader {
  png_image image{};

  Reader() { image.version = PNG_IMAGE_VERSION; }
  ~Reader() { png_image_free(&image); }

  void check(int is_well) const {
    if (is_well && !PNG_IMAGE_FAILED(image)) return;
    throw UserError("a damaged PNG (" + std::string(image.message) +
                    "), expected a whole one; check it");
  }
};

// A PNG of its pixels alone. libpng would change them as gAMA, cHRM and iCCP say; Pillow does not.
Bytes strip(const Bytes& file) {
  Bytes stripped(file.begin(), file.begin() + 8);
  stripped.reserve(file.size());
  for (size_t at = 8; file.size() - at >= 12;) {
    const std::string_view kind(reinterpret_cast<const char*>(&file[at + 4]), 4);
    const size_t length =
        size_t{file[at]} << 24 | file[at + 1] << 16 | file[at + 2] << 8 | file[at + 3];
    const auto begin = file.begin() + at,
               end = begin + 12 + std::min(length, file.size() - at - 12);
    const bool is_critical = (kind[0] & 32) == 0;
    if (is_critical || kind == "tRNS") stripped.insert(stripped.end(), begin, end);
    at = end - file.begin();
  }
  return stripped;
}

}  // namespace

DecodedPicture decode_png(const Bytes& file) {
  const Bytes pixels = strip(file);
  Reader reader;
  png_image& image = reader.image;
  reader.check(png_image_begin_read_from_memory(&image, pixels.data(), pixels.size()));
  check_size(image.width, image.height);
  if (image.format & PNG_FORMAT_FLAG_LINEAR)
    throw UserError("a PNG of 16 bits a channel, expected 8; save it with 8");
  const bool has_alpha = image.format & PNG_FORMAT_FLAG_ALPHA;
  image.format = has_alpha ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB;
  DecodedPicture picture{image.width, image.height, has_alpha ? 4u : 3u, {}, {}};
  picture.pixels.resize(PNG_IMAGE_SIZE(image));
  reader.check(png_image_finish_read(&image, nullptr, picture.pixels.data(), 0, nullptr));
  if (image.warning_or_error)
    picture.notes.push_back("its decoder says: " + std::string(image.message));
  return picture;
}

}  // namespace bve
