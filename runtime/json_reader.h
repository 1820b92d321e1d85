// JSON text, read value by value in the order in which it stands there. What a value should be, who
// asks knows: another one, and what is no JSON at all, throws an Error that says where.
#pragma once

#include <string>
#include <string_view>

namespace bve::json {

class Reader {
 public:
  // Of the text that is called so in what is thrown. Both outlive it.
  Reader(const char* name, std::string_view text) : name_(name), text_(text) {}

  // An object's values: take(key), which reads that one. Keys may repeat.
  template <typename Take>
  void read_object(Take take) {
    read_items('{', '}', [&] {
      const std::string key = read_string();
      expect(':');
      take(key);
    });
  }

  // A list's values: take(), which reads the next.
  template <typename Take>
  void read_list(Take take) {
    read_items('[', ']', take);
  }

  // In UTF-8; half a pair of surrogates becomes U+FFFD.
  std::string read_string();

  // Finite, and the nearest double, whatever the program's locale.
  double read_number();

  // Whether null comes next, which is then read.
  bool read_null();

  // Throws if more than blanks follows.
  void finish();

 private:
  template <typename Take>
  void read_items(char open, char close, Take take) {
    expect(open);
    if (eat(close)) return;
    do {
      take();
    } while (eat(','));
    expect(close);
  }
  [[noreturn]] void refuse(const char* expected) const;
  char peek() const { return done_ < text_.size() ? text_[done_] : '\0'; }
  void skip();
  bool eat(char letter);
  void expect(char letter);
  void read_escape(std::string& into);
  unsigned read_code();

  const char* name_;
  std::string_view text_;
  size_t done_ = 0;
};

}  // namespace bve::json
