// Errors of what stands in libbve_executorch.so, told in ExecuTorch's log and by
// bve_executorch_error.
#pragma once

#include <executorch/runtime/core/error.h>

#include "error_text.h"

namespace bve {

// Logs the text, keeps it for this thread, and gives the error back.
executorch::runtime::Error report(executorch::runtime::Error error, const bve_error& failed);
executorch::runtime::Error report(executorch::runtime::Error error, std::string_view met,
                                  std::string_view expected = "", std::string_view to_do = "");

// From now on what failed last is why this copy of the library cannot be used.
void refuse();

}  // namespace bve
