// What each thread did in the last run, and when: written down where tracing is on, in memory that
// is allocated when it is switched on.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "bve.h"
#include "execution.h"

namespace bve {

class Trace {
 public:
  // most: events of a thread in a run. Throws without memory.
  Trace(const Frame& frame, Records<Op> ops, size_t threads, size_t most);

  // Forgets the last run. Nothing may be executed meanwhile.
  void begin();
  // thread has executed tiles of an op from `start_ns` until now.
  void note(const Frame& frame, size_t thread, uint32_t op, Range tiles, uint64_t start_ns);

  // All threads' nanoseconds of an op.
  uint64_t nanoseconds(size_t op) const { return times_[op]; }
  // Copies the first `count`, thread by thread in the order they happened, and returns how many
  // there are; lost: how many more there was no room for.
  size_t copy_events(bve_event* events, size_t count, size_t& lost) const;
  // The rows that an op of kind kRoute has chosen; of others none.
  const std::vector<int32_t>& rows(size_t op) const { return rows_[op]; }

 private:
  struct alignas(64) Log {
    std::unique_ptr<bve_event[]> events;
    size_t count = 0, lost = 0;
  };

  const Records<Op> ops_;
  const size_t most_;
  std::vector<Log> logs_;                           // by thread
  std::unique_ptr<std::atomic<uint64_t>[]> times_;  // by op
  std::vector<std::vector<int32_t>> rows_;          // by op
};

}  // namespace bve
