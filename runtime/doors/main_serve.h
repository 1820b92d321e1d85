// bve-run's verbs that a bench on another machine speaks with, a line a command: see
// docs/devices.md.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "main_arguments.h"

namespace bve {

// Loads the file, tells how long that took, then times images at each command 'run'. Returns when
// stdin ends, in the middle of a run too.
int serve(const Arguments& arguments);

// Tells what the files hold at each command: clocks, temperatures, power.
int watch(const Arguments& arguments);

// The clock that the calling thread's core runs at, in MHz, from how long a chain of additions
// takes, each waiting for the one before: a cycle each on every core that this runs on. A fifth of
// a millisecond, three times.
double measure_clock_mhz();

// Keeps this process to these cores; to all that it has where there are none. Throws UserError
// where it may not run on them.
void keep_to(const std::vector<int>& cores);

// Periods in which a quota has stopped this process's cgroups so far, where that is told.
std::optional<int64_t> count_throttled();

}  // namespace bve
