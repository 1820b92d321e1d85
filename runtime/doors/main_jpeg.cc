// By libjpeg-turbo, as Pillow does: to the same bits.
#include <turbojpeg.h>

#include <memory>

#include "main_arguments.h"
#include "main_picture.h"

namespace bve {
namespace {

[[noreturn]] void refuse(const std::string& fault) {
  throw UserError("a damaged JPEG (" + fault + "), expected a whole one; check it");
}

}  // namespace

DecodedPicture decode_jpeg(const Bytes& file) {
  const std::unique_ptr<void, int (*)(tjhandle)> decoder(tjInitDecompress(), tjDestroy);
  if (!decoder) throw std::bad_alloc();
  int width = 0, height = 0, sampling = 0, space = 0;  // a file of tables alone sets none of them
  if (tjDecompressHeader3(decoder.get(), file.data(), file.size(), &width, &height, &sampling,
                          &space) != 0) {
    refuse(tjGetErrorStr2(decoder.get()));
  }
  if (width < 1 || height < 1) refuse("no size");
  check_size(static_cast<uint64_t>(width), static_cast<uint64_t>(height));
  if (space == TJCS_CMYK || space == TJCS_YCCK)
    throw UserError("a JPEG of CMYK, expected colours of a screen; convert it to sRGB");
  DecodedPicture picture{static_cast<uint32_t>(width), static_cast<uint32_t>(height), 3, {}, {}};
  picture.pixels.resize(size_t{3} * picture.width * picture.height);
  if (tjDecompress2(decoder.get(), file.data(), file.size(), picture.pixels.data(), width, 0,
                    height, TJPF_RGB, TJFLAG_LIMITSCANS) != 0) {
    const std::string told = tjGetErrorStr2(decoder.get());
    const bool is_cut = told.find("Premature end") != told.npos;
    if (tjGetErrorCode(decoder.get()) != TJERR_WARNING || is_cut) refuse(told);
    picture.notes.push_back("its decoder says: " + told);
  }
  return picture;
}

}  // namespace bve
