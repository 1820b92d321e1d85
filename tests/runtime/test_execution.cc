// Tiles of ops, each in the scratch that was measured for it.
#include <cmath>

#include "doctest.h"
#include "serial_run.h"
#include "tiny_program.h"

namespace bve::test {
namespace {

constexpr uint32_t kSize = 18, kPatch = 2, kTokens = 82, kDim = 48, kClasses = 37;

// More rows than any block, more columns than a panel, no count a multiple of either.
Bytes make_wide_program(bve_packing packing) {
  ProgramBuilder builder;
  Noise noise(3);
  const auto linear = [&](const char* name, uint32_t n, uint32_t k) {
    return builder.add_linear(name, packing, n, k, noise.take(size_t{n} * k), noise.take(n));
  };
  const uint32_t gain = builder.add_vector("gain", noise.take(kDim));
  const uint32_t offset = builder.add_vector("offset", noise.take(kDim));
  const uint32_t positions =
      builder.add_matrix("positions", kTokens, kDim, noise.take(size_t{kTokens} * kDim));
  const uint32_t embed = linear("embed", kDim, 12), qkv_weight = linear("qkv", 3 * kDim, kDim);
  const uint32_t fc1 = linear("fc1", 5 * kDim / 2, kDim), fc2 = linear("fc2", kDim, 5 * kDim / 2);
  const uint32_t head = linear("head", kClasses, kDim);

  builder.start_entry("main", 0, kSize, kClasses);
  const uint32_t patches = builder.add_buffer(kTokens - 1, 12);
  const uint32_t x = builder.add_buffer(kTokens, kDim), qkv = builder.add_buffer(kTokens, 3 * kDim);
  const uint32_t mixed = builder.add_buffer(kTokens, kDim), first = builder.add_list(1);
  builder.add_op("patches", 0, 0, PatchesArgs{0, patches, kPatch});
  builder.add_op("positions", 0, 0, FillArgs{positions, x});
  builder.add_op("embed", 1, 0,
                 LinearArgs{patches, kNone, kTokens - 1, bve_as_is, kNone, kNone, embed, 0, kDim, x,
                            1, 0, kNone, kNone, 1});
  builder.add_op("qkv", 2, 0,
                 LinearArgs{x, kNone, kTokens, bve_layernorm, gain, offset, qkv_weight, 0, 3 * kDim,
                            qkv, 0, 0, kNone, kNone, 0});
  const bve_type type = packing == bve_f32p ? bve_f32 : bve_qd8;
  builder.add_op("attention", 3, 0, AttentionArgs{qkv, kTokens, 3, mixed, type});
  builder.add_op("mlp", 4, 0, MlpArgs{mixed, kNone, kTokens, gain, offset, fc1, fc2, kNone});
  builder.add_op("first", 5, 0, ListArgs{first, kTokens - 1});
  builder.add_op("head", 6, 0,
                 LinearArgs{mixed, first, 1, bve_gelu, kNone, kNone, head, 0, kClasses, 1, 0, 0,
                            kNone, kNone, 0});
  return builder.build();
}

void check_orders(Bytes bytes) {
  const auto program = Program::open(bytes.data(), bytes.count());
  for (const Entry& entry : program->entries()) {
    const std::vector<float> image = Noise(9).take(size_t{3} * entry.image_size * entry.image_size);
    for (const uint32_t isa : {bve_detect_isa(), 0u}) {
      const std::vector<float> alone = run_serially(*program, entry, isa, 0, image);
      for (const float logit : alone) CHECK(std::isfinite(logit));
      for (uint32_t order = 1; order <= 12; order++)
        CHECK_MESSAGE(run_serially(*program, entry, isa, order, image) == alone, order);
    }
  }
}

TEST_CASE("tiles in any order that their needs allow give one answer, bit by bit") {
  for (const bve_packing packing : {bve_f32p, bve_qc8p4, bve_qc8p8}) {
    check_orders(make_tiny_program({packing}));
    check_orders(make_tiny_program({packing}, 14));
    check_orders(make_wide_program(packing));
  }
}

}  // namespace
}  // namespace bve::test
