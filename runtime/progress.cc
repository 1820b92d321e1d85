#include "progress.h"

#include <algorithm>
#include <cmath>

namespace bve {
namespace {

constexpr uint32_t kLookAhead = 16;  // steps beyond the first that is not taken

}  // namespace

Progress::Progress(const Schedule& schedule)
    : schedule_(schedule),
      counts_(new Counts[schedule.steps.size()]),
      tiles_(new std::atomic<uint32_t>[schedule.tiles]) {
  for (uint32_t i = 0; i < schedule.tiles; i++) tiles_[i] = 0;
}

void Progress::begin(uint32_t round) {
  steps_done_.store(Word{round, 0, 0}.pack(), std::memory_order_relaxed);
  for (size_t i = 0; i < schedule_.steps.size(); i++) {
    counts_[i].done.store(Word{round, 0, 0}.pack(), std::memory_order_relaxed);
    counts_[i].left.store(Word{round, 0, schedule_.steps[i].tiles}.pack(),
                          std::memory_order_release);
  }
}

Progress::Found Progress::take(Worker& worker, Taken& taken) {
  const Found found = look(worker, worker.lanes, taken);
  return found == Found::kNotYet && worker.others ? look(worker, worker.others, taken) : found;
}

Progress::Found Progress::look(Worker& worker, uint8_t lanes, Taken& taken) {
  const auto steps = static_cast<uint32_t>(schedule_.steps.size());
  for (uint32_t i = worker.first; i < std::min(steps, worker.first + kLookAhead); i++) {
    const Step& step = schedule_.steps[i];
    std::atomic<uint64_t>& counter = counts_[i].left;
    uint64_t word = counter.load(std::memory_order_acquire);
    while (true) {
      const Word left = Word::unpack(word);
      if (left.round != worker.round) return Found::kNothing;  // the run is over
      if (left.begin == left.end) {
        if (i == worker.first) worker.first++;
        break;
      }
      if (!(lanes >> step.lane & 1)) break;
      const uint32_t count = left.end - left.begin;
      const auto share = static_cast<uint32_t>(std::ceil(count * worker.share));
      const uint32_t most = std::min(count, std::max(step.grain, share));
      const Range tiles = trim(
          step,
          worker.from_end ? Range{left.end - most, left.end} : Range{left.begin, left.begin + most},
          worker);
      if (tiles.size() == 0) break;
      Word rest = left;
      (worker.from_end ? rest.end : rest.begin) =
          static_cast<uint32_t>(worker.from_end ? tiles.begin : tiles.end);
      if (counter.compare_exchange_weak(word, rest.pack(), std::memory_order_acq_rel,
                                        std::memory_order_acquire)) {
        taken = {i, tiles};
        return Found::kTiles;
      }
    }
  }
  return worker.first == steps ? Found::kNothing : Found::kNotYet;
}

// Of some tiles those next to the end that the worker takes from that have all that they need.
Range Progress::trim(const Step& step, Range tiles, const Worker& worker) const {
  for (uint32_t i = step.first_need; i < step.first_need + step.needs; i++) {
    const Need& need = schedule_.needs[i];
    const Step& other = schedule_.steps[need.step];
    if (counts_[need.step].done.load(std::memory_order_acquire) ==
        Word{worker.round, 0, other.tiles}.pack())
      continue;
    if (!need.by_tile) return {0, 0};
    const auto is_done = [&](size_t tile) {
      return tiles_[other.first_tile + tile].load(std::memory_order_acquire) == worker.round;
    };
    size_t ready = 0;
    while (ready < tiles.size() &&
           is_done(worker.from_end ? tiles.end - 1 - ready : tiles.begin + ready))
      ready++;
    if (worker.from_end) {
      tiles.begin = tiles.end - ready;
    } else {
      tiles.end = tiles.begin + ready;
    }
  }
  return tiles;
}

void Progress::finish(const Worker& worker, const Taken& taken) {
  const Step& step = schedule_.steps[taken.step];
  for (size_t tile = taken.tiles.begin; step.first_tile != kNone && tile < taken.tiles.end; tile++)
    tiles_[step.first_tile + tile].store(worker.round, std::memory_order_release);
  const uint64_t done =
      counts_[taken.step].done.fetch_add(taken.tiles.size(), std::memory_order_acq_rel);
  if (Word::unpack(done).end + taken.tiles.size() == step.tiles)
    steps_done_.fetch_add(1, std::memory_order_acq_rel);
  bell_.ring();
}

bool Progress::is_done(const Worker& worker) const {
  return steps_done_.load(std::memory_order_acquire) ==
         Word{worker.round, 0, 0}.pack() + schedule_.steps.size();
}

}  // namespace bve
