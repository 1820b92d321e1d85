// By libpng's simplified interface.
#include <png.h>

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

}  // namespace

DecodedPicture decode_png(const Bytes& file) {
  Reader reader;
  png_image& image = reader.image;
  reader.check(png_image_begin_read_from_memory(&image, file.data(), file.size()));
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
