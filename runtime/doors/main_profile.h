// bve-run's verb that tells where a file's time goes, for a profile made on another machine.
#pragma once

#include "main_arguments.h"

namespace bve {

// Prints as JSON: the session; times of runs, half of them before the traced ones and half after,
// with the kernel's counts of both halves; of the traced runs every event and the rows chosen; the
// machine's roof on one thread. bigvit_edge/profile/core.py reads it.
int profile(const Arguments& arguments);

}  // namespace bve
