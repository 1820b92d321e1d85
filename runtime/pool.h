// Threads that help a caller with its runs. They are asked and not waited for: what they do and
// when a run is over is the work's own business.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "bell.h"
#include "system.h"

namespace bve {

// Where a pool's threads run. cores: those allowed to helpers, of which they stay off the caller's
// where there are others; empty: wherever the system puts them. is_fixed: thread i stays on
// cores[i], the caller while it runs; else nobody touches the caller's affinity.
struct Placement {
  std::vector<int> cores;
  bool is_fixed = false;
};

class Pool {
 public:
  using Work = void (*)(size_t thread, uint32_t round, void* context);

  // The caller of run is thread 0; helpers are made here and sleep until then. They look out for
  // the next run for spin_ns before they sleep again. usable: cores that the process may use; a
  // helper runs only while all pools' threads together, callers included, are no more.
  Pool(Work work, void* context, size_t threads, Placement placement, size_t usable,
       int64_t spin_ns);
  ~Pool();
  Pool(const Pool&) = delete;

  // Ends the helpers, after their rounds. Nothing can be run afterwards.
  void stop();

  size_t threads() const { return threads_; }
  // False where a fork has copied it and not its threads: it can neither run nor be destroyed.
  bool is_whole() const;

  // Asks helpers for work(thread, round, context), does work(0, ...) itself and returns when that
  // does. A helper may come to a round late, or when it is over. round: another one each time, not
  // 0 nor UINT32_MAX. Throws Error if it is not whole. Allocates nothing.
  void run(uint32_t round);

  // Whether the process runs more threads than it has cores.
  bool is_crowded() const { return running_.load(std::memory_order_relaxed) > usable_; }

  // What a thread has in hand, in a measure of its own; 0: nothing that others may wait for.
  void hold(size_t thread, uint64_t work) {
    members_[thread].held.store(work, std::memory_order_relaxed);
  }
  uint64_t most_held() const;
  // A thread's speed in its last rounds, in that measure a nanosecond, 0 before its first; and its
  // part of all threads' speed.
  double speed_of(size_t thread) const {
    return members_[thread].speed.load(std::memory_order_relaxed);
  }
  double share_of(size_t thread) const;
  void note_speed(size_t thread, double speed);

  // Priority donation. The caller, before it sleeps until helpers have done what they have in hand,
  // moves the one that has the most to its own core, for it may be waiting for one that something
  // else is busy on. Of a fixed pool nothing is moved.
  void lend_core();
  // The caller's, once it has slept; and a helper's with nothing in hand. Beside the caller the
  // guest would but wait for its turn, so it leaves.
  void reclaim_core();
  void return_core(size_t thread);
  // Whether a thread is to go on; the caller always is.
  bool is_on_duty(size_t thread) const { return thread == 0 || !is_crowded(); }

  // The helpers' CPU time so far, and the caller's inside run.
  uint64_t cpu_ns() const;
  // The cores that a thread may run on now.
  std::vector<int> list_cores(size_t thread) const;

 private:
  struct alignas(64) Member {  // the caller is the first
    std::thread thread;
    std::atomic<pid_t> id{0};
    std::atomic<uint32_t> round{0};                        // that it is asked for
    std::atomic<bool> is_running{false}, is_guest{false};  // on a core that it was lent
    std::atomic<uint64_t> held{0};
    std::atomic<double> speed{0};
    Bell bell;
  };

  void serve(size_t thread);
  void ask(uint32_t round);
  void keep_apart();

  static std::atomic<size_t> running_;  // threads of all pools

  const Work work_;
  void* const context_;
  const size_t threads_;
  const pid_t process_;
  const Placement placement_;
  const size_t usable_;
  const int64_t spin_ns_;
  const std::unique_ptr<Member[]> members_;
  CoreSet allowed_;                   // to the caller of a fixed pool, outside run
  std::atomic<int> caller_core_{-1};  // where it was seen last
  bool are_placed_ = false;           // helpers, off it; the caller's, as the next
  size_t guest_ = 0;                  // the helper that was lent the caller's core; 0: none
  uint64_t caller_ns_ = 0;
};

// Destroys a pool; leaves one that is not whole where it is, for its locks wait for threads that
// are not there.
struct EndPool {
  void operator()(Pool* pool) const {
    if (pool->is_whole()) delete pool;
  }
};

}  // namespace bve
