// Files of any bytes as bve-run's pictures: a UserError in three parts, or as many pixels as it
// says.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "main_arguments.h"
#include "main_picture.h"

namespace bve {
namespace {

void require(bool is_so, const char* what) {
  if (is_so) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

void read(const uint8_t* data, size_t size) {
  const int file = memfd_create("picture", 0);
  require(file >= 0 && write(file, data, size) == static_cast<ssize_t>(size), "no memory");
  try {
    const DecodedPicture picture = read_picture("/proc/self/fd/" + std::to_string(file));
    require(picture.pixels.size() == size_t{picture.width} * picture.height * picture.channels,
            "other pixels than it says");
  } catch (const UserError& error) {
    const std::string text = error.what();
    require(text.find(", expected ") < text.rfind("; ") && text.rfind("; ") != text.npos,
            "an error of other parts");
  }
  close(file);
}

}  // namespace
}  // namespace bve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bve::read(data, size);
  return 0;
}
