// Nanoseconds of a clock; the one that never goes back if none is named.
#pragma once

#include <cstdint>
#include <ctime>

namespace bve {

inline uint64_t read_clock_ns(clockid_t clock = CLOCK_MONOTONIC) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

}  // namespace bve
