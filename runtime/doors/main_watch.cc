#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "clock.h"
#include "json.h"
#include "main_commands.h"
#include "main_program.h"
#include "main_serve.h"

namespace bve {

using json::object;
using json::print_whole;
using json::quote;

namespace {

// A file's first bytes, or what '|command' prints; null where it cannot be read.
std::string read_source(const std::string& source) {
  constexpr size_t kMost = 4096;
  const bool is_command = source[0] == '|';
  std::FILE* const from =
      is_command ? popen(source.c_str() + 1, "r") : std::fopen(source.c_str(), "r");
  if (!from) return "null";
  char text[kMost];
  const size_t count = std::fread(text, 1, sizeof text, from);
  const bool failed = std::ferror(from);
  const int status = is_command ? pclose(from) : std::fclose(from);
  if (failed || (is_command && status)) return "null";
  return quote(std::string_view(text, count));
}

void sample(const std::vector<std::string>& sources) {
  std::vector<std::string> texts;
  const uint64_t start = read_clock_ns();
  for (const std::string& source : sources) texts.push_back(read_source(source));
  const uint64_t middle = start + (read_clock_ns() - start) / 2;
  tell(object({{"t_ns", print_whole(middle)}, {"texts", json::list(texts, ", ")}}));
}

}  // namespace

int watch(const Arguments& arguments) {
  Commands commands;
  for (std::string command; commands.read(command);) {
    double every_ms = 0;
    if (command == "sample") {
      sample(arguments.files);
    } else if (std::sscanf(command.c_str(), "every %lf", &every_ms) == 1 && every_ms >= 1 &&
               every_ms <= 60'000) {
      do {
        sample(arguments.files);
      } while (!commands.wait(static_cast<int>(every_ms)));
    } else if (command == "stop") {  // which also ends what is done every so often
      tell(object({{"stopped", "true"}}));
    } else {
      throw UserError("'" + command + "', expected sample, every MS or stop; check who asks");
    }
  }
  return 0;
}

}  // namespace bve
