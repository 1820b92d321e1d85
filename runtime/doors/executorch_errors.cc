#include "executorch_errors.h"

#include <executorch/runtime/platform/log.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

#include "bve_executorch.h"

namespace bve {
namespace {

constexpr int kLogged = 200;  // ExecuTorch cuts a message at 255 bytes

bve_error refusal;
thread_local bve_error failure;
thread_local bool is_told = true;

}  // namespace

executorch::runtime::Error report(executorch::runtime::Error error, const char* format, ...) {
  va_list values;
  va_start(values, format);
  std::vsnprintf(failure.text, sizeof failure.text, format, values);
  va_end(values);
  is_told = false;
  for (const char* rest = failure.text; *rest; rest += strnlen(rest, kLogged)) {
    ET_LOG(Error, "libbve_executorch: %.*s", kLogged, rest);
  }
  return error;
}

void refuse() { refusal = failure; }

}  // namespace bve

const char* bve_executorch_error(void) {
  if (*bve::refusal.text) return bve::refusal.text;
  const bool was_told = std::exchange(bve::is_told, true);
  return was_told ? nullptr : bve::failure.text;
}
