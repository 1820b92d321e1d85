// The kernel's counters of what this thread does, and the threads that it starts from now on.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace bve {

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
