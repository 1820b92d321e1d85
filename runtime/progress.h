// How far a run has come: which tiles are taken, and which are done. Any number of threads take
// tiles; one that comes late, or holds none, keeps nobody waiting.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "bell.h"
#include "schedule.h"

namespace bve {

// What one thread knows of a run, and whose tiles it takes.
struct Worker {
  uint32_t round;
  // Of what is left of a step it takes this share: large pieces first, that no weights are read
  // more often than need be, small ones at the end, that all threads end together.
  double share;
  bool from_end;       // of a step: so two threads find in their caches what they wrote themselves
  uint8_t lanes;       // bit 0: the big one's, bit 1: the LITTLE one's
  uint8_t others = 0;  // where none of those are ready
  uint32_t first = 0;  // all steps before this one are taken
};

struct Taken {
  uint32_t step = 0;
  Range tiles{0, 0};
};

class Progress {
 public:
  explicit Progress(const Schedule& schedule);  // which outlives it

  // Everything is to be done again, in a round of another number. No tile may be taken meanwhile.
  void begin(uint32_t round);

  // Takes tiles that can be computed now. kNotYet: others must be done first; kNothing: all are
  // taken, or the round is over.
  enum class Found { kTiles, kNotYet, kNothing };
  Found take(Worker& worker, Taken& taken);
  void finish(const Worker& worker, const Taken& taken);
  bool is_done(const Worker& worker) const;

  // Rung when tiles are done.
  Bell& bell() { return bell_; }

 private:
  // A word of a step's counters: the round in the highest 24 bits, for a thread that is late, with
  // a round that is over, must change nothing; then two numbers of tiles.
  struct Word {
    uint32_t round, begin, end;

    static constexpr int kBits = 20;
    uint64_t pack() const { return uint64_t{round} << 2 * kBits | uint64_t{begin} << kBits | end; }
    static Word unpack(uint64_t word) {
      constexpr uint64_t kMask = (1 << kBits) - 1;
      return {static_cast<uint32_t>(word >> 2 * kBits),
              static_cast<uint32_t>(word >> kBits & kMask), static_cast<uint32_t>(word & kMask)};
    }
  };
  static_assert(kMostTiles < 1 << Word::kBits && kMostRounds < 1 << 24);

  struct alignas(64) Counts {
    std::atomic<uint64_t> left{0};  // tiles [begin, end) that nobody has taken
    std::atomic<uint64_t> done{0};  // in `end`: how many
  };

  Found look(Worker& worker, uint8_t lanes, Taken& taken);
  Range trim(const Step& step, Range tiles, const Worker& worker) const;

  const Schedule& schedule_;
  std::unique_ptr<Counts[]> counts_;                // by step
  std::unique_ptr<std::atomic<uint32_t>[]> tiles_;  // by tile: the round it was last done in
  std::atomic<uint64_t> steps_done_{0};
  Bell bell_;
};

}  // namespace bve
