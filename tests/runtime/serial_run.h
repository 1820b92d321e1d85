// An entry run tile by tile on one thread, in the order that threads could bring about.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "schedule.h"

namespace bve::test {

// The tiles that could be taken next, of what is left of each step.
class Tiles {
 public:
  explicit Tiles(const Schedule& schedule) : schedule_(schedule) {
    for (const Step& step : schedule.steps) done_.emplace_back(step.tiles, false);
  }

  struct Tile {
    uint32_t step, tile;
  };
  std::vector<Tile> list_ready() const {
    std::vector<Tile> ready;
    for (uint32_t step = 0; step < schedule_.steps.size(); step++) {
      for (uint32_t tile = 0; tile < schedule_.steps[step].tiles; tile++) {
        if (can_take(step, tile)) ready.push_back({step, tile});
      }
    }
    return ready;
  }
  bool can_take(uint32_t step, uint32_t tile) const {
    return tile < schedule_.steps[step].tiles && !done_[step][tile] && is_ready(step, tile);
  }
  void finish(uint32_t step, Range tiles) {
    for (size_t tile = tiles.begin; tile < tiles.end; tile++) done_[step][tile] = true;
  }

 private:
  bool is_ready(uint32_t number, uint32_t tile) const {
    const Step& step = schedule_.steps[number];
    for (uint32_t i = step.first_need; i < step.first_need + step.needs; i++) {
      const Need& need = schedule_.needs[i];
      const std::vector<bool>& other = done_[need.step];
      if (need.by_tile ? !other[tile] : std::count(other.begin(), other.end(), false) > 0)
        return false;
    }
    return true;
  }

  const Schedule& schedule_;
  std::vector<std::vector<bool>> done_;
};

// Logits; image is [3, size, size]. order 0: step by step, in memory of exactly the size that each
// buffer and each scratch asks for, so that the address sanitizer sees one byte beyond; what no op
// has written is NaN, or -1 in a row list. Else: by threads' steps, in one of the orders that their
// needs allow, in the arena, where buffers take over each other's memory.
inline std::vector<float> run_serially(const Program& program, const Entry& entry, uint32_t isa,
                                       uint32_t order, const std::vector<float>& image) {
  const Kernels kernels(isa, bve_any_core);
  Weights weights(program);
  weights.prepare(kernels.int8);
  Frame frame{program, weights, program.buffers(entry), choose_tile_rows(&kernels, 1), {}};
  const Arena arena = plan_arena(program, entry);
  const Schedule schedule = plan_schedule(frame, entry, arena, kernels, order != 0);

  std::vector<std::vector<std::byte>> memory(1);
  if (order != 0) memory[0].resize(arena.bytes + 64, std::byte{0xff});
  const auto aligned = (reinterpret_cast<uintptr_t>(memory[0].data()) + 63) / 64 * 64;
  memory.reserve(frame.shapes.count + 1);
  for (uint32_t i = 0; i < frame.shapes.count; i++) {
    if (order != 0 && i >= 2) {
      frame.buffers.push_back(reinterpret_cast<std::byte*>(aligned + arena.offsets[i]));
      continue;
    }
    const Buffer& shape = frame.shapes[i];
    memory.emplace_back(size_t{4} * shape.rows * shape.columns, std::byte{0xff});
    frame.buffers.push_back(memory.back().data());
  }
  std::memcpy(frame.buffers[0], image.data(), image.size() * sizeof(float));

  const Memory packed = allocate(schedule.packed_bytes);
  const auto compute = [&](const Step& step, Range tiles) {
    const Op& op = program.ops(entry)[step.op];
    const Memory scratch = allocate(measure_scratch(frame, op, kernels));
    execute(frame, op, step.phase, tiles, kernels, scratch.get(), packed.get() + step.packed);
  };
  if (order == 0) {
    for (const Step& step : schedule.steps) compute(step, {0, step.tiles});
  } else {
    std::minstd_rand random(order);
    Tiles tiles(schedule);
    for (auto ready = tiles.list_ready(); !ready.empty(); ready = tiles.list_ready()) {
      const auto [step, first] = ready[random() % ready.size()];
      uint32_t end = first + 1;  // a piece of some tiles, as threads take them
      while (random() % 2 && tiles.can_take(step, end)) end++;
      compute(schedule.steps[step], {first, end});
      tiles.finish(step, {first, end});
    }
  }
  const float* const logits = frame.floats(1);
  return {logits, logits + entry.classes};
}

}  // namespace bve::test
