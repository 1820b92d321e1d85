#include "executorch_threads.h"

#include <algorithm>
#include <cstring>

#include "bve.h"
#include "executorch_errors.h"

// Declared here because ExecuTorch's own header wants pthreadpool's. Both are of one object file:
// an app has both or neither.
namespace executorch::extension::threadpool {
struct ThreadPool {
  size_t get_thread_count() const __attribute__((weak));
};
ThreadPool* get_threadpool() __attribute__((weak));
}  // namespace executorch::extension::threadpool

namespace bve {

using executorch::extension::threadpool::get_threadpool;
using executorch::runtime::BackendOption;
using executorch::runtime::Error;

Error read_threads(executorch::runtime::Span<const BackendOption> options, int* threads) {
  int asked = *threads;
  for (const BackendOption& option : options) {
    const bool is_known = !std::strcmp(option.key, "threads");
    const int* const value = std::get_if<int>(&option.value);
    if (!is_known || !value || *value < 1) {
      return is_known ? report(Error::InvalidArgument,
                               "option threads of another value, expected an int of 1 or more")
                      : report(Error::InvalidArgument, "unknown option %.63s, expected threads",
                               option.key);
    }
    asked = *value;
  }
  *threads = asked;
  return Error::Ok;
}

int count_threads() {
  const auto* const pool = get_threadpool ? get_threadpool() : nullptr;
  if (!pool) return 1;
  return static_cast<int>(std::min<size_t>(pool->get_thread_count(), bve_count_cores()));
}

}  // namespace bve
