#include "pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

#include "error.h"

namespace bve {
namespace {

// By the clock, for a pause may be anything: 24 ns on a Zen 4; ARM's yield is mostly a no-op.
constexpr int64_t kSpinNs = 50'000;
constexpr int kSpinsAtOnce = 16;  // between looks at it, each as long as a Zen 4's pause

int64_t read_clock() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

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

static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

void call_futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
  syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
}

}  // namespace

void Barrier::wait() {
  if (count_ == 1) return;
  const uint32_t round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1);  // before it looks for sleepers, who count themselves before they look
    if (asleep_.load() > 0) call_futex(round_, FUTEX_WAKE_PRIVATE, INT_MAX);
    return;
  }
  const int64_t end = read_clock() + kSpinNs;
  do {
    for (int spins = 0; spins < kSpinsAtOnce; spins++) {
      if (round_.load(std::memory_order_acquire) != round) return;
      relax();
    }
  } while (read_clock() < end);
  asleep_++;
  while (round_.load() == round) call_futex(round_, FUTEX_WAIT_PRIVATE, round);
  asleep_--;
}

Pool::Pool(size_t threads, const std::vector<int>& cores)
    : process_(getpid()), cores_(cores), done_(threads) {
  try {
    for (size_t thread = 1; thread < threads; thread++) {
      workers_.emplace_back([this, thread] { serve(thread); });
    }
  } catch (...) {  // the system gives no more threads
    stop();
    throw;
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

bool Pool::is_whole() const { return workers_.empty() || getpid() == process_; }

void Pool::run(void (*work)(size_t, void*), void* context) {
  if (!is_whole()) {
    fail(
        "a session made in another process, expected one of this process; start it after the fork");
  }
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
