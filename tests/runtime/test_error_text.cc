#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "error.h"
#include "error_text.h"

namespace bve::test {
namespace {

// 'what was met | what was expected | what to do'.
std::string split(const bve_error& error) {
  bve_parts parts;
  bve_error_parts(&error, &parts);
  return std::string(parts.met) + " | " + parts.expected + " | " + parts.to_do;
}

bve_error write(const std::string& met, const std::string& expected = "",
                const std::string& to_do = "") {
  bve_error error;
  std::memset(&error, 0xff, sizeof error);
  set_error(&error, met, expected, to_do);
  return error;
}

TEST_CASE("a text has the parts that it was made of, whatever is in them") {
  CHECK(std::string(write("this", "that", "so").text) == "this, expected that; so");
  CHECK(split(write("this", "that", "so")) == "this | that | so");
  CHECK(split(write("a, expected b; c.bve", "d; e, expected f", "g; h")) ==
        "a, expected b; c.bve | d; e, expected f | g; h");
  CHECK(std::string(write("this", "", "so").text) == "this; so");
  CHECK(split(write("this; is", "", "so")) == "this; is |  | so");
  CHECK(split(write("this", "that; it")) == "this | that; it | ");
  CHECK(split(write("this, expected of all")) == "this, expected of all |  | ");
  CHECK(split(write("")) == " |  | ");
  set_error(nullptr, "nobody asks");
}

TEST_CASE("an Error has them too, and hands them on") {
  const Error error("a, expected b", "c; d", "e");
  CHECK(std::string(error.what()) == "a, expected b, expected c; d; e");
  CHECK(error.met() == "a, expected b");
  CHECK(error.expected() == "c; d");
  CHECK(error.to_do() == "e");
  CHECK(Error("a").expected().empty());
  CHECK(Error("a", "", "b").to_do() == "b");
  bve_error written;
  set_error(&written, error);
  CHECK(split(written) == "a, expected b | c; d | e");
}

TEST_CASE("what is too long is cut in the last of its parts, and the parts stay apart") {
  for (size_t bytes = 480; bytes < 520; ++bytes) {
    const std::string met(bytes, 'm');
    const bve_error error = write(met, "\xc3\xa4\xc3\xb6", "do");
    const std::string text = error.text;
    CHECK(text.size() < BVE_ERROR_BYTES);
    bve_parts parts;
    bve_error_parts(&error, &parts);
    CHECK(met.rfind(parts.met, 0) == 0);
    CHECK(std::strlen(parts.met) >= std::min(bytes, size_t{500}));
    const std::string expected = parts.expected, to_do = parts.to_do;
    CHECK((expected == "\xc3\xa4\xc3\xb6" || expected == "\xc3\xa4" || expected.empty()));
    CHECK((to_do == "do" || to_do == "d" || to_do.empty()));
    CHECK(text == parts.met + (expected.empty() ? "" : ", expected " + expected) +
                      (to_do.empty() ? "" : "; " + to_do));
  }
}

TEST_CASE("a text of somebody else's is met, all of it") {
  bve_error error;
  std::memset(&error, 0xff, sizeof error);
  std::strcpy(error.text, "a, expected b; c");
  CHECK(split(error) == "a, expected b; c |  | ");
  std::memset(&error, 'x', sizeof error);  // which does not even end
  CHECK(split(error) == std::string(BVE_ERROR_BYTES - 1, 'x') + " |  | ");
  bve_error copied = write("this", "that", "so");
  std::strcpy(copied.text, "other");
  CHECK(split(copied) == "other |  | ");
}

}  // namespace
}  // namespace bve::test
