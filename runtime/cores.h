// Which cores this machine has, and of what kind.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace bve {

struct Core {
  int number;
  int capacity;  // relative speed: the kernel's cpu_capacity, or the highest kHz, or 0 if unknown
  bve_core kind;
};

// The cores that this process may run on, fastest first, equal ones by number. root: where /proc
// and /sys lie; "" for this machine.
std::vector<Core> list_cores(const std::string& root = "");

// How many of so many cores this process may use at once: a cgroup's quota may allow fewer.
size_t count_usable(size_t cores, const std::string& root = "");

// Throws Error on no threads, or on more than `usable`.
void check_threads(uint32_t threads, size_t usable);

}  // namespace bve
