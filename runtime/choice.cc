#include "choice.h"

#include <unistd.h>

#include <algorithm>
#include <string>

#include "cgroups.h"
#include "clock.h"
#include "json.h"

namespace bve {
namespace {

constexpr int kWarmups = 2, kRuns = 5;
constexpr uint32_t kPauseUs = 2'000;  // before each run, as images come: threads have gone asleep
constexpr double kGain = 0.97;        // of the time: for less, more threads are not worth it

struct Candidate {
  const char* way;
  bve_options options;
  std::unique_ptr<Session> session;
  std::vector<double> times_ms;

  double median_ms() const {
    std::vector<double> sorted = times_ms;
    std::nth_element(sorted.begin(), sorted.begin() + kRuns / 2, sorted.end());
    return sorted[kRuns / 2];
  }
};

// Those of fewer threads first.
std::vector<Candidate> list_candidates(const bve_options& asked, const std::vector<Core>& cores) {
  const auto is_big = [&](const Core& core) { return !is_little(core, cores[0]); };
  const auto big = static_cast<uint32_t>(std::count_if(cores.begin(), cores.end(), is_big));
  const auto little = static_cast<uint32_t>(cores.size()) - big;
  std::vector<Candidate> candidates;
  const auto add = [&](const char* way, uint32_t threads, uint32_t little_threads) {
    bve_options options = asked;
    options.threads = threads;
    options.little_threads = little_threads;
    candidates.push_back({way, options, nullptr, {}});
  };
  add("one thread", 1, 0);
  const uint32_t threads = asked.threads;
  if (std::min(big, threads) > 1) add("big cores", std::min(big, threads), 0);
  if (threads > 1 && little > 0) {
    const uint32_t p = std::min(big, threads - 1), e = std::min(little, threads - p);
    add("lanes", p + e, e);
  }
  if (threads > big) add("all cores", threads, 0);
  return candidates;
}

// All in turn, so that what the machine does meanwhile falls on each alike.
void measure(std::vector<Candidate>& candidates, uint32_t pause_us) {
  const Entry& entry = candidates[0].session->entry();
  const std::vector<float> image(size_t{3} * entry.image_size * entry.image_size, 0.5f);
  std::vector<float> logits(entry.classes);
  for (int run = -kWarmups; run < kRuns; run++) {
    for (Candidate& candidate : candidates) {
      usleep(pause_us);
      const uint64_t start = read_clock_ns();
      candidate.session->run(image.data(), image.size(), logits.data(), logits.size());
      if (run >= 0)
        candidate.times_ms.push_back(1e-6 * static_cast<double>(read_clock_ns() - start));
    }
  }
}

}  // namespace

std::unique_ptr<Session> choose_session(const Program& program, Weights& weights, float keep,
                                        const bve_options& options, const std::vector<Core>& cores,
                                        size_t usable) {
  if (options.little_threads > 0) {
    fail("%u LITTLE threads with choose, expected 0: how many there are is chosen",
         options.little_threads);
  }
  check_threads(options.threads, usable);
  std::vector<Candidate> candidates = list_candidates(options, cores);
  for (Candidate& candidate : candidates) {
    candidate.session =
        std::make_unique<Session>(program, weights, keep, candidate.options, cores, usable);
  }
  measure(candidates, std::max(kPauseUs, options.spin_us));

  Candidate* best = &candidates[0];
  std::vector<std::string> tried;
  for (Candidate& candidate : candidates) {
    if (candidate.median_ms() < kGain * best->median_ms()) best = &candidate;
    tried.push_back(
        json::object({{"way", json::quote(candidate.way)},
                      {"threads", json::print_whole(candidate.options.threads)},
                      {"little_threads", json::print_whole(candidate.options.little_threads)},
                      {"ms", json::print(candidate.median_ms())}}));
  }
  best->session->explain(
      json::object({{"chosen", json::quote(best->way)}, {"medians", json::list(tried, ", ")}}));
  return std::move(best->session);
}

}  // namespace bve
