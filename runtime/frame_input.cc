#include "frame_input.h"

#include "arena.h"
#include "error.h"
#include "operations.h"

namespace bve {
namespace {

bool names(const Op& op, uint32_t buffer) {
  for (const Operand& operand : list_operands(op)) {
    if (operand.buffer == buffer) return true;
  }
  return false;
}

}  // namespace

FrameInput::FrameInput(const Program& program, const Entry& entry, const Preprocessing& how,
                       uint32_t isa)
    : reader_(how, isa), patch_(how.size), pixels_(size_t{3} * how.size * how.size) {
  const uint32_t size = program.image_size(entry);
  if (size == 0) fail("a frame for a program that takes no image alone", "one that does");
  if (how.size != size) {
    fail(compose("preprocessing of size %u for images of size %u", how.size, size), "one size",
         "export it again");
  }
  const std::array<Levels, 3> levels = tabulate(how);
  for (size_t c = 0; c < 3; ++c) {
    sources_[c] = how.is_bgr ? 2 - c : c;
    levels_[c] = levels[sources_[c]];
  }
  const Records<Op> ops = program.ops(entry);
  const uint32_t image = program.ports(entry)[0].buffer;
  bool is_alone = ops[0].kind == OpKind::kPatches;
  for (uint32_t i = 1; i < ops.count; ++i) is_alone = is_alone && !names(ops[i], image);
  const auto args = get<PatchesArgs>(ops[0]);
  const std::vector<bool> ports = list_port_buffers(program, entry);
  if (is_alone && !ports[args.dst]) {  // a port is the caller's
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
