#include "main_profile.h"

#include <cstdio>
#include <new>

#include "clock.h"
#include "json.h"
#include "main_program.h"
#include "main_serve.h"

namespace bve {
namespace {

constexpr uint32_t kTraced = 20;  // runs
constexpr char kLines[] = ",\n ";

using json::list;
using json::object;
using json::print_whole;
using Counters = std::unique_ptr<bve_counters, decltype(&bve_uncount)>;

std::string take(char* text) {
  if (!text) throw std::bad_alloc();
  const std::unique_ptr<char, decltype(&bve_free)> owned(text, bve_free);
  return text;
}

std::string print_row(std::initializer_list<int64_t> numbers) {
  std::vector<std::string> items;
  for (const int64_t number : numbers) items.push_back(std::to_string(number));
  return list(items, ",");
}

struct Half {
  std::string before, after;
};

Half time_runs(const SessionHandle& session, const Counters& counters, uint32_t runs,
               const std::vector<float>& image, std::vector<float>& logits,
               std::vector<std::string>& times_ms) {
  Half half{take(bve_read(counters.get())), {}};
  for (uint32_t run = 0; run < runs; run++) {
    const uint64_t start = read_clock_ns();
    run_once(session, image, logits);
    times_ms.push_back(json::print(static_cast<double>(read_clock_ns() - start) * 1e-6));
  }
  half.after = take(bve_read(counters.get()));
  return half;
}

std::string print_rows(const SessionHandle& session) {
  std::vector<std::string> chosen;
  for (size_t op = 0; op < bve_times(session.get(), nullptr, 0); op++) {
    std::vector<int32_t> rows(bve_rows(session.get(), op, nullptr, 0));
    bve_rows(session.get(), op, rows.data(), rows.size());
    std::vector<std::string> numbers;
    for (const int32_t row : rows) numbers.push_back(std::to_string(row));
    if (!rows.empty()) chosen.push_back(list({print_whole(op), list(numbers, ",")}, ", "));
  }
  return list(chosen);
}

std::string trace_runs(const SessionHandle& session, const std::vector<float>& image,
                       std::vector<float>& logits) {
  std::vector<std::string> runs, events;
  size_t beyond = 0;
  bve_trace(session.get(), 1);
  for (uint32_t run = 0; run < kTraced; run++) {
    const uint64_t start = read_clock_ns();
    run_once(session, image, logits);
    const uint64_t end = read_clock_ns();
    runs.push_back(print_row({static_cast<int64_t>(start), static_cast<int64_t>(end)}));
    size_t lost = 0;
    std::vector<bve_event> found(bve_events(session.get(), nullptr, 0, &lost));
    bve_events(session.get(), found.data(), found.size(), nullptr);
    beyond += lost;
    for (const bve_event& event : found) {
      events.push_back(
          print_row({run, event.op, event.thread, event.core, static_cast<int64_t>(event.start_ns),
                     static_cast<int64_t>(event.end_ns)}));
    }
  }
  return object({{"runs", list(runs)},
                 {"events", list(events)},
                 {"lost", print_whole(beyond)},
                 {"rows", print_rows(session)}},
                kLines);
}

}  // namespace

int profile(const Arguments& arguments) {
  keep_to(arguments.cores);
  const Counters counters(bve_count(""), bve_uncount);  // before the session starts its threads
  if (!counters) throw std::bad_alloc();
  const Program program = open_program(arguments);
  const SessionHandle session = start_session(program, arguments.keeps[0], arguments);
  const size_t count = bve_image_count(session.get());
  const std::vector<float> image = choose_image(arguments, count);
  std::vector<float> logits(bve_logits_count(session.get()));
  for (uint32_t run = 0; run < arguments.warmup; run++) run_once(session, image, logits);

  std::vector<std::string> times_ms, counts;
  const auto time_half = [&](uint32_t runs) {
    const Half half = time_runs(session, counters, runs, image, logits, times_ms);
    counts.push_back(list({half.before, half.after}));
  };
  time_half(arguments.runs - arguments.runs / 2);
  const std::string traced = trace_runs(session, image, logits);
  bve_trace(session.get(), 0);
  time_half(arguments.runs / 2);

  bve_error error{};
  char* const roof = bve_measure(1, &error);
  if (!roof) throw UserError(error.text);
  std::puts(object({{"machine", describe_machine()},
                    {"session", inspect(session)},
                    {"times_ms", list(times_ms, ", ")},
                    {"counts", list(counts)},
                    {"traced", traced},
                    {"roof", take(roof)}},
                   kLines)
                .c_str());
  return 0;
}

}  // namespace bve
