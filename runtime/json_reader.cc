#include "json_reader.h"

#include <locale.h>
#include <stdlib.h>
#if __has_include(<xlocale.h>)
#include <xlocale.h>
#endif

#include <cmath>
#include <new>

#include "error.h"

namespace bve::json {
namespace {

// strtod as in the C locale, whose point is a point; of this thread alone, and no longer than this.
class PlainNumbers {
 public:
  PlainNumbers() : plain_(newlocale(LC_NUMERIC_MASK, "C", nullptr)) {
    if (!plain_) throw std::bad_alloc();
    before_ = uselocale(plain_);
  }
  PlainNumbers(const PlainNumbers&) = delete;
  ~PlainNumbers() {
    uselocale(before_);
    freelocale(plain_);
  }

 private:
  locale_t plain_, before_;
};

bool is_digit(char letter) { return letter >= '0' && letter <= '9'; }

void append_utf8(std::string& text, unsigned code) {
  const auto add = [&](unsigned byte) { text += static_cast<char>(byte); };
  const auto add_rest = [&](int shift) { add(0x80 | ((code >> shift) & 0x3f)); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xc0 | (code >> 6));
    add_rest(0);
  } else if (code < 0x10000) {
    add(0xe0 | (code >> 12));
    add_rest(6);
    add_rest(0);
  } else {
    add(0xf0 | (code >> 18));
    add_rest(12);
    add_rest(6);
    add_rest(0);
  }
}

}  // namespace

void Reader::refuse(const char* expected) const {
  fail("%s that cannot be read at byte %zu of %zu, expected %s; export the model again", name_,
       done_, text_.size(), expected);
}

void Reader::skip() {
  while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') ++done_;
}

bool Reader::eat(char letter) {
  skip();
  if (done_ == text_.size() || peek() != letter) return false;
  ++done_;
  return true;
}

void Reader::expect(char letter) {
  const char expected[] = {'\'', letter, '\'', '\0'};
  if (!eat(letter)) refuse(expected);
}

std::string Reader::read_string() {
  std::string read;
  expect('"');
  for (;; ++done_) {
    if (done_ == text_.size() || static_cast<unsigned char>(peek()) < 0x20) {
      refuse("the end of a text, '\"'");
    }
    if (peek() == '"') break;
    if (peek() == '\\') {
      read_escape(read);
    } else {
      read += peek();
    }
  }
  ++done_;
  return read;
}

// Leaves done_ on its last letter.
void Reader::read_escape(std::string& into) {
  constexpr std::string_view kEscapes = "\"\\/bfnrt", kLetters = "\"\\/\b\f\n\r\t";
  ++done_;
  if (peek() != 'u') {
    const size_t at = done_ < text_.size() ? kEscapes.find(peek()) : kEscapes.npos;
    if (at == kEscapes.npos) refuse("an escape of JSON");
    into += kLetters[at];
    return;
  }
  unsigned code = read_code();
  if (code >= 0xd800 && code < 0xdc00 && text_.substr(done_ + 1, 2) == "\\u") {
    const size_t before = done_;
    done_ += 2;
    const unsigned low = read_code();
    if (low >= 0xdc00 && low < 0xe000) {
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else {
      done_ = before;  // the next escape is another letter
    }
  }
  append_utf8(into, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
}

// Four hexadecimal digits behind the u that done_ is on.
unsigned Reader::read_code() {
  unsigned code = 0;
  for (int i = 0; i < 4; ++i) {
    ++done_;
    const char letter = peek();
    const char lower = static_cast<char>(letter | 0x20);
    if (!is_digit(letter) && (lower < 'a' || lower > 'f')) refuse("a hexadecimal digit");
    code = code * 16 + static_cast<unsigned>(is_digit(letter) ? letter - '0' : lower - 'a' + 10);
  }
  return code;
}

double Reader::read_number() {
  constexpr size_t kMostBytes = 64;
  constexpr std::string_view kLetters = "+-.0123456789eE";
  skip();
  std::string read;
  while (done_ + read.size() < text_.size() && read.size() < kMostBytes &&
         kLetters.find(text_[done_ + read.size()]) != kLetters.npos) {
    read += text_[done_ + read.size()];
  }
  const size_t sign = read.rfind('-', 0) == 0 ? 1 : 0;
  if (read.size() <= sign || !is_digit(read[sign])) refuse("a number");
  const PlainNumbers plain;
  char* end;
  const double number = strtod(read.c_str(), &end);
  if (*end != '\0' || !std::isfinite(number)) refuse("a finite number");
  done_ += read.size();
  return number;
}

bool Reader::read_null() {
  constexpr std::string_view kNull = "null";
  skip();
  if (text_.substr(done_, kNull.size()) != kNull) return false;
  done_ += kNull.size();
  return true;
}

void Reader::finish() {
  skip();
  if (done_ != text_.size()) refuse("its end");
}

}  // namespace bve::json
