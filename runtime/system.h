// What each system does in a way of its own: where threads run, how they sleep, what counts what
// they do. system_linux.cc, system_apple.cc. Apple's systems let nobody choose cores.
#pragma once

#include <pthread.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

namespace bve {

// Cores by number, those below kCount; of others nothing is kept.
class CoreSet {
 public:
  static constexpr int kCount = 1024;

  void add(int core) {
    if (core >= 0 && core < kCount) words_[core / 64] |= uint64_t{1} << core % 64;
  }
  bool has(int core) const { return words_[core / 64] >> core % 64 & 1; }

 private:
  uint64_t words_[kCount / 64] = {};
};

// The calling thread, as the system numbers it.
pid_t read_thread_id();
// The core that the calling thread runs on; -1 where the system does not say.
int read_current_core();

// The cores that a thread, 0 being the calling one, is allowed. False where the system does not
// tell, or takes none of them: the thread then runs where it might before. Allocates nothing.
bool read_affinity(pid_t thread, CoreSet& cores);
bool set_affinity(pid_t thread, const CoreSet& cores);
// The calling thread's, whatever their numbers; nothing where the system does not tell.
std::optional<std::vector<int>> read_affinity();

// CPU time of a thread of this process; 0 where the system does not tell.
uint64_t read_cpu_ns(pthread_t thread);

// A futex: returns at a wake, at once where word is not value, and perhaps for nothing.
void wait_while(std::atomic<uint32_t>& word, uint32_t value);
void wake_all(std::atomic<uint32_t>& word);

// How many cores there are of each level of performance, fastest first; none where /sys lists them.
std::vector<int> count_cores_by_level();

// A file that a kernel's counter is read from, by the numbers of Linux's perf_event_open, for the
// calling thread and those that it starts; -1 and errno where there is none.
int open_counter(uint32_t type, uint64_t config);

}  // namespace bve
