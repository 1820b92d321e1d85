// How many threads a session of libbve_executorch.so gets.
#pragma once

#include <executorch/runtime/backend/options.h>
#include <executorch/runtime/core/span.h>

#include <cstdint>

namespace bve {

// Takes "threads" from the options; an error, and nothing taken, if there is any other or it is no
// int of 1 or more.
executorch::runtime::Error read_threads(
    executorch::runtime::Span<const executorch::runtime::BackendOption> options, int* threads);

// As many as ExecuTorch's own pool has, of the cores that this process may use; 1 where the app has
// no such pool, or does not show it.
int count_threads();

}  // namespace bve
