// Errors of what stands in libbve_executorch.so, told in ExecuTorch's log and by
// bve_executorch_error.
#pragma once

#include <executorch/runtime/core/error.h>

#include "bve.h"

namespace bve {

// Logs the text, keeps it for this thread, and gives the error back.
__attribute__((format(printf, 2, 3))) executorch::runtime::Error report(
    executorch::runtime::Error error, const char* format, ...);

// From now on what failed last is why this copy of the library cannot be used.
void refuse();

}  // namespace bve
