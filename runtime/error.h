// How the core fails: by an Error that says what was met, what was expected and what to do.
// The C ABI catches it and hands on the three.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>

#include "error_text.h"

namespace bve {

// Its text is as set_error has it.
class Error : public std::runtime_error {
 public:
  explicit Error(std::string_view met, std::string_view expected = "", std::string_view to_do = "");

  std::string_view met() const;
  std::string_view expected() const;
  std::string_view to_do() const;

 private:
  size_t met_bytes_, expected_bytes_, to_do_bytes_;
};

// As of printf, cut where it is longer than 1023 bytes.
[[gnu::format(printf, 1, 2)]] inline std::string compose(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return text;
}

[[noreturn]] inline void fail(std::string_view met, std::string_view expected,
                              std::string_view to_do = "") {
  throw Error(met, expected, to_do);
}

inline void set_error(bve_error* error, const Error& e) {
  set_error(error, e.met(), e.expected(), e.to_do());
}

}  // namespace bve
