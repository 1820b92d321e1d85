#include "executorch_errors.h"

#include <executorch/runtime/platform/log.h>

#include <cstring>
#include <utility>

#include "bve_executorch.h"

namespace bve {
namespace {

constexpr int kLogged = 200;  // ExecuTorch cuts a message at 255 bytes

bve_error refusal;
thread_local bve_error failure;
thread_local bool is_told = true;

// What is to be told, null if nothing is; from then on it is told.
const bve_error* take_failure() {
  if (*refusal.text) return &refusal;
  return std::exchange(is_told, true) ? nullptr : &failure;
}

}  // namespace

executorch::runtime::Error report(executorch::runtime::Error error, const bve_error& failed) {
  failure = failed;
  is_told = false;
  for (const char* rest = failure.text; *rest; rest += strnlen(rest, kLogged)) {
    ET_LOG(Error, "libbve_executorch: %.*s", kLogged, rest);
  }
  return error;
}

executorch::runtime::Error report(executorch::runtime::Error error, std::string_view met,
                                  std::string_view expected, std::string_view to_do) {
  bve_error failed;
  set_error(&failed, met, expected, to_do);
  return report(error, failed);
}

void refuse() { refusal = failure; }

}  // namespace bve

const char* bve_executorch_error(void) {
  const bve_error* const failed = bve::take_failure();
  return failed ? failed->text : nullptr;
}

int bve_executorch_error_parts(bve_parts* parts) {
  const bve_error* const failed = bve::take_failure();
  if (failed) bve_error_parts(failed, parts);
  return failed != nullptr;
}
