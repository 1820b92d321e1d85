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

TEST_CASE("many that touch one buffer are planned in time that grows with them") {
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
