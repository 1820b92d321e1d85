// The arena's plan against its own rule, pair by pair.
#include <algorithm>
#include <memory>
#include <vector>

#include "arena.h"
#include "doctest.h"
#include "tiny_program.h"

namespace bve::test {
namespace {

struct Use {
  uint32_t first = UINT32_MAX, last = 0;
};

std::vector<Use> list_uses(const Program& program, const Entry& entry) {
  std::vector<Use> uses(entry.buffers);
  for (const Op& op : program.ops(entry)) {
    const Operands operands = list_operands(op);
    for (size_t i = 0; i < operands.count; i++) {
      Use& use = uses[operands.buffers[i]];
      use.first = std::min<uint32_t>(use.first, op.stage);
      use.last = std::max<uint32_t>(use.last, op.stage);
    }
  }
  return uses;
}

std::vector<uint32_t> list_numbers(const Op& op) {
  const Operands operands = list_operands(op);
  return {operands.buffers, operands.buffers + operands.count};
}

// Arguments that are 100 or more are no buffers: weights and numbers.
TEST_CASE("an op's buffers are those that it reads or writes, and no other of its arguments") {
  using List = std::vector<uint32_t>;
  const auto list = [](const auto& args) { return list_numbers(make_op(args)); };
  CHECK(list(PatchesArgs{0, 2, 100}) == List{0, 2});
  CHECK(list(ListArgs{3, 100}) == List{3});
  CHECK(list(FillArgs{100, 4}) == List{4});
  CHECK(list(LinearArgs{2, 3, 100, 100, 100, 100, 100, 100, 100, 4, 100, 100, 5, 6, 100}) ==
        List{2, 3, 4, 5, 6});
  CHECK(list(LinearArgs{2, kNone, 100, 100, kNone, kNone, 100, 100, 100, 4, 100, 100, kNone, kNone,
                        100}) == List{2, 4});
  CHECK(list(AttentionArgs{2, 100, 100, 3, 100}) == List{2, 3});
  CHECK(list(RouteArgs{2, 100, 100, 100, 100, 100, 3, 4, 5}) == List{2, 3, 4, 5});
  CHECK(list(RouteArgs{2, 100, 100, 100, 100, 100, 3, kNone, 5}) == List{2, 3, 5});
  CHECK(list(MlpArgs{2, 3, 100, 100, 100, 100, 100, 4}) == List{2, 3, 4});
  CHECK(list(MlpArgs{2, kNone, 100, 100, 100, 100, 100, kNone}) == List{2});
}

TEST_CASE("buffers that are alive together do not overlap, others do") {
  Bytes bytes = make_tiny_program({bve_f32p});
  const std::unique_ptr<Program> program = Program::open(bytes.data(), bytes.count());
  for (const Entry& entry : program->entries()) {
    const Arena arena = plan_arena(*program, entry);
    const std::vector<Use> uses = list_uses(*program, entry);
    const Records<Buffer> buffers = program->buffers(entry);
    const auto bytes_of = [&](uint32_t b) {
      return size_t{4} * buffers[b].rows * buffers[b].columns;
    };
    size_t total = 0;
    for (uint32_t a = 2; a < buffers.count; a++) {
      total += bytes_of(a);
      CHECK(arena.offsets[a] % 64 == 0);
      CHECK(arena.offsets[a] + bytes_of(a) <= arena.bytes);
      for (uint32_t b = a + 1; b < buffers.count; b++) {
        const bool together = uses[a].first <= uses[b].last && uses[b].first <= uses[a].last;
        const bool apart = arena.offsets[a] + bytes_of(a) <= arena.offsets[b] ||
                           arena.offsets[b] + bytes_of(b) <= arena.offsets[a];
        CHECK((apart || !together));
      }
    }
    CHECK(arena.bytes < total);
  }
}

}  // namespace
}  // namespace bve::test
