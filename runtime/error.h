// How the core fails: by an Error whose text says what was met, what was expected and what to do.
// The C ABI catches it and hands on the text.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <stdexcept>

namespace bve {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws an Error with a text as of printf, cut where it is longer than 1023 bytes.
[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw Error(text);
}

}  // namespace bve
