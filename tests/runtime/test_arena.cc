// The arena's plan against its own rule, pair by pair.
#include <algorithm>
#include <memory>
#include <random>
#include <string>
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

size_t count_bytes(const Buffer& buffer) { return size_t{4} * buffer.rows * buffer.columns; }

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

void check_apart(const Program& program, const Entry& entry, const Arena& arena) {
  const std::vector<Use> uses = list_uses(program, entry);
  const Records<Buffer> buffers = program.buffers(entry);
  for (uint32_t a = 2; a < buffers.count; a++) {
    CHECK(arena.offsets[a] % 64 == 0);
    CHECK(arena.offsets[a] + count_bytes(buffers[a]) <= arena.bytes);
    for (uint32_t b = a + 1; b < buffers.count; b++) {
      const bool together = uses[a].first <= uses[b].last && uses[b].first <= uses[a].last;
      const bool apart = arena.offsets[a] + count_bytes(buffers[a]) <= arena.offsets[b] ||
                         arena.offsets[b] + count_bytes(buffers[b]) <= arena.offsets[a];
      CHECK((apart || !together));
    }
  }
}

TEST_CASE("buffers that are alive together do not overlap, others do") {
  Bytes bytes = make_tiny_program({bve_f32p});
  const std::unique_ptr<Program> program = Program::open(bytes.data(), bytes.count());
  for (const Entry& entry : program->entries()) {
    const Arena arena = plan_arena(*program, entry);
    check_apart(*program, entry, arena);
    size_t total = 0;
    const Records<Buffer> buffers = program->buffers(entry);
    for (uint32_t b = 2; b < buffers.count; b++) total += count_bytes(buffers[b]);
    CHECK(arena.bytes < total);
  }
}

// Each buffer lives from one stage to another, both drawn at random.
TEST_CASE("many buffers of many sizes and lives take little more than the fullest stage") {
  constexpr uint32_t kStages = 40, kSizes = 9, kBuffers = 300;
  std::minstd_rand random(7);
  ProgramBuilder builder;
  uint32_t weights[kSizes];
  for (uint32_t i = 0; i < kSizes; i++) {
    weights[i] = builder.add_matrix("m" + std::to_string(i), i + 1, 16,
                                    std::vector<float>((i + 1) * 16, 0.0f));
  }
  builder.start_entry("random", 0, 4, 3);
  std::vector<FillArgs> fills[kStages];
  for (uint32_t i = 0; i < kBuffers; i++) {
    const uint32_t size = random() % kSizes, buffer = builder.add_buffer(size + 1, 16);
    const uint32_t first = random() % kStages, length = random() % 6;
    fills[first].push_back({weights[size], buffer});
    fills[std::min(first + length, kStages - 1)].push_back({weights[size], buffer});
  }
  for (uint32_t stage = 0; stage < kStages; stage++) {
    for (const FillArgs& fill : fills[stage]) builder.add_op("fill", stage, 0, fill);
  }
  const uint32_t first = builder.add_list(1);
  builder.add_op("first", kStages, 0, ListArgs{first, 0});
  builder.add_op("logits", kStages + 1, 0,
                 FillArgs{builder.add_matrix("logits", 1, 3, {0, 0, 0}), 1});
  Bytes bytes = builder.build();
  const std::unique_ptr<Program> program = Program::open(bytes.data(), bytes.count());
  const Entry& entry = program->entries()[0];
  const Arena arena = plan_arena(*program, entry);
  check_apart(*program, entry, arena);

  const std::vector<Use> uses = list_uses(*program, entry);
  size_t fullest = 0;
  for (uint32_t stage = 0; stage < kStages; stage++) {
    size_t alive = 0;
    for (uint32_t b = 2; b < uses.size(); b++) {
      const bool is_alive = uses[b].first <= stage && stage <= uses[b].last;
      if (is_alive) alive += (count_bytes(program->buffers(entry)[b]) + 63) / 64 * 64;
    }
    fullest = std::max(fullest, alive);
  }
  CHECK(arena.bytes >= fullest);
  CHECK(arena.bytes <= fullest + fullest / 4);
}

}  // namespace
}  // namespace bve::test
