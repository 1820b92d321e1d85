// bve-run's verb that keeps two benches off one machine.
#pragma once

#include "main_arguments.h"

namespace bve {

// Locks the file, which is made where there is none, says 'held', and keeps it until stdin ends;
// then the file is gone. Where another process holds it: 'busy', since how many seconds, and that
// one's --by; returns 1. The system frees it when the process ends, in whatever way.
int hold(const Arguments& arguments);

}  // namespace bve
