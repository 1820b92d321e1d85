// bve-run: runs and measures .bve programs; JSON goes to stdout, what fails to stderr with exit
// code 2; 1 if a kernel is wrong.

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <optional>
#include <thread>

#include "bench.h"
#include "clock.h"
#include "json.h"
#include "main_arguments.h"
#include "main_hold.h"
#include "main_profile.h"
#include "main_program.h"
#include "main_serve.h"
#include "select.h"

namespace bve {
namespace {

using json::object;
using json::print;
using json::print_whole;
using json::quote;

constexpr char kLines[] = ",\n ";  // between the fields of what is printed

// ---- bench -------------------------------------------------------------------------------------

double take(const std::vector<double>& sorted, double quantile) {
  const auto rank = static_cast<size_t>(std::ceil(quantile * sorted.size()));
  return sorted[std::max<size_t>(rank, 1) - 1];
}

// Of an even number, the mean of the middle two: as bigvit_edge/results.py has it.
double take_median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

std::string describe_times(std::vector<double> times_ms) {
  std::sort(times_ms.begin(), times_ms.end());
  return object({{"p50", print(take_median(times_ms))},
                 {"p90", print(take(times_ms, 0.9))},
                 {"p99", print(take(times_ms, 0.99))},
                 {"min", print(times_ms.front())},
                 {"mean", print(std::accumulate(times_ms.begin(), times_ms.end(), 0.0) /
                                static_cast<double>(times_ms.size()))},
                 {"max", print(times_ms.back())},
                 {"images", print_whole(times_ms.size())}});
}

// 'layers.3' of 'layers.3.p.mlp', 'head' of 'head.linear'.
std::string name_layer(const std::string& op) {
  const size_t dot = op.find('.');
  return op.substr(0, op.rfind("layers.", 0) == 0 ? op.find('.', dot + 1) : dot);
}

bool is_router(const std::string& op) {
  constexpr std::string_view kEnd = ".router";
  return op.size() >= kEnd.size() && op.compare(op.size() - kEnd.size(), kEnd.size(), kEnd) == 0;
}

struct Measured {
  float keep;
  SessionHandle session;
  std::vector<float> logits;
  double start_ms, first_run_ms, cpu_ms;
  std::string inspected;
  std::vector<double> times_ms, traced_ms;
  std::vector<std::vector<double>> ops_ms;  // [op][run]
};

double read_cpu_ms(const SessionHandle& session) { return bve_cpu_time(session.get()) * 1e-6; }

void time_run(Measured& measured, const std::vector<float>& image, uint32_t pause_ms, bool traced) {
  if (pause_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
  const double start = read_clock_ms();
  run_once(measured.session, image, measured.logits);
  (traced ? measured.traced_ms : measured.times_ms).push_back(read_clock_ms() - start);
  if (!traced) return;
  std::vector<uint64_t> times_ns(measured.ops_ms.size());
  bve_times(measured.session.get(), times_ns.data(), times_ns.size());
  for (size_t i = 0; i < times_ns.size(); ++i) measured.ops_ms[i].push_back(times_ns[i] * 1e-6);
}

// All sessions in turn, so that what the machine does meanwhile falls on each alike.
void time_runs(std::vector<Measured>& all, const std::vector<float>& image,
               const Arguments& arguments, bool traced) {
  for (Measured& measured : all) {
    bve_trace(measured.session.get(), traced);
    measured.ops_ms.resize(traced ? bve_times(measured.session.get(), nullptr, 0) : 0);
  }
  const double end = read_clock_ms() + arguments.seconds * 1e3;
  for (uint32_t run = 0;
       arguments.seconds > 0 ? !run || read_clock_ms() < end : run < arguments.runs; ++run) {
    for (Measured& measured : all) time_run(measured, image, arguments.pause_ms, traced);
  }
}

std::vector<std::pair<const char*, std::string>> describe_ops(const Measured& measured) {
  std::vector<std::string> ops, layers, order;
  std::map<std::string, double> by_layer;
  double dispatch = 0, total = 0;
  for (size_t i = 0; i < measured.ops_ms.size(); ++i) {
    const std::string name = bve_op_name(measured.session.get(), i);
    const double median = take_median(measured.ops_ms[i]);
    ops.push_back(object({{"name", quote(name)}, {"ms", print(median)}}));
    total += median;
    if (is_router(name)) dispatch += median;
    const auto [layer, is_new] = by_layer.emplace(name_layer(name), 0);
    if (is_new) order.push_back(layer->first);
    layer->second += median;
  }
  for (const std::string& name : order) {
    layers.push_back(object({{"name", quote(name)}, {"ms", print(by_layer[name])}}));
  }
  return {{"traced", object({{"run_ms", print(take_median(measured.traced_ms))},
                             {"ops_ms", print(total)},
                             {"dispatch_ms", print(dispatch)},
                             {"dispatch_share", print(total > 0 ? dispatch / total : 0)}})},
          {"layers", json::list(layers)},
          {"ops", json::list(ops)}};
}

int bench(const Arguments& arguments) {
  const double start = read_clock_ms();
  const Program program = open_program(arguments);
  const double open_ms = read_clock_ms() - start;
  uint64_t anonymous_bytes = read_status_bytes("RssAnon");
  const auto look = [&] {
    anonymous_bytes = std::max(anonymous_bytes, read_status_bytes("RssAnon"));
  };

  std::vector<float> image;
  std::vector<Measured> all;
  for (const float keep : arguments.keeps) {
    const double before = read_clock_ms();
    SessionHandle session = start_session(program, keep, arguments);
    const double start_ms = read_clock_ms() - before;
    if (image.empty()) image = make_image(bve_image_count(session.get()));
    const size_t logits = bve_logits_count(session.get());
    all.push_back(
        {keep, std::move(session), std::vector<float>(logits), start_ms, 0, 0, {}, {}, {}, {}});
    const double started = read_clock_ms();
    run_once(all.back().session, image, all.back().logits);
    all.back().first_run_ms = read_clock_ms() - started;
    all.back().inspected = inspect(all.back().session);
    look();
  }
  for (uint32_t run = 0; run < arguments.warmup; ++run) {
    for (Measured& measured : all) run_once(measured.session, image, measured.logits);
  }
  for (Measured& measured : all) measured.cpu_ms = -read_cpu_ms(measured.session);
  time_runs(all, image, arguments, false);
  for (Measured& measured : all) measured.cpu_ms += read_cpu_ms(measured.session);
  look();
  const uint64_t peak = read_status_bytes("VmHWM"), files = read_status_bytes("RssFile");
  const uint64_t beyond = std::max(anonymous_bytes, peak > files ? peak - files : 0);
  if (arguments.ops) time_runs(all, image, arguments, true);

  std::vector<std::string> sessions;
  for (const Measured& measured : all) {
    std::vector<std::pair<const char*, std::string>> fields = {
        {"keep", measured.keep > 0 ? print(measured.keep) : "null"},
        {"warmup_images", print_whole(arguments.warmup)},
        {"latency_ms", describe_times(measured.times_ms)},
        {"cpu_ms", print(measured.cpu_ms / static_cast<double>(measured.times_ms.size()))},
        {"load_ms", print(open_ms + measured.start_ms)},
        {"first_ms", print(measured.first_run_ms)},
        {"parts_ms", object({{"open", print(open_ms)}, {"start", print(measured.start_ms)}})},
        {"session", measured.inspected},
    };
    if (arguments.ops) {
      for (auto& field : describe_ops(measured)) fields.push_back(std::move(field));
    }
    sessions.push_back(object(fields, kLines));
  }
  const bve_options& options = arguments.options;
  std::puts(object({{"machine", describe_machine()},
                    {"file", quote(arguments.file)},
                    {"threads", print_whole(options.threads)},
                    {"little_threads", print_whole(options.little_threads)},
                    {"pin", json::print_bool(options.pin)},
                    {"choose", json::print_bool(options.choose)},
                    {"pause_ms", print_whole(arguments.pause_ms)},
                    {"memory", object({{"anonymous_bytes", print_whole(beyond)},
                                       {"peak_bytes", print_whole(peak)},
                                       {"file_bytes", print_whole(files)}})},
                    {"sessions", json::list(sessions)}},
                   kLines)
                .c_str());
  return 0;
}

// ---- the other verbs ---------------------------------------------------------------------------

int inform(const Arguments& arguments) {
  const Program program = open_program(arguments);
  bve_error error{};
  if (bve_verify(program.get(), &error)) throw UserError(error.text);
  std::puts(
      object({{"machine", describe_machine()}, {"program", bve_describe(program.get())}}, kLines)
          .c_str());
  return 0;
}

int run(const Arguments& arguments) {
  const Program program = open_program(arguments);
  const SessionHandle session = start_session(program, arguments.keeps[0], arguments);
  const size_t count = bve_image_count(session.get());
  std::vector<std::string> notes, values;
  std::vector<float> image, logits(bve_logits_count(session.get()));
  if (arguments.nv21[0] != 0) {
    set_frame(session, arguments);
  } else if (!arguments.picture.empty()) {
    image = prepare_picture(program, arguments.picture, count, notes);
  } else {
    image = choose_image(arguments, count);
  }
  run_once(session, image, logits);
  for (const float value : logits) values.push_back(print(value, 9));
  for (std::string& note : notes) note = quote(note);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  const char* const label = bve_label(program.get(), static_cast<size_t>(best));
  std::puts(object({{"top", print_whole(best)},
                    {"label", label ? quote(label) : "null"},
                    {"notes", json::list(notes, ", ")},
                    {"logits", json::list(values, ", ")}},
                   kLines)
                .c_str());
  return 0;
}

int time_kernels(const Arguments& arguments) {
  constexpr size_t kMost = 4096;
  std::vector<bve_bench_result> results(kMost);
  const double seconds = arguments.seconds > 0 ? arguments.seconds : 0.1;
  const char* filter = arguments.filter.empty() ? nullptr : arguments.filter.c_str();
  results.resize(
      std::min(kMost, bve_bench_kernels(filter, seconds, results.data(), results.size())));
  if (results.empty()) {
    throw UserError(
        "--filter " + arguments.filter +
        ", expected part of a kernel's name that this CPU runs; bve-run kernels lists them");
  }
  std::vector<std::string> kernels;
  bool correct = true;
  for (const bve_bench_result& result : results) {
    std::vector<std::pair<const char*, std::string>> fields = {
        {"kernel", quote(result.kernel)}, {"what", quote(result.what)},
        {"m", print_whole(result.m)},     {"n", print_whole(result.n)},
        {"k", print_whole(result.k)},     {"correct", json::print_bool(result.correct)},
    };
    if (result.correct) fields.push_back({"us", print(result.ns * 1e-3)});
    if (result.correct && result.gmac_per_s > 0) {
      fields.push_back({"gmac_per_s", print(result.gmac_per_s)});
    }
    if (result.correct && result.peak_gmac_per_s > 0) {
      fields.push_back({"peak_gmac_per_s", print(result.peak_gmac_per_s)});
      fields.push_back({"share_of_peak", print(result.gmac_per_s / result.peak_gmac_per_s)});
    }
    kernels.push_back(object(fields));
    correct &= result.correct;
  }
  std::puts(
      object({{"machine", describe_machine()}, {"kernels", json::list(kernels)}}, kLines).c_str());
  return correct ? 0 : 1;
}

int tell_clock(const Arguments& arguments) {
  keep_to(arguments.cores);
  const std::optional<int64_t> throttled = count_throttled();
  std::puts(object({{"clock_mhz", print(measure_clock_mhz())},
                    {"throttled_periods",
                     throttled ? print_whole(static_cast<uint64_t>(*throttled)) : "null"}})
                .c_str());
  return 0;
}

int probe(const Arguments& arguments) {
  if (!arguments.root.empty() && access((arguments.root + "/.").c_str(), X_OK) != 0) {
    throw UserError("--root " + arguments.root + ": " + std::strerror(errno) +
                    ", expected a folder with proc and sys; check the path");
  }
  const char* const described = bve_probe(arguments.root.c_str());
  if (!described) throw std::bad_alloc();
  std::puts(described);
  return 0;
}

int main(const Arguments& arguments) {
  if (arguments.verb == "help") return std::fputs(describe_usage().c_str(), stdout), 0;
  if (arguments.verb == "version") return std::puts(BVE_VERSION), 0;
  if (arguments.verb == "info") return inform(arguments);
  if (arguments.verb == "run") return run(arguments);
  if (arguments.verb == "kernels") return time_kernels(arguments);
  if (arguments.verb == "probe") return probe(arguments);
  if (arguments.verb == "profile") return profile(arguments);
  if (arguments.verb == "serve") return serve(arguments);
  if (arguments.verb == "watch") return watch(arguments);
  if (arguments.verb == "hold") return hold(arguments);
  if (arguments.verb == "clock") return tell_clock(arguments);
  return bench(arguments);
}

}  // namespace
}  // namespace bve

int main(int count, char** words) {
  try {
    const int status = bve::main(bve::parse({words + 1, words + count}));
    if (std::fflush(stdout)) throw bve::UserError("stdout that takes nothing more, expected room");
    return status;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bve-run: %s\n", error.what());
    return 2;
  }
}
