#include "main_commands.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "main_arguments.h"

namespace bve {

void tell(const std::string& line) {
  std::puts(line.c_str());
  if (std::fflush(stdout)) throw UserError("stdout that takes nothing more, expected a reader");
}

bool Commands::read(std::string& line) {
  for (;;) {
    const size_t end = buffer_.find('\n');
    if (end != buffer_.npos) {
      line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return true;
    }
    if (ended_ || !fill()) return false;
  }
}

bool Commands::wait(int ms) {
  if (ended_ || buffer_.find('\n') != buffer_.npos) return true;
  pollfd in{STDIN_FILENO, POLLIN, 0};
  return poll(&in, 1, ms) > 0;
}

bool Commands::ended() {
  if (!ended_ && wait(0) && buffer_.find('\n') == buffer_.npos) fill();
  return ended_;
}

bool Commands::fill() {
  char text[4096];
  ssize_t count;
  do {
    count = ::read(STDIN_FILENO, text, sizeof text);
  } while (count < 0 && errno == EINTR);
  if (count <= 0) {
    ended_ = true;
  } else {
    buffer_.append(text, static_cast<size_t>(count));
  }
  return !ended_;
}

}  // namespace bve
