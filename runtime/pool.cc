#include "pool.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "clock.h"
#include "error.h"

namespace bve {
namespace {

constexpr uint32_t kStop = UINT32_MAX;  // a round that is none

bool allow_one(pid_t thread, int core) {
  CoreSet set;
  set.add(core);
  return set_affinity(thread, set);
}

bool allow_all(pid_t thread, const std::vector<int>& cores, int but = -1) {
  CoreSet set;
  for (const int core : cores) {
    if (core != but) set.add(core);
  }
  return set_affinity(thread, set);
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
  } catch (const std::system_error& error) {
    stop();
    fail(
        "a thread that the system does not give (%s), expected %zu; ask for fewer, or raise its "
        "limit",
        error.code().message().c_str(), threads - 1);
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
  const uint64_t before = read_clock_ns(CLOCK_THREAD_CPUTIME_ID);
  running_++;
  const bool moves = placement_.is_fixed && read_affinity(0, allowed_);
  if (moves) allow_one(0, placement_.cores[0]);
  if (threads_ > 1) ask(round);
  work_(0, round, context_);
  if (moves) set_affinity(0, allowed_);
  running_--;
  caller_ns_ += read_clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
}

void Pool::ask(uint32_t round) {
  if (!placement_.is_fixed) keep_apart();
  for (size_t thread = 1; thread < threads_; thread++) {
    Member& helper = members_[thread];
    if (!helper.is_running) {  // else it is late from the round before, and goes on with this one
      if (running_.fetch_add(1) >= usable_) {
        running_--;
        return;
      }
      if (helper.is_running.exchange(true)) running_--;
    }
    helper.round.store(round, std::memory_order_release);
    helper.bell.ring();
  }
}

// A thread that wakes lands on the core of who woke it, and may stay there for milliseconds while
// another core idles.
void Pool::keep_apart() {
  const int core = read_current_core();
  if (placement_.cores.empty() || (are_placed_ && core == caller_core_)) return;
  caller_core_ = core;
  are_placed_ = true;
  for (size_t thread = 1; thread < threads_; thread++) {
    const pid_t id = members_[thread].id.load(std::memory_order_acquire);
    if (id == 0 || !allow_all(id, placement_.cores, core)) are_placed_ = false;  // 0: not begun
  }
}

uint64_t Pool::most_held() const {
  uint64_t most = 0;
  for (size_t thread = 1; thread < threads_; thread++)
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

void Pool::lend_core() {
  if (placement_.is_fixed || placement_.cores.empty() || is_crowded()) return;
  uint64_t most = 0;
  for (size_t thread = 1; thread < threads_; thread++) {
    const uint64_t held = members_[thread].held.load(std::memory_order_relaxed);
    if (held > most) most = held, guest_ = thread;
  }
  if (most == 0) return;
  Member& guest = members_[guest_];
  const int core = read_current_core();
  caller_core_ = core;
  guest.is_guest = true;
  are_placed_ = false;
  if (allow_one(guest.id, core)) allow_all(guest.id, placement_.cores);  // it stays there for now
  if (!guest.is_guest || guest.held == 0) {  // it was done meanwhile, and may have gone already
    guest.is_guest = true;
    return_core(guest_);
  }
}

void Pool::reclaim_core() {
  if (guest_ > 0) return_core(guest_);
  guest_ = 0;
}

void Pool::return_core(size_t guest) {
  Member& member = members_[guest];
  if (member.is_guest.load(std::memory_order_relaxed) && member.is_guest.exchange(false))
    allow_all(member.id, placement_.cores, caller_core_);
}

void Pool::serve(size_t thread) {
  Member& self = members_[thread];
  self.id.store(read_thread_id(), std::memory_order_release);
  if (placement_.is_fixed) allow_one(0, placement_.cores[thread]);
  for (uint32_t seen = 0;;) {
    const auto is_asked = [&] { return self.round.load(std::memory_order_acquire) != seen; };
    const bool rests = seen == 0 || !is_on_duty(thread);
    if (!Bell::watch(rests ? 0 : spin_ns_, is_asked)) self.bell.sleep(is_asked);
    seen = self.round.load(std::memory_order_acquire);
    if (seen == kStop) break;
    if (!self.is_running.exchange(true)) running_++;  // the caller saw it in the round before
    work_(thread, seen, context_);
    if (self.is_running.exchange(false)) running_--;
  }
  if (self.is_running.exchange(false)) running_--;
}

uint64_t Pool::cpu_ns() const {
  uint64_t total = caller_ns_;
  for (size_t thread = 1; thread < threads_; thread++)
    total += read_cpu_ns(members_[thread].thread.native_handle());
  return total;
}

std::vector<int> Pool::list_cores(size_t thread) const {
  if (placement_.is_fixed && thread == 0) return {placement_.cores[0]};  // while it runs
  CoreSet set;
  std::vector<int> cores;
  read_affinity(thread == 0 ? 0 : members_[thread].id.load(), set);
  for (int core = 0; core < CoreSet::kCount; core++) {
    if (set.has(core)) cores.push_back(core);
  }
  return cores;
}

}  // namespace bve
