// Nanoseconds of a clock; the one that never goes back if none is named.
#pragma once

#include <cstdint>
#include <ctime>

namespace bve {

#if defined(__APPLE__)  // where CLOCK_MONOTONIC counts in microseconds
constexpr clockid_t kSteadyClock = CLOCK_UPTIME_RAW;
#else
constexpr clockid_t kSteadyClock = CLOCK_MONOTONIC;
#endif

inline uint64_t read_clock_ns(clockid_t clock = kSteadyClock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

}  // namespace bve
