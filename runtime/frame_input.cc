#include "frame_input.h"

#include "arena.h"
#include "error.h"

namespace bve {
namespace {

bool names_image(const Op& op) {
  const Operands operands = list_operands(op);
  for (size_t i = 0; i < operands.count; ++i) {
    if (operands.buffers[i] == 0) return true;
  }
  return false;
}

}  // namespace

FrameInput::FrameInput(const Program& program, const Entry& entry, const Preprocessing& how,
                       uint32_t isa)
    : reader_(how, isa), patch_(how.size), pixels_(size_t{3} * how.size * how.size) {
  if (how.size != entry.image_size) {
    fail("preprocessing of size %u for images of size %u, expected one size; export it again",
         how.size, entry.image_size);
  }
  const std::array<Levels, 3> levels = tabulate(how);
  for (size_t c = 0; c < 3; ++c) {
    sources_[c] = how.is_bgr ? 2 - c : c;
    levels_[c] = levels[sources_[c]];
  }
  const Records<Op> ops = program.ops(entry);
  bool is_alone = ops[0].kind == OpKind::kPatches;
  for (uint32_t i = 1; i < ops.count; ++i) is_alone = is_alone && !names_image(ops[i]);
  const auto args = get<PatchesArgs>(ops[0]);
  if (is_alone && args.dst != 1) {  // 1: the logits, which are the caller's
    patches_ = args.dst;
    patch_ = args.patch;
  } else {
    image_ = allocate(pixels_.size() * sizeof(float));
  }
}

void FrameInput::write(const bve_frame& frame, float* dst) {
  reader_.read(frame, pixels_.data());
  write_pixels(pixels_.data(), false, dst);
}

void FrameInput::write_pixels(const uint8_t* pixels, bool is_planar, float* dst) const {
  const size_t size = reader_.size(), side = size / patch_;
  const size_t step = is_planar ? 1 : 3, channel = is_planar ? size * size : 1;
  for (size_t i = 0; i < side * side; ++i) {
    const uint8_t* const corner = pixels + (i / side * size + i % side) * patch_ * step;
    for (size_t c = 0; c < 3; ++c) {
      const Levels& levels = levels_[c];
      for (size_t y = 0; y < patch_; ++y) {
        const uint8_t* const row = corner + y * size * step + sources_[c] * channel;
        for (size_t x = 0; x < patch_; ++x) *dst++ = levels[row[x * step]];
      }
    }
  }
}

}  // namespace bve
