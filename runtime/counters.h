// The kernel's counters of what this thread does, and the threads that it starts from now on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "system_files.h"

namespace bve {

// What counts on cores of one kind, as the kernel calls it; cores: their list, "" where it is all.
struct Pmu {
  std::string name;
  std::optional<int64_t> type;  // as perf_event_open takes it
  std::string cores;
};
std::vector<Pmu> list_pmus(SystemFiles& files);

class Counters {
 public:
  // root: before /sys, "" for this machine's. Opens what can be opened; the rest says why not.
  explicit Counters(const std::string& root);
  Counters(const Counters&) = delete;
  ~Counters();

  // JSON: [{"event", "pmu", "count", "enabled_ns", "running_ns"} or {"event", "pmu", "missing"},
  // ...]. pmu: the kind of cores that it counts on, "" where there is but one; count: so far, in
  // user space alone, during running_ns of enabled_ns, for a CPU has few counters and events may
  // have to share them; missing: why there is no count.
  std::string read() const;

 private:
  struct Counter {
    std::string event, pmu, missing;
    int file = -1;
  };
  void open(const char* event, const std::string& pmu, uint32_t type, uint64_t config);

  std::vector<Counter> counters_;
};

}  // namespace bve
