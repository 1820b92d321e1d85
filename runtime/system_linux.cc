#if defined(__linux__)

#include <linux/futex.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstring>
#include <memory>

#include "clock.h"
#include "system.h"

namespace bve {
namespace {

static_assert(sizeof(CoreSet) == sizeof(cpu_set_t) && CoreSet::kCount == CPU_SETSIZE);
static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

void call_futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
  syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
}

}  // namespace

pid_t read_thread_id() { return static_cast<pid_t>(syscall(SYS_gettid)); }

int read_current_core() { return sched_getcpu(); }

bool read_affinity(pid_t thread, CoreSet& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(thread, sizeof set, &set) != 0) return false;
  std::memcpy(static_cast<void*>(&cores), &set, sizeof set);
  return true;
}

bool set_affinity(pid_t thread, const CoreSet& cores) {
  cpu_set_t set;
  std::memcpy(&set, &cores, sizeof set);
  return sched_setaffinity(thread, sizeof set, &set) == 0;
}

std::optional<std::vector<int>> read_affinity() {
  constexpr int kMost = 65536;
  const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(
      CPU_ALLOC(kMost), [](cpu_set_t* allocated) { CPU_FREE(allocated); });
  const size_t bytes = CPU_ALLOC_SIZE(kMost);
  if (!set) return std::nullopt;
  CPU_ZERO_S(bytes, set.get());
  if (sched_getaffinity(0, bytes, set.get()) != 0) return std::nullopt;
  std::vector<int> numbers;
  for (int number = 0; number < kMost; number++) {
    if (CPU_ISSET_S(number, bytes, set.get())) numbers.push_back(number);
  }
  return numbers;
}

uint64_t read_cpu_ns(pthread_t thread) {
  clockid_t clock;
  return pthread_getcpuclockid(thread, &clock) == 0 ? read_clock_ns(clock) : 0;
}

void wait_while(std::atomic<uint32_t>& word, uint32_t value) {
  call_futex(word, FUTEX_WAIT_PRIVATE, value);
}

void wake_all(std::atomic<uint32_t>& word) { call_futex(word, FUTEX_WAKE_PRIVATE, INT_MAX); }

std::vector<int> count_cores_by_level() { return {}; }

int open_counter(uint32_t type, uint64_t config) {
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = type;
  attributes.config = config;
  attributes.inherit = 1;
  attributes.exclude_kernel = attributes.exclude_hv = 1;
  attributes.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
  return static_cast<int>(
      syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC));
}

}  // namespace bve

#endif
