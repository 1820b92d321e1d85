#include <unistd.h>

#include "doctest.h"
#include "pool.h"

namespace bve {
namespace {

struct Steps {
  Barrier barrier{3};
  std::atomic<int> before{0};
  std::atomic<bool> early{false};

  static void take(size_t, void* context) {
    Steps& steps = *static_cast<Steps*>(context);
    for (int round = 1; round <= 200; round++) {
      steps.before++;
      steps.barrier.wait();
      if (steps.before < 3 * round) steps.early = true;
      steps.barrier.wait();
    }
  }
};

TEST_CASE("nobody passes a barrier before all have come") {
  Pool pool(3, {});
  Steps steps;
  pool.run(Steps::take, &steps);
  CHECK(steps.before == 600);
  CHECK_FALSE(steps.early);
}

TEST_CASE("who waits so long that it sleeps is woken") {
  Pool pool(3, {});
  Steps steps;
  const auto work = [](size_t thread, void* context) {
    Steps& late = *static_cast<Steps*>(context);
    for (int round = 0; round < 60; round++) {
      if (round % 3 == static_cast<int>(thread)) usleep(500);
      if (thread == 0) late.before++;
      late.barrier.wait();
      if (late.before != round + 1) late.early = true;
      late.barrier.wait();
    }
  };
  pool.run(work, &steps);
  CHECK(steps.before == 60);
  CHECK_FALSE(steps.early);
}

TEST_CASE("each run is on every thread, once") {
  Pool pool(4, {0, 0, 0, 0});
  std::atomic<int> seen[4] = {};
  const auto work = [](size_t thread, void* context) {
    static_cast<std::atomic<int>*>(context)[thread]++;
  };
  for (int i = 0; i < 50; i++) pool.run(work, seen);
  for (const std::atomic<int>& count : seen) CHECK(count == 50);
}

TEST_CASE("a pool of one is its caller") {
  Pool pool(1, {});
  int runs = 0;
  pool.run([](size_t thread,
              void* context) { *static_cast<int*>(context) += 1 + static_cast<int>(thread); },
           &runs);
  CHECK(runs == 1);
}

}  // namespace
}  // namespace bve
