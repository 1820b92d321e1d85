// From 8-bit pixels to a model's input: the numbers that export/image.py makes of the same picture
// with Pillow, to the last bit.
#pragma once

#include <cstddef>

#include "bve.h"
#include "metadata.h"

namespace bve {

// As bve_prepare says; throws Error.
void prepare_picture(const Metadata& metadata, const bve_picture* picture, float* image,
                     size_t image_count);

}  // namespace bve
