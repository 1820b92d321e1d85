#include "error.h"

#include <cstring>

namespace bve {
namespace {

std::string join(std::string_view met, std::string_view expected, std::string_view to_do) {
  std::string text(met);
  if (!expected.empty()) text.append(kBeforeExpected).append(expected);
  if (!to_do.empty()) text.append(kBeforeToDo).append(to_do);
  return text;
}

}  // namespace

Error::Error(std::string_view met, std::string_view expected, std::string_view to_do)
    : std::runtime_error(join(met, expected, to_do)),
      met_bytes_(met.size()),
      expected_bytes_(expected.size()),
      to_do_bytes_(to_do.size()) {}

std::string_view Error::met() const { return {what(), met_bytes_}; }

std::string_view Error::expected() const {
  if (expected_bytes_ == 0) return "";
  return {what() + met_bytes_ + kBeforeExpected.size(), expected_bytes_};
}

std::string_view Error::to_do() const {
  return {what() + std::strlen(what()) - to_do_bytes_, to_do_bytes_};
}

}  // namespace bve
