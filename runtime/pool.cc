#include "pool.h"

namespace bve {
namespace {

constexpr int kSpins = 4000;  // some 10 us

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A core that is offline or forbidden is no error: the thread then runs where it may.
void stay_on(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

}  // namespace

void Barrier::wait() {
  if (count_ == 1) return;
  const size_t round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_release);
    return;
  }
  for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++) {
    if (spins < kSpins) {
      relax();
    } else {
      sched_yield();
    }
  }
}

Pool::Pool(size_t threads, const std::vector<int>& cores) : cores_(cores), done_(threads) {
  for (size_t thread = 1; thread < threads; thread++) {
    workers_.emplace_back([this, thread] { serve(thread); });
  }
}

Pool::~Pool() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::run(void (*work)(size_t, void*), void* context) {
  if (!workers_.empty()) {
    {
      std::lock_guard lock(mutex_);
      work_ = work;
      context_ = context;
      round_++;
    }
    start_.notify_all();
  }
  const bool moved = !cores_.empty() && sched_getaffinity(0, sizeof allowed_, &allowed_) == 0;
  if (moved) stay_on(cores_[0]);
  work(0, context);
  done_.wait();
  if (moved) sched_setaffinity(0, sizeof allowed_, &allowed_);
}

void Pool::serve(size_t thread) {
  if (!cores_.empty()) stay_on(cores_[thread]);
  for (size_t seen = 0;;) {
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopped_ || round_ != seen; });
      if (stopped_) return;
      seen = round_;
    }
    work_(thread, context_);
    done_.wait();
  }
}

}  // namespace bve
