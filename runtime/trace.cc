#include "trace.h"

#include <algorithm>

#include "clock.h"
#include "system.h"

namespace bve {

Trace::Trace(const Frame& frame, Records<Op> ops, size_t threads, size_t most)
    : ops_(ops), most_(most), logs_(threads), times_(new std::atomic<uint64_t>[ops.count]) {
  for (Log& log : logs_) log.events.reset(new bve_event[most]);
  for (const Op& op : ops) {
    const bool routes = op.kind == OpKind::kRoute;
    rows_.emplace_back(routes ? frame.columns(get<RouteArgs>(op).selected) : 0);
  }
  begin();
}

void Trace::begin() {
  for (Log& log : logs_) log.count = log.lost = 0;
  for (uint32_t i = 0; i < ops_.count; i++) times_[i].store(0, std::memory_order_relaxed);
}

void Trace::note(const Frame& frame, size_t thread, uint32_t op, Range tiles, uint64_t start_ns) {
  const uint64_t end_ns = read_clock_ns();
  times_[op].fetch_add(end_ns - start_ns, std::memory_order_relaxed);
  Log& log = logs_[thread];
  if (log.count < most_) {
    log.events[log.count++] = {start_ns,
                               end_ns,
                               op,
                               static_cast<uint32_t>(thread),
                               static_cast<uint32_t>(tiles.size()),
                               read_current_core()};
  } else {
    log.lost++;
  }
  if (rows_[op].empty()) return;
  const int32_t* const chosen = frame.list(get<RouteArgs>(ops_[op]).selected);
  std::copy(chosen, chosen + rows_[op].size(), rows_[op].begin());
}

size_t Trace::copy_events(bve_event* events, size_t count, size_t& lost) const {
  size_t all = 0;
  lost = 0;
  for (const Log& log : logs_) {
    const size_t copied = all < count ? std::min(log.count, count - all) : 0;
    if (copied > 0) std::copy_n(log.events.get(), copied, events + all);
    all += log.count;
    lost += log.lost;
  }
  return all;
}

}  // namespace bve
