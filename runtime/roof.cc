#include "roof.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "bench.h"
#include "json.h"
#include "operands.h"
#include "select.h"

namespace bve {
namespace {

constexpr size_t kSizes[] = {size_t{256} << 10, size_t{64} << 20};  // a core's cache, and memory
constexpr double kSeconds = 0.06;                                   // of reading

// What threads do a second, together: each measures by itself once all are there.
double measure_together(size_t threads, const std::function<double(size_t thread)>& measure) {
  std::vector<double> rates(threads);
  std::vector<std::thread> others;
  std::atomic<size_t> there{0};
  const auto work = [&](size_t thread) {
    there++;
    while (there < threads) std::this_thread::yield();
    rates[thread] = measure(thread);
  };
  for (size_t i = 1; i < threads; i++) others.emplace_back(work, i);
  work(0);
  for (std::thread& other : others) other.join();
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum;
}

// As wide as every CPU's registers.
typedef uint64_t Words __attribute__((vector_size(16)));

// Eight sums at once: what is read is used, and no sum waits for the one before.
uint64_t add_up(const Words* words, size_t count) {
  Words sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (size_t j = 0; j < 8; j++) sums[j] += words[i + j];
  }
  for (size_t j = 1; j < 8; j++) sums[0] += sums[j];
  return sums[0][0] + sums[0][1];
}

// Bytes a second, the best of many readings: a neighbour's burst is not the machine.
double measure_reading(const std::byte* bytes, size_t count) {
  static std::atomic<uint64_t> kept{0};  // so that the sums are wanted
  const size_t words = count / sizeof(Words);
  const size_t repeats = std::max<size_t>((size_t{1} << 20) / std::max<size_t>(count, 1), 1);
  double best = 0;
  for (const double end = bve_seconds() + kSeconds; best == 0 || bve_seconds() < end;) {
    const double start = bve_seconds();
    for (size_t i = 0; i < repeats; i++)
      kept += add_up(reinterpret_cast<const Words*>(bytes), words);
    best = std::max(best, static_cast<double>(count * repeats) / (bve_seconds() - start));
  }
  return best;
}

}  // namespace

std::string measure_roof(size_t threads) {
  const uint32_t isa = bve_detect_isa();
  std::vector<std::pair<const char*, std::string>> peaks;
  for (const auto& [name, type] : {std::pair{"f32", bve_f32}, {"f16", bve_f16}, {"qd8", bve_qd8}}) {
    const double rate =
        measure_together(threads, [&, t = type](size_t) { return bve_measure_peak(isa, t); });
    peaks.push_back({name, json::print(rate)});
  }
  std::vector<std::string> readings;
  for (const size_t size : kSizes) {
    // in a core's cache each has its own; memory they share
    const size_t part = size == kSizes[0] ? size : size / threads / 64 * 64;
    const Memory memory = allocate(part * threads);
    const double rate = measure_together(threads, [&](size_t thread) {
      std::byte* const own = memory.get() + thread * part;
      std::fill(own, own + part, std::byte{1});  // zeros that nobody wrote are one page
      return measure_reading(own, part);
    });
    readings.push_back(
        json::object({{"bytes", json::print_whole(part)}, {"gb_per_s", json::print(rate * 1e-9)}}));
  }
  return json::object({{"threads", json::print_whole(threads)},
                       {"gmac_per_s", json::object(peaks)},
                       {"read_gb_per_s", json::list(readings, ", ")}});
}

}  // namespace bve
