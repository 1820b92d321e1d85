#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "cores.h"
#include "doctest.h"
#include "emulator.h"
#include "pool.h"

namespace bve {
namespace {

constexpr int64_t kSpinNs = 20'000;

// What a test's threads do, by a function of their own.
struct Task {
  std::function<void(size_t thread, uint32_t round)> work;
  static void run(size_t thread, uint32_t round, void* task) {
    static_cast<Task*>(task)->work(thread, round);
  }
};

// Waits for what other threads will do; false after ten seconds.
bool comes(const std::function<bool()>& is_true) {
  for (int i = 0; i < 10'000 && !is_true(); i++) usleep(1'000);
  return is_true();
}

std::vector<int> list_numbers() {
  std::vector<int> numbers;
  for (const Core& core : list_cores()) numbers.push_back(core.number);
  return numbers;
}

TEST_CASE("a run is its caller's, and helpers come") {
  std::atomic<int> seen[4] = {};
  Task task{[&](size_t thread, uint32_t) { seen[thread]++; }};
  Pool pool(Task::run, &task, 4, {}, 8, kSpinNs);
  for (int round = 1; round <= 20; round++) {
    pool.run(static_cast<uint32_t>(round));
    CHECK(seen[0] == round);
    for (const std::atomic<int>& count : seen) CHECK(comes([&] { return count == round; }));
  }
}

TEST_CASE("nobody is waited for") {
  std::atomic<bool> released{false};
  Task task{[&](size_t thread, uint32_t) {
    while (thread > 0 && !released) usleep(100);
  }};
  Pool pool(Task::run, &task, 2, {}, 8, kSpinNs);
  for (uint32_t round = 1; round <= 3; round++) pool.run(round);  // else it would not end
  released = true;
}

TEST_CASE("helpers sleep and are woken") {
  std::atomic<uint32_t> last{0};
  Task task{[&](size_t thread, uint32_t round) {
    if (thread == 1) last = round;
  }};
  Pool pool(Task::run, &task, 2, {}, 8, kSpinNs);
  for (uint32_t round = 1; round <= 20; round++) {
    pool.run(round);
    CHECK(comes([&] { return last == round; }));
    usleep(500);
  }
  const uint64_t before = pool.cpu_ns();
  usleep(50'000);
  CHECK(pool.cpu_ns() - before < 10'000'000);  // asleep, not watching
}

TEST_CASE("a pool of one is its caller") {
  int runs = 0;
  Task task{[&](size_t thread, uint32_t) { runs += 1 + static_cast<int>(thread); }};
  Pool pool(Task::run, &task, 1, {}, 1, kSpinNs);
  pool.run(1);
  CHECK(runs == 1);
}

TEST_CASE("pools together do not ask for more threads than there are cores") {
  std::atomic<int> helped{0};
  Task inner_task{[&](size_t thread, uint32_t) { helped += thread > 0; }};
  Pool inner(Task::run, &inner_task, 2, {}, 2, kSpinNs);
  std::atomic<bool> helper_came{false};
  Task outer_task{[&](size_t thread, uint32_t) {
    if (thread > 0) {
      helper_came = true;
      return;
    }
    CHECK(comes([&] { return helper_came.load(); }));
    for (uint32_t round = 1; round <= 5; round++) inner.run(round);
  }};
  Pool outer(Task::run, &outer_task, 2, {}, 2, kSpinNs);
  outer.run(1);  // its caller and the inner's are two threads: both cores
  usleep(20'000);
  CHECK(helped == 0);
  inner.run(6);
  CHECK(comes([&] { return helped > 0; }));
}

TEST_CASE("helpers keep off the caller's core where there are others") {
  const std::vector<int> cores = list_numbers();
  if (cores.size() < 2) {
    MESSAGE("skipped: one core");
    return;
  }
  std::atomic<int> caller{-1}, runs{0};
  Task task{[&](size_t thread, uint32_t) {
    if (thread == 0) caller = sched_getcpu();
    runs += thread == 1;
  }};
  Pool pool(Task::run, &task, 2, {cores, false}, cores.size(), kSpinNs);
  cpu_set_t before, one;
  sched_getaffinity(0, sizeof before, &before);
  for (uint32_t round = 1; round <= 10; round++) {  // the caller moves about
    CPU_ZERO(&one);
    CPU_SET(cores[round % 2], &one);
    sched_setaffinity(0, sizeof one, &one);
    pool.run(round);
    if (round == 1) CHECK(comes([&] { return runs > 0; }));  // it has begun
    if (round == 1) continue;
    CHECK(caller == cores[round % 2]);
    const std::vector<int> allowed = pool.list_cores(1);
    CHECK(allowed.size() == cores.size() - 1);
    CHECK(std::count(allowed.begin(), allowed.end(), caller.load()) == 0);
  }
  sched_setaffinity(0, sizeof before, &before);
}

TEST_CASE("who waits lends its core to who has work in hand, and has it back") {
  const std::vector<int> cores = list_numbers();
  if (cores.size() < 2) {
    MESSAGE("skipped: one core");
    return;
  }
  Pool* pool = nullptr;
  std::atomic<bool> began{false}, lent{false};
  std::atomic<int> lenders{-1}, guests{-1};
  Task task{[&](size_t thread, uint32_t) {
    if (thread == 1) {
      pool->hold(1, 7);
      began = true;
      while (!lent) usleep(100);
      guests = sched_getcpu();
      pool->hold(1, 0);
      return;
    }
    if (!comes([&] { return began.load(); })) return;
    CHECK(pool->most_held() == 7);
    lenders = sched_getcpu();
    pool->lend_core();
    CHECK(pool->list_cores(1).size() == cores.size());  // it may stay there, or go on
    lent = true;
    CHECK(comes([&] { return guests >= 0; }));
    pool->reclaim_core();
    const std::vector<int> allowed = pool->list_cores(1);
    CHECK(allowed.size() == cores.size() - 1);
    CHECK(std::count(allowed.begin(), allowed.end(), lenders.load()) == 0);
  }};
  Pool two(Task::run, &task, 2, {cores, false}, cores.size(), kSpinNs);
  pool = &two;
  two.run(1);
}

TEST_CASE(
    "a core is lent to the helper that has most in hand, and the caller's threads are its own") {
  const std::vector<int> cores = list_numbers();
  if (cores.size() < 2) {
    MESSAGE("skipped: one core");
    return;
  }
  cpu_set_t before, one, after;
  sched_getaffinity(0, sizeof before, &before);
  CPU_ZERO(&one);
  CPU_SET(cores[1], &one);
  sched_setaffinity(0, sizeof one, &one);  // as an app may want it
  Pool* pool = nullptr;
  std::atomic<int> began{0};
  std::atomic<bool> released{false};
  Task task{[&](size_t thread, uint32_t) {
    if (thread > 0) {
      pool->hold(thread, thread);
      began++;
      while (!released) usleep(100);
      pool->hold(thread, 0);
      return;
    }
    if (!comes([&] { return began == 2; })) return;
    for (const size_t helper : {1, 2}) CHECK(pool->list_cores(helper).size() == cores.size() - 1);
    pool->lend_core();
    CHECK(pool->list_cores(1).size() == cores.size() - 1);
    CHECK(pool->list_cores(2).size() == cores.size());
    pool->reclaim_core();
    CHECK(pool->list_cores(2).size() == cores.size() - 1);
    released = true;
  }};
  Pool three(Task::run, &task, 3, {cores, false}, 8, kSpinNs);
  pool = &three;
  usleep(20'000);  // until the helpers have begun, to be placed
  three.run(1);
  sched_getaffinity(0, sizeof after, &after);
  CHECK(CPU_EQUAL(&one, &after));
  sched_setaffinity(0, sizeof before, &before);
}

TEST_CASE("fixed threads stay on their cores, the caller while it runs") {
  const int core = list_cores()[0].number;
  cpu_set_t before;
  sched_getaffinity(0, sizeof before, &before);
  Task task{[&](size_t, uint32_t) { CHECK(sched_getcpu() == core); }};
  Pool pool(Task::run, &task, 3, {{core, core, core}, true}, 8, kSpinNs);
  pool.run(1);
  cpu_set_t after;
  sched_getaffinity(0, sizeof after, &after);
  CHECK(CPU_EQUAL(&before, &after));
}

TEST_CASE("shares go by speed, once all are known") {
  Task task{[](size_t, uint32_t) {}};
  Pool pool(Task::run, &task, 2, {}, 2, kSpinNs);
  CHECK(pool.share_of(0) == 0.5);
  pool.note_speed(0, 3);
  CHECK(pool.share_of(0) == 0.5);
  pool.note_speed(1, 1);
  CHECK(pool.share_of(0) == 0.75);
  pool.note_speed(1, 2);  // half of it counts
  CHECK(pool.speed_of(1) == 1.5);
}

TEST_CASE("the child of a fork starts with all cores free") {
  if (test::is_emulated()) {
    MESSAGE("skipped: an emulator, which may hang in a fork");
    return;
  }
  std::atomic<bool> came{false};
  Task task{[&](size_t thread, uint32_t) { came = came || thread > 0; }};
  Task forking{[&](size_t thread, uint32_t) {
    if (thread > 0) return;
    const pid_t child = fork();  // while a run goes on
    if (child == 0) {
      alarm(20);
      {
        Pool pool(Task::run, &task, 2, {}, 2, kSpinNs);
        pool.run(1);
        _exit(comes([&] { return came.load(); }) ? 0 : 1);
      }
    }
    int status = 1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }};
  Pool pool(Task::run, &forking, 1, {}, 2, kSpinNs);
  pool.run(1);
}

}  // namespace
}  // namespace bve
