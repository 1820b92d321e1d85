// What of a machine's cores this process may use.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "system_files.h"

namespace bve {

struct Limits {
  std::string group = {};                    // its cgroup, or Android's cpuset
  std::optional<std::vector<int>> cpuset;    // cores that its cgroup leaves it
  std::optional<double> quota_cores;         // the least of its cgroups, in cores
  std::optional<int64_t> throttled_periods;  // in which its cgroups stopped it, added up
  std::optional<int64_t> throttled_us;
};

Limits read_limits(SystemFiles& files);

// How many of so many cores this process may use at once: a cgroup's quota may allow fewer.
size_t count_usable(size_t cores, const Limits& limits);
size_t count_usable(size_t cores, const std::string& root = "");

// Throws Error on no threads, or on more than `usable`.
void check_threads(uint32_t threads, size_t usable);

}  // namespace bve
