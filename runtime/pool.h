// Threads that walk one program together: each runs the same function and they meet at barriers.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace bve {

// Where `count` threads wait for each other. They spin for about the length of a small op, for to
// be woken takes as long; then they sleep, so that a core whose lane is done early costs no energy.
class Barrier {
 public:
  explicit Barrier(size_t count) : count_(count) {}
  void wait();

 private:
  const size_t count_;
  std::atomic<size_t> arrived_{0}, asleep_{0};
  std::atomic<uint32_t> round_{0};  // what a sleeper waits to see changed
};

class Pool {
 public:
  // The caller of run is thread 0; threads 1.. are made here and sleep until then. cores: for each
  // thread the core to stay on, the caller while it runs; empty: wherever the system puts them.
  Pool(size_t threads, const std::vector<int>& cores);
  ~Pool();
  Pool(const Pool&) = delete;

  size_t threads() const { return workers_.size() + 1; }

  // False where a fork has copied it and not its threads: it can neither run nor be destroyed.
  bool is_whole() const;

  // work(thread, context) on every thread; returns when all have. Throws Error if it is not whole.
  // Allocates nothing.
  void run(void (*work)(size_t thread, void* context), void* context);

 private:
  void serve(size_t thread);
  void stop();

  const pid_t process_;
  std::vector<std::thread> workers_;
  std::vector<int> cores_;
  cpu_set_t allowed_;  // to the caller, outside run
  std::mutex mutex_;
  std::condition_variable start_;
  void (*work_)(size_t, void*) = nullptr;
  void* context_ = nullptr;
  size_t round_ = 0;
  bool stopped_ = false;
  Barrier done_;
};

// Destroys a pool; leaves one that is not whole where it is, for its locks wait for threads that
// are not there.
struct EndPool {
  void operator()(Pool* pool) const {
    if (pool->is_whole()) delete pool;
  }
};

}  // namespace bve
