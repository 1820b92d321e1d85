#include "pool.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "error.h"

namespace bve {
namespace {

constexpr uint32_t kStop = UINT32_MAX;  // a round that is none

uint64_t read_clock_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(t.tv_nsec);
}

pid_t read_thread_id() { return static_cast<pid_t>(syscall(SYS_gettid)); }

// thread 0: the calling one. A core that is offline or forbidden is no error: the thread then runs
// where it may.
void allow(pid_t thread, const std::vector<int>& cores, int except = -1) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) {
    if (core != except) CPU_SET(core, &set);
  }
  sched_setaffinity(thread, sizeof set, &set);
}

}  // namespace

std::atomic<size_t> Pool::running_{0};

Pool::Pool(Work work, void* context, size_t threads, Placement placement, size_t usable,
           int64_t spin_ns)
    : work_(work),
      context_(context),
      threads_(threads),
      process_(getpid()),
      placement_(std::move(placement)),
      usable_(usable),
      spin_ns_(spin_ns),
      members_(new Member[threads]) {
  // a child of a fork has none of the threads that run
  static const int registered = pthread_atfork(nullptr, nullptr, [] { running_ = 0; });
  static_cast<void>(registered);
  try {
    for (size_t thread = 1; thread < threads; thread++)
      members_[thread].thread = std::thread([this, thread] { serve(thread); });
  } catch (...) {  // the system gives no more threads
    stop();
    throw;
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  for (size_t thread = 1; thread < threads_; thread++) {
    members_[thread].round.store(kStop);
    members_[thread].bell.ring();
  }
  for (size_t thread = 1; thread < threads_; thread++) {
    if (members_[thread].thread.joinable()) members_[thread].thread.join();
  }
}

bool Pool::is_whole() const { return threads_ == 1 || getpid() == process_; }

void Pool::run(uint32_t round) {
  if (!is_whole()) {
    fail(
        "a session made in another process, expected one of this process; start it after the fork");
  }
  // the thread's own clock takes ten times as long to read
  const clockid_t clock = threads_ > 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  const uint64_t before = read_clock_ns(clock);
  const size_t running = running_.fetch_add(1) + 1;
  const bool moves = placement_.is_fixed && sched_getaffinity(0, sizeof allowed_, &allowed_) == 0;
  if (moves) allow(0, {placement_.cores[0]});
  if (threads_ > 1) ask(round, running);
  work_(0, round, context_);
  if (moves) sched_setaffinity(0, sizeof allowed_, &allowed_);
  running_--;
  caller_ns_ += read_clock_ns(clock) - before;
}

void Pool::ask(uint32_t round, size_t running) {
  for (size_t thread = 1; thread < threads_; thread++)
    running -= members_[thread].is_running;  // late from the round before, and to go on with this
  const size_t most = usable_ > running ? usable_ - running : 0;
  members_[0].id.store(read_thread_id(), std::memory_order_relaxed);
  if (!placement_.is_fixed && most > 0) keep_apart();
  for (size_t thread = 1; thread < threads_ && thread <= most; thread++) {
    Member& helper = members_[thread];
    if (!helper.is_running.exchange(true)) running_++;
    helper.round.store(round, std::memory_order_release);
    helper.bell.ring();
  }
}

// A thread that wakes lands on the core of who woke it, and may stay there for milliseconds while
// another core idles.
void Pool::keep_apart() {
  const int core = sched_getcpu();
  if (placement_.cores.empty() || (are_placed_ && core == caller_core_)) return;
  caller_core_ = core;
  bool all = true;
  for (size_t thread = 1; thread < threads_; thread++) {
    const pid_t id = members_[thread].id.load(std::memory_order_acquire);
    all &= id != 0;  // else it has not begun
    if (id != 0) allow(id, placement_.cores, core);
  }
  are_placed_ = all;
}

uint64_t Pool::most_held() const {
  uint64_t most = 0;
  for (size_t thread = 0; thread < threads_; thread++)
    most = std::max(most, members_[thread].held.load(std::memory_order_relaxed));
  return most;
}

double Pool::share_of(size_t thread) const {
  double all = 0;
  for (size_t other = 0; other < threads_; other++) {
    if (speed_of(other) == 0) return 1.0 / static_cast<double>(threads_);
    all += speed_of(other);
  }
  return speed_of(thread) / all;
}

void Pool::note_speed(size_t thread, double speed) {
  const double before = speed_of(thread);
  members_[thread].speed.store(before == 0 ? speed : (before + speed) / 2,
                               std::memory_order_relaxed);
}

void Pool::lend_core(size_t lender) {
  if (placement_.is_fixed || is_crowded()) return;
  const int core = sched_getcpu();
  for (size_t thread = 0; thread < threads_; thread++) {
    Member& member = members_[thread];
    if (thread == lender || member.held.load(std::memory_order_relaxed) == 0) continue;
    const pid_t id = member.id.load(std::memory_order_relaxed);
    cpu_set_t allowed;
    if (sched_getaffinity(id, sizeof allowed, &allowed) != 0) continue;
    member.is_guest = thread > 0;
    allow(id, {core});
    CPU_SET(core, &allowed);
    sched_setaffinity(id, sizeof allowed, &allowed);  // it stays where it is now
    are_placed_ = false;
    if (thread > 0) continue;
    caller_core_ = core;
    allow(0, placement_.cores, core);
  }
  if (lender == 0) caller_core_ = core;
}

void Pool::reclaim_core(size_t lender) {
  for (size_t thread = 1; thread < threads_; thread++) {
    if (thread != lender) return_core(thread);
  }
}

void Pool::return_core(size_t guest) {
  Member& member = members_[guest];
  if (member.is_guest.load(std::memory_order_relaxed) && member.is_guest.exchange(false))
    allow(member.id, placement_.cores, caller_core_);
}

void Pool::serve(size_t thread) {
  Member& self = members_[thread];
  self.id.store(read_thread_id(), std::memory_order_release);
  if (placement_.is_fixed) allow(0, {placement_.cores[thread]});
  for (uint32_t seen = 0;;) {
    const auto is_asked = [&] { return self.round.load(std::memory_order_acquire) != seen; };
    const bool rests = seen == 0 || !is_on_duty(thread);
    if (!Bell::watch(rests ? 0 : spin_ns_, is_asked)) self.bell.sleep(is_asked);
    seen = self.round.load(std::memory_order_acquire);
    if (seen != kStop) work_(thread, seen, context_);
    if (self.is_running.exchange(false)) running_--;
    if (seen == kStop) return;
  }
}

uint64_t Pool::cpu_ns() const {
  uint64_t total = caller_ns_;
  for (size_t thread = 1; thread < threads_; thread++) {
    clockid_t clock;
    if (pthread_getcpuclockid(members_[thread].thread.native_handle(), &clock) == 0)
      total += read_clock_ns(clock);
  }
  return total;
}

std::vector<int> Pool::list_cores(size_t thread) const {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  sched_getaffinity(thread == 0 ? 0 : members_[thread].id.load(), sizeof set, &set);
  for (int core = 0; core < CPU_SETSIZE; core++) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

}  // namespace bve
