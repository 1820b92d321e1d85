// Lines in, lines of JSON out: how bve-run's verbs that stay are spoken to.
#pragma once

#include <string>

namespace bve {

// A line to stdout, at once. UserError if nobody takes it.
void tell(const std::string& line);

// Lines of stdin.
class Commands {
 public:
  // False at the end.
  bool read(std::string& line);

  // Whether a line or the end comes within so many milliseconds.
  bool wait(int ms);

  // Whether whoever asks has gone; does not wait.
  bool ended();

 private:
  bool fill();

  std::string buffer_;
  bool ended_ = false;
};

}  // namespace bve
