// When each op of an entry can begin: what must be done before it, from the data that it touches.
#pragma once

#include <cstdint>
#include <vector>

#include "arena.h"
#include "execution.h"

namespace bve {

inline constexpr uint32_t kMostTiles = (1 << 20) - 1;   // of a step
inline constexpr uint32_t kMostRounds = (1 << 24) - 1;  // then they begin again at 1

// Another step that must be done before: whole, or tile i before tile i.
struct Need {
  uint32_t step;
  bool by_tile;
};

// A phase of an op, cut in tiles.
struct Step {
  uint32_t op;  // of the entry's
  Phase phase;
  uint8_t lane;
  uint32_t tiles, grain;  // grain: the fewest that are worth a thread's while
  uint32_t first_tile;    // of those that others may wait for by tile; kNone: none may
  uint64_t work;          // of a tile, in multiply-accumulates or what takes as long
  uint32_t first_need, needs;
  size_t packed;  // where its own of the packed bytes begin
};

struct Schedule {
  std::vector<Step> steps;  // in an order in which they may be done one after the other
  std::vector<Need> needs;
  uint32_t tiles = 0;  // that others may wait for by tile
  size_t packed_bytes = 0;
};

// frame needs no buffers. shared: several threads will take the steps' tiles; else one thread does
// the steps in their order, attention head by head.
Schedule plan_schedule(const Frame& frame, const Entry& entry, const Arena& arena,
                       const Kernels& kernels, bool shared);

}  // namespace bve
