#include "ops/ops.h"

namespace bve {

void PatchesOp::check(OpValidator& validator, const Args& args) {
  const Buffer& image = validator.buffer(args.image);
  validator.need(image.rows == 3 * image.columns, args.image, "a buffer [3 * size, size]");
  validator.need(image.columns % args.patch == 0, args.patch, "a divisor of %u, the image's size",
                 image.columns);
  const uint32_t side = image.columns / args.patch;
  validator.need_shape(args.dst, side * side, 3 * args.patch * args.patch);
}

Cut PatchesOp::cut(const Frame& frame, const Args& args, Phase) {
  return cut_rows(frame, frame.shapes[args.dst].rows, frame.columns(args.dst) * kWorkOfFloat);
}

void PatchesOp::touch(const Frame& frame, const Args& args, Phase, Accesses& accesses) {
  accesses.touch_rows(args.dst, true, kNone, 0, frame.shapes[args.dst].rows,
                      {0, frame.columns(args.dst)});
}

Space PatchesOp::measure(const Frame&, const Args&, const Kernels&) { return {}; }

void PatchesOp::execute(const Frame& frame, const Args& args, const Work& work) {
  const size_t size = frame.columns(args.image), side = size / args.patch;
  const size_t channels = frame.shapes[args.image].rows / size;
  const float* image = frame.floats(args.image);
  const Range patches = rows_of(work.tiles, frame.tile_rows, frame.shapes[args.dst].rows);
  for (size_t i = patches.begin; i < patches.end; i++) {
    float* row = frame.floats(args.dst) + i * frame.columns(args.dst);
    const float* corner = image + i / side * args.patch * size + i % side * args.patch;
    for (size_t c = 0; c < channels; c++) {
      for (size_t y = 0; y < args.patch; y++, row += args.patch) {
        std::memcpy(row, corner + (c * size + y) * size, args.patch * sizeof(float));
      }
    }
  }
}

Cost PatchesOp::measure_cost(const Frame& frame, const Args& args) {
  return {0, 2 * bytes_of(frame, args.dst)};
}

}  // namespace bve
