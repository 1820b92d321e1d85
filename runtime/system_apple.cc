#if defined(__APPLE__)

#include <mach/mach.h>
#include <sys/sysctl.h>

#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "system.h"

namespace bve {
namespace {

// Words share these by their addresses; a wake that is another's does no harm.
struct Sleepers {
  std::mutex mutex;
  std::condition_variable woken;
};

Sleepers& find_sleepers(const std::atomic<uint32_t>& word) {
  constexpr size_t kCount = 64, kLine = 64;
  static Sleepers* const all = new Sleepers[kCount];  // never freed: threads may outlive main
  return all[reinterpret_cast<uintptr_t>(&word) / kLine % kCount];
}

int read_number(const char* name) {
  int number = 0;
  size_t bytes = sizeof number;
  return sysctlbyname(name, &number, &bytes, nullptr, 0) == 0 ? number : 0;
}

uint64_t to_ns(const time_value_t& time) {
  return static_cast<uint64_t>(time.seconds) * 1'000'000'000 +
         static_cast<uint64_t>(time.microseconds) * 1'000;
}

}  // namespace

pid_t read_thread_id() { return static_cast<pid_t>(pthread_mach_thread_np(pthread_self())); }

int read_current_core() { return -1; }

bool read_affinity(pid_t, CoreSet&) { return false; }

bool set_affinity(pid_t, const CoreSet&) { return false; }

std::optional<std::vector<int>> read_affinity() { return std::nullopt; }

uint64_t read_cpu_ns(pthread_t thread) {
  thread_basic_info info{};
  mach_msg_type_number_t count = THREAD_BASIC_INFO_COUNT;
  if (thread_info(pthread_mach_thread_np(thread), THREAD_BASIC_INFO,
                  reinterpret_cast<thread_info_t>(&info), &count) != KERN_SUCCESS) {
    return 0;
  }
  return to_ns(info.user_time) + to_ns(info.system_time);
}

void wait_while(std::atomic<uint32_t>& word, uint32_t value) {
  Sleepers& sleepers = find_sleepers(word);
  std::unique_lock<std::mutex> lock(sleepers.mutex);
  if (word.load() == value) sleepers.woken.wait(lock);
}

void wake_all(std::atomic<uint32_t>& word) {
  Sleepers& sleepers = find_sleepers(word);
  {
    const std::lock_guard<std::mutex> lock(sleepers.mutex);
  }  // whoever has looked is asleep now
  sleepers.woken.notify_all();
}

std::vector<int> count_cores_by_level() {
  std::vector<int> counts;
  for (int level = 0; level < read_number("hw.nperflevels"); level++) {
    const std::string name = "hw.perflevel" + std::to_string(level) + ".logicalcpu";
    if (const int count = read_number(name.c_str()); count > 0) counts.push_back(count);
  }
  if (counts.empty()) counts.push_back(static_cast<int>(std::thread::hardware_concurrency()));
  return counts;
}

int open_counter(uint32_t, uint64_t) {
  errno = ENOSYS;
  return -1;
}

}  // namespace bve

#endif
