// Which steps wait for which, in a big.LITTLE layer and where buffers share memory.
#include <algorithm>
#include <set>
#include <string>

#include "doctest.h"
#include "schedule.h"
#include "tiny_program.h"

namespace bve::test {
namespace {

// A program's last entry, planned for several threads.
struct Planned {
  Bytes bytes;
  std::unique_ptr<Program> program;
  Kernels kernels{bve_detect_isa(), bve_any_core};
  Weights weights;
  const Entry& entry;
  Frame frame;
  Schedule schedule;

  explicit Planned(Bytes made, bool shared = true)
      : bytes(std::move(made)),
        program(Program::open(bytes.data(), bytes.count())),
        weights(*program),
        entry(program->entries()[program->entries().count - 1]),
        frame{*program, weights, program->buffers(entry), choose_tile_rows(&kernels, 1), {}},
        schedule(plan_schedule(frame, entry, plan_arena(*program, entry), kernels, shared)) {}

  // The last step of an op.
  uint32_t find(const std::string& name) const {
    for (uint32_t i = schedule.steps.size(); i-- > 0;) {
      if (program->text(program->ops(entry)[schedule.steps[i].op].name) == name) return i;
    }
    FAIL(name);
    return 0;
  }
  // Everything that a step waits for, by way of others too.
  std::set<uint32_t> list_before(uint32_t step) const {
    std::set<uint32_t> before;
    const Step& found = schedule.steps[step];
    for (uint32_t i = found.first_need; i < found.first_need + found.needs; i++) {
      before.insert(schedule.needs[i].step);
      before.merge(list_before(schedule.needs[i].step));
    }
    return before;
  }
  bool waits(const std::string& later, const std::string& earlier) const {
    return list_before(find(later)).count(find(earlier)) > 0;
  }
  // How the one names the other among its needs: "tile", "whole" or "".
  std::string describe(const std::string& later, const std::string& earlier) const {
    const Step& step = schedule.steps[find(later)];
    for (uint32_t i = step.first_need; i < step.first_need + step.needs; i++) {
      if (schedule.needs[i].step == find(earlier))
        return schedule.needs[i].by_tile ? "tile" : "whole";
    }
    return "";
  }
};

TEST_CASE("steps wait for the data they touch, and for nothing else") {
  const Planned planned(make_tiny_program({bve_f32p}, 14));  // 50 tokens, 25 of them selected
  CHECK(planned.waits("q", "route"));
  CHECK(planned.waits("attention", "keys_values"));
  CHECK(planned.waits("head", "mlp"));
  CHECK(planned.waits("little.mlp", "down"));
  CHECK_FALSE(planned.waits("little.qkv", "route"));  // reads what the router reads
  CHECK_FALSE(planned.waits("little.attention", "attention"));
  CHECK_FALSE(planned.waits("little.mlp", "mlp"));
  CHECK_FALSE(planned.waits("keys_values", "kv"));  // other rows of one buffer
  CHECK_FALSE(planned.waits("kv", "q"));            // other columns
}

TEST_CASE("rows wait for the same rows where tiles are alike") {
  const Planned planned(make_tiny_program({bve_f32p}, 14));
  CHECK(planned.describe("embed", "patches") == "tile");
  CHECK(planned.describe("shrink", "embed") == "whole");  // 49 rows, from the second on, and 50
  CHECK(planned.describe("up", "project") == "tile");     // of one list
  CHECK(planned.describe("mlp", "up") == "tile");
  CHECK(planned.describe("down", "up") == "tile");
  CHECK(planned.describe("up", "little.project") == "whole");  // a list, and all rows
  CHECK(planned.describe("q", "route") == "whole");
}

TEST_CASE("one thread alone does ops whole") {
  const Planned planned(make_tiny_program({bve_f32p}, 14), false);
  CHECK(planned.schedule.steps.size() == planned.program->ops(planned.entry).count);
  CHECK(planned.schedule.packed_bytes == 0);
}

// Buffers [4, 4] that follow one another: each is dead when the one behind its successor begins.
Bytes make_chain(size_t count) {
  ProgramBuilder builder;
  const uint32_t weight = builder.add_linear("w", bve_f32p, 4, 4, std::vector<float>(16, 1), {});
  const uint32_t start = builder.add_matrix("start", 4, 4, std::vector<float>(16, 1));
  builder.start_entry("main", 0, 2, 4);
  uint32_t last = builder.add_buffer(4, 4);
  builder.add_op("start", 0, 0, FillArgs{start, last});
  for (uint16_t i = 1; i < count; i++) {
    const uint32_t next = i + 1u == count ? 1 : builder.add_buffer(4, 4);
    builder.add_op("op" + std::to_string(i), i, 0,
                   LinearArgs{last, kNone, i + 1u == count ? 1u : 4u, bve_as_is, kNone, kNone,
                              weight, 0, 4, next, 0, 0, kNone, kNone, 0});
    last = next;
  }
  return builder.build();
}

TEST_CASE("who takes over a buffer's memory waits for those that used it") {
  const Planned planned(make_chain(6));
  const Arena arena = plan_arena(*planned.program, planned.entry);
  CHECK(arena.offsets[2] == arena.offsets[4]);
  for (int i = 1; i < 5; i++)
    CHECK(planned.waits("op" + std::to_string(i + 1), "op" + std::to_string(i)));
}

// Rows of one buffer, written one by one where another buffer, still being read, lies.
TEST_CASE("every step on a buffer waits for those that used its memory before") {
  ProgramBuilder builder;
  const uint32_t weight =
      builder.add_linear("w", bve_f32p, 64, 64, std::vector<float>(4096, 1), {});
  const uint32_t wide = builder.add_matrix("wide", 64, 64, std::vector<float>(4096, 1));
  const uint32_t row = builder.add_matrix("row", 1, 64, std::vector<float>(64, 1));
  builder.start_entry("main", 0, 2, 64);
  const uint32_t x = builder.add_buffer(64, 64), s = builder.add_buffer(1, 64);
  const uint32_t p = builder.add_buffer(64, 64), y = builder.add_buffer(64, 64);
  const auto linear = [&](uint32_t src, uint32_t rows, uint32_t dst, uint32_t first_row) {
    return LinearArgs{src, kNone, rows,      bve_as_is, kNone, kNone, weight, 0,
                      64,  dst,   first_row, 0,         kNone, kNone, 0};
  };
  builder.add_op("x", 0, 0, FillArgs{wide, x});
  builder.add_op("s", 0, 0, FillArgs{row, s});
  builder.add_op("read x", 1, 0, linear(x, 64, p, 0));
  builder.add_op("y 0", 2, 0, linear(s, 1, y, 0));
  builder.add_op("y 1", 2, 0, linear(s, 1, y, 1));
  builder.add_op("read p", 3, 0, linear(p, 1, 1, 0));
  builder.add_op("read y", 3, 0, linear(y, 1, 1, 0));
  const Planned planned(builder.build());
  const Arena arena = plan_arena(*planned.program, planned.entry);
  REQUIRE(arena.offsets[x] == arena.offsets[y]);
  CHECK(planned.waits("y 0", "read x"));
  CHECK(planned.waits("y 1", "read x"));
}

TEST_CASE("who rewrites a list waits for all that read it, one of them twice") {
  ProgramBuilder builder;
  const uint32_t weight = builder.add_linear("w", bve_f32p, 4, 4, std::vector<float>(16, 1), {});
  const uint32_t start = builder.add_matrix("start", 4, 4, std::vector<float>(16, 1));
  builder.start_entry("main", 0, 2, 4);
  const uint32_t source = builder.add_buffer(4, 4), list = builder.add_list(1);
  builder.add_op("start", 0, 0, FillArgs{start, source});
  builder.add_op("list", 0, 0, ListArgs{list, 2});
  const auto linear = [&](uint32_t dst, uint32_t dst_rows) {
    return LinearArgs{source, list, 1, bve_as_is, kNone,    kNone, weight, 0,
                      4,      dst,  0, 0,         dst_rows, kNone, 0};
  };
  for (int i = 0; i < 14; i++)
    builder.add_op("read " + std::to_string(i), 1, 0, linear(builder.add_buffer(1, 4), kNone));
  builder.add_op("twice", 2, 0, linear(builder.add_buffer(4, 4), list));
  builder.add_op("again", 3, 0, ListArgs{list, 1});
  builder.add_op("last", 4, 0, linear(1, kNone));
  const Planned planned(builder.build());
  CHECK(planned.waits("again", "twice"));
  for (int i = 0; i < 14; i++) CHECK(planned.waits("again", "read " + std::to_string(i)));
}

TEST_CASE("what would take too much memory is not shared by threads") {
  ProgramBuilder builder;
  const uint32_t start = builder.add_matrix("start", 8192, 384, std::vector<float>(8192 * 384, 1));
  builder.start_entry("main", 0, 2, 128);
  const uint32_t qkv = builder.add_buffer(8192, 384);
  const uint32_t mixed = builder.add_buffer(1, 128);
  builder.add_op("start", 0, 0, FillArgs{start, qkv});
  builder.add_op("narrow", 1, 0, AttentionArgs{qkv, 1, 128, mixed, bve_f32});  // padded 16 times
  builder.add_op("wide", 2, 0, AttentionArgs{qkv, 1, 2, 1, bve_f32});
  const Planned planned(builder.build());
  CHECK(planned.schedule.steps[planned.find("narrow")].phase == Phase::kWhole);
  CHECK(planned.schedule.steps[planned.find("wide")].phase == Phase::kAttend);
  CHECK(planned.schedule.packed_bytes <= size_t{64} << 20);
}

TEST_CASE("a large buffer over many small ones is planned at once") {
  ProgramBuilder builder;
  constexpr uint32_t kMany = 20'000;
  const uint32_t start = builder.add_matrix("start", 1, 16, std::vector<float>(16, 1));
  const uint32_t large = builder.add_matrix("large", kMany, 16, std::vector<float>(16 * kMany, 1));
  const uint32_t weight = builder.add_linear("w", bve_f32p, 4, 16, std::vector<float>(64, 1), {});
  builder.start_entry("main", 0, 2, 4);
  for (uint32_t i = 0; i < kMany; i++)
    builder.add_op("small", 0, 0, FillArgs{start, builder.add_buffer(1, 16)});
  const uint32_t over = builder.add_buffer(kMany, 16);
  builder.add_op("over", 1, 0, FillArgs{large, over});
  builder.add_op(
      "head", 2, 0,
      LinearArgs{over, kNone, 1, bve_as_is, kNone, kNone, weight, 0, 4, 1, 0, 0, kNone, kNone, 0});
  const Planned planned(builder.build());
  CHECK(planned.schedule.steps[planned.find("over")].needs == kMany);
}

TEST_CASE("many that touch one buffer are planned with few needs each") {
  ProgramBuilder builder;
  constexpr uint32_t kMany = 20'000;
  const uint32_t weight = builder.add_linear("w", bve_f32p, 4, 4, std::vector<float>(16, 1), {});
  const uint32_t start = builder.add_matrix("start", 4, 4, std::vector<float>(16, 1));
  builder.start_entry("main", 0, 2, 4);
  const uint32_t source = builder.add_buffer(4, 4);
  builder.add_op("start", 0, 0, FillArgs{start, source});
  for (uint32_t i = 0; i < kMany; i++) {
    builder.add_op("read", 1, 0,
                   LinearArgs{source, kNone, 1, bve_as_is, kNone, kNone, weight, 0, 4,
                              builder.add_buffer(1, 4), 0, 0, kNone, kNone, 0});
  }
  builder.add_op("again", 2, 0, FillArgs{start, source});
  builder.add_op("last", 3, 0,
                 LinearArgs{source, kNone, 1, bve_as_is, kNone, kNone, weight, 0, 4, 1, 0, 0, kNone,
                            kNone, 0});
  const Planned planned(builder.build());
  CHECK(planned.schedule.needs.size() < 8 * kMany);
  const uint32_t again = planned.find("again");
  std::vector<bool> before(again + 1);
  before[again] = true;
  for (uint32_t i = again + 1; i-- > 0;) {
    if (!before[i]) continue;
    const Step& step = planned.schedule.steps[i];
    for (uint32_t n = step.first_need; n < step.first_need + step.needs; n++)
      before[planned.schedule.needs[n].step] = true;
  }
  CHECK(std::count(before.begin(), before.end(), true) == kMany + 2);  // all reads, and itself
}

}  // namespace
}  // namespace bve::test
