// What a phase of an op touches, for the schedule to find who must wait for whom.
#pragma once

#include <cstdint>
#include <vector>

#include "execution.h"

namespace bve {

inline constexpr uint32_t kPacked = kNone - 1;  // stands for what kPack leaves to kAttend

// A rectangle of a buffer.
struct Access {
  uint32_t buffer;
  bool writes;
  Range rows, columns;
  // Of rows by tile: tile i touches the i-th tile_rows of `count` rows and no others. They are
  // `rows` in their order, or those that a list names, as it is after so many writes.
  size_t count = 0;  // 0: any tile may touch any row
  uint32_t list = kNone, version = 0;
};

// An op names what it touches in part; the rest of its buffers it touches wholly.
class Accesses {
 public:
  Accesses(const Frame& frame, const Cut& how) : frame_(frame), how_(how) {}

  // `count` rows, tile by tile where the op is cut so: those that a list names, or, where that is
  // kNone, those from `first` on.
  void touch_rows(uint32_t buffer, bool writes, uint32_t list, size_t first, size_t count,
                  Range columns);
  void touch(uint32_t buffer, bool writes, Range rows, Range columns);
  void touch_whole(uint32_t buffer, bool writes);
  void touch_packed(bool writes);
  // In this phase.
  void leave_out(uint32_t buffer) { named_.push_back(buffer); }
  // What of the op's buffers was neither touched nor left out.
  void touch_rest(const Op& op);

  const std::vector<Access>& list() const { return all_; }

 private:
  const Frame& frame_;
  const Cut how_;
  std::vector<Access> all_;
  std::vector<uint32_t> named_;
};

}  // namespace bve
