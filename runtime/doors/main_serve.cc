#include "main_serve.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>

#include "cgroups.h"
#include "clock.h"
#include "json.h"
#include "main_commands.h"
#include "main_frames.h"
#include "main_program.h"

namespace bve {
namespace {

using json::object;
using json::print;
using json::print_whole;
using json::quote;

// ---- where it runs, and from what
// ----------------------------------------------------------------

std::string list_allowed() {
  cpu_set_t set;
  std::vector<std::string> cores;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    for (int core = 0; core < CPU_SETSIZE; ++core) {
      if (CPU_ISSET(core, &set)) cores.push_back(print_whole(static_cast<uint64_t>(core)));
    }
  }
  return json::list(cores, ", ");
}

// Share of the file's pages in the system's cache; below 0 where that is not told.
double share_cached(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status{};
  double share = -1;
  if (file >= 0 && fstat(file, &status) == 0 && status.st_size > 0) {
    const auto bytes = static_cast<size_t>(status.st_size);
    void* const map = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) {
      const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
      std::vector<unsigned char> pages((bytes + page - 1) / page);
      if (mincore(map, bytes, pages.data()) == 0) {
        size_t in = 0;
        for (const unsigned char bits : pages) in += bits & 1;
        share = static_cast<double>(in) / static_cast<double>(pages.size());
      }
      munmap(map, bytes);
    }
  }
  if (file >= 0) close(file);
  return share;
}

// Asks that the file's pages leave the cache; share_cached says what came of it.
void evict(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  fdatasync(file);
  posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  close(file);
}

struct Work {
  uint64_t cpu_ns;
  int core;
};

// What each thread of this process has taken so far, and the core that it was on last; none where
// the system does not tell.
std::map<std::string, Work> read_threads() {
  struct Close {
    void operator()(DIR* folder) const { closedir(folder); }
  };
  std::map<std::string, Work> threads;
  const std::unique_ptr<DIR, Close> folder(opendir("/proc/self/task"));
  while (const dirent* const entry = folder ? readdir(folder.get()) : nullptr) {
    if (entry->d_name[0] == '.') continue;
    const std::string task = std::string("/proc/self/task/") + entry->d_name;
    const File spent(std::fopen((task + "/schedstat").c_str(), "r"), std::fclose);
    const File stat(std::fopen((task + "/stat").c_str(), "r"), std::fclose);
    unsigned long long cpu_ns = 0;
    char text[1024];
    if (!spent || !stat || std::fscanf(spent.get(), "%llu", &cpu_ns) != 1 ||
        !std::fgets(text, sizeof text, stat.get())) {
      continue;
    }
    int field = 2;  // its name, in brackets, may hold spaces
    const char* at = std::strrchr(text, ')');
    while (at && field < 39) at = std::strchr(at + 1, ' '), ++field;
    if (at) threads[entry->d_name] = {cpu_ns, std::atoi(at)};
  }
  return threads;
}

std::string print_since(std::optional<int64_t> before, std::optional<int64_t> now) {
  return before && now ? print_whole(static_cast<uint64_t>(*now - *before)) : "null";
}

// ---- serve -------------------------------------------------------------------------------------

struct Served {
  SessionHandle session;
  std::vector<float> image, logits;
};

template <typename Number>
std::string print_by_core(const std::map<int, Number>& numbers) {
  std::string text = "{";
  for (const auto& [core, number] : numbers) {
    text += (text.size() > 1 ? ", \"" : "\"") + std::to_string(core) +
            "\": " + print(static_cast<double>(number));
  }
  return text + "}";
}

constexpr uint64_t kLookNs = 5'000'000;  // between looks at whether whoever asks is still there

// Time images for so many seconds and at least so many images; false if whoever asks has gone.
bool time_turn(const Served& served, const Turn& turn, Commands& commands) {
  std::vector<std::string> times_ms;
  std::map<int, size_t> cores;
  std::vector<float> logits = served.logits;
  const std::optional<int64_t> throttled = count_throttled();
  const double clock_before = measure_clock_mhz();
  run_once(served.session, served.image, logits);  // what rested meanwhile is awake again
  const auto threads = read_threads();
  const uint64_t start = read_clock_ns();
  const uint64_t end = start + static_cast<uint64_t>(turn.seconds * 1e9);
  const uint64_t cpu_start = read_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
  uint64_t due = start + turn.period_ns, now = start, look = start;
  for (size_t i = 0; i < turn.images || now < end; ++i) {
    if (now >= look) {
      if (commands.ended()) return false;
      look = now + kLookNs;
    }
    if (turn.period_ns > 0 && (now = read_clock_ns()) < due) {
      std::this_thread::sleep_for(std::chrono::nanoseconds(due - now));
    }
    due += turn.period_ns;
    const uint64_t before = read_clock_ns();
    run_once(served.session, served.image, logits);
    now = read_clock_ns();
    times_ms.push_back(print(static_cast<double>(now - before) * 1e-6));
    ++cores[sched_getcpu()];
  }
  const uint64_t cpu_ns = read_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_start;
  const auto threads_after = read_threads();
  const double clock_after = measure_clock_mhz();
  std::map<int, double> thread_ms;
  for (const auto& [name, work] : threads_after) {
    const auto before = threads.find(name);
    const uint64_t spent = work.cpu_ns - (before == threads.end() ? 0 : before->second.cpu_ns);
    if (spent > 0) thread_ms[work.core] += static_cast<double>(spent) * 1e-6;
  }
  const double images = static_cast<double>(times_ms.size());
  tell(object({{"start_ns", print_whole(start)},
               {"end_ns", print_whole(now)},
               {"times_ms", json::list(times_ms, ", ")},
               {"cpu_ms", print(static_cast<double>(cpu_ns) * 1e-6 / images)},
               {"clock_mhz", json::list({print(clock_before), print(clock_after)}, ", ")},
               {"cores", print_by_core(cores)},
               {"thread_ms", print_by_core(thread_ms)},
               {"throttled_periods", print_since(throttled, count_throttled())}}));
  return true;
}

Turn parse_turn(const std::string& command) {
  Turn turn{};
  double images = 0, period_ms = 0;
  char rest = 0;
  if (std::sscanf(command.c_str(), "%*s %lf %lf %lf %c", &turn.seconds, &images, &period_ms,
                  &rest) != 3 ||
      !(turn.seconds >= 0 && turn.seconds <= 86400) || !(images >= 1 && images <= 1e6) ||
      !(period_ms >= 0 && period_ms <= 1e6)) {
    throw UserError("'" + command +
                    "', expected run or frame SECONDS IMAGES PERIOD_MS; check who asks");
  }
  turn.images = static_cast<size_t>(images);
  turn.period_ns = static_cast<uint64_t>(period_ms * 1e6);
  return turn;
}

// A path of a command: bytes other than letters, digits and '/._~-' come as '%20', so that a line
// of words holds any.
std::string unquote(const std::string& word) {
  std::string path;
  for (size_t i = 0; i < word.size(); ++i) {
    if (word[i] != '%') {
      path += word[i];
      continue;
    }
    const std::string digits = word.substr(i + 1, 2);
    const auto is_digit = [](unsigned char c) { return std::isxdigit(c) != 0; };
    if (digits.size() != 2 || !std::all_of(digits.begin(), digits.end(), is_digit)) {
      throw UserError("'" + word + "', expected a path with % as %25; check who asks");
    }
    path += static_cast<char>(std::stoi(digits, nullptr, 16));
    i += 2;
  }
  return path;
}

// The logits of each image of a file, written to another.
void answer(const Served& served, const std::string& command) {
  const size_t space = command.find(' ', 7);
  if (command.rfind("answer ", 0) != 0 || space == command.npos ||
      command.find(' ', space + 1) != command.npos) {
    throw UserError("'" + command +
                    "', expected run, frame, memory or answer IN OUT; check who asks");
  }
  const std::string in = unquote(command.substr(7, space - 7));
  const std::string out = unquote(command.substr(space + 1));
  const File from(std::fopen(in.c_str(), "rb"), std::fclose);
  const File to(std::fopen(out.c_str(), "wb"), std::fclose);
  if (!from || !to) {
    throw UserError((from ? out : in) + ": " + std::strerror(errno) + ", expected a file");
  }
  std::vector<float> image = served.image, logits = served.logits;
  const size_t bytes = image.size() * sizeof(float);
  size_t images = 0, count;
  for (; (count = std::fread(image.data(), 1, bytes, from.get())) == bytes; ++images) {
    run_once(served.session, image, logits);
    if (std::fwrite(logits.data(), sizeof(float), logits.size(), to.get()) != logits.size()) break;
  }
  if (std::ferror(from.get()) || std::ferror(to.get()) || std::fflush(to.get())) {
    throw UserError(out + ": " + std::strerror(errno) + ", expected room for the answers");
  }
  if (count > 0 && count < bytes) {
    throw UserError(in + " ends within an image, expected images of " + std::to_string(bytes) +
                    " bytes; check who asks");
  }
  tell(object({{"images", print_whole(images)}}));
}

}  // namespace

// The system keeps what of these its own rules leave, and that is what is told afterwards.
void keep_to(const std::vector<int>& cores) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof set, &set)) {
    throw UserError(std::string("--cores that this process may not run on (") +
                    std::strerror(errno) +
                    "), expected some of those that it may; see bve-run probe");
  }
}

std::optional<int64_t> count_throttled() {
  SystemFiles files{""};
  return read_limits(files).throttled_periods;
}

int serve(const Arguments& arguments) {
  keep_to(arguments.cores);
  if (arguments.evict) evict(arguments.file);
  const double cached = share_cached(arguments.file);
  const double start_ms = read_clock_ms();
  const Program program = open_program(arguments);
  Served served{start_session(program, arguments.keeps[0], arguments), {}, {}};
  const double loaded_ms = read_clock_ms();
  served.image = make_image(bve_image_count(served.session.get()));
  served.logits.resize(bve_logits_count(served.session.get()));
  const double first_ms = read_clock_ms();
  run_once(served.session, served.image, served.logits);
  const double end_ms = read_clock_ms();
  tell(object({{"runtime", quote("bve")},
               {"version", quote(BVE_VERSION)},
               {"build", describe_machine()},
               {"load_ms", print(loaded_ms - start_ms)},
               {"first_ms", print(end_ms - first_ms)},
               {"cached_share", cached < 0 ? "null" : print(cached)},
               {"threads", print_whole(arguments.options.threads)},
               {"cores_allowed", list_allowed()},
               {"image_floats", print_whole(served.image.size())},
               {"session", inspect(served.session)}}));
  Commands commands;
  CameraFrame camera;
  for (std::string command; commands.read(command);) {
    if (command.rfind("run ", 0) == 0) {
      if (!time_turn(served, parse_turn(command), commands)) return 0;
    } else if (command.rfind("frame ", 0) == 0) {
      if (!time_frames(served.session, camera, parse_turn(command), commands)) return 0;
    } else if (command == "memory") {
      tell(object({{"peak_bytes", print_whole(read_status_bytes("VmHWM"))},
                   {"anonymous_bytes", print_whole(read_status_bytes("RssAnon"))}}));
    } else {
      answer(served, command);
    }
  }
  return 0;
}

}  // namespace bve
