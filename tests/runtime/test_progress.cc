// Tiles are taken once, when what they need is done, by whoever comes.
#include <set>
#include <thread>

#include "doctest.h"
#include "progress.h"

namespace bve {
namespace {

// "first", 10 tiles; "second", 10 tiles of the same rows; "third", 4 tiles that need all of second.
Schedule make_schedule() {
  Schedule schedule;
  schedule.steps = {{0, Phase::kWhole, 0, 10, 1, 0, 1, 0, 0, 0},
                    {1, Phase::kWhole, 0, 10, 1, 10, 1, 0, 1, 0},
                    {2, Phase::kWhole, 1, 4, 2, 20, 1, 1, 1, 0}};
  schedule.needs = {{0, true}, {1, false}};
  schedule.tiles = 24;
  return schedule;
}

Worker make_worker(uint32_t round, double share = 0.5, bool from_end = false) {
  return {round, share, from_end, 3};
}

using Found = Progress::Found;

TEST_CASE("one thread finds everything, in order, and then nothing") {
  const Schedule schedule = make_schedule();
  Progress progress(schedule);
  for (const uint32_t round : {1u, 2u, kMostRounds}) {
    progress.begin(round);
    Worker worker = make_worker(round);
    std::vector<size_t> tiles(3);
    uint32_t last = 0;
    for (Taken taken; progress.take(worker, taken) == Found::kTiles;) {
      CHECK(taken.step >= last);
      last = taken.step;
      tiles[taken.step] += taken.tiles.size();
      CHECK_FALSE(progress.is_done(worker));
      progress.finish(worker, taken);
    }
    CHECK(tiles == std::vector<size_t>{10, 10, 4});
    CHECK(progress.is_done(worker));
  }
}

TEST_CASE("large pieces first, from either end, none below the grain") {
  const Schedule schedule = make_schedule();
  Progress progress(schedule);
  progress.begin(1);
  Worker front = make_worker(1), back = make_worker(1, 0.25, true);
  Taken taken;
  REQUIRE(progress.take(front, taken) == Found::kTiles);
  CHECK(taken.tiles.begin == 0);
  CHECK(taken.tiles.end == 5);
  REQUIRE(progress.take(back, taken) == Found::kTiles);
  CHECK(taken.tiles.begin == 8);
  CHECK(taken.tiles.end == 10);
  REQUIRE(progress.take(front, taken) == Found::kTiles);
  CHECK(taken.tiles.begin == 5);
  CHECK(taken.tiles.end == 7);
}

TEST_CASE("tiles wait for those of the same rows, steps for whole ones") {
  const Schedule schedule = make_schedule();
  Progress progress(schedule);
  progress.begin(1);
  Worker a = make_worker(1, 1), b = make_worker(1, 1);
  Taken all, some;
  REQUIRE(progress.take(a, all) == Found::kTiles);
  CHECK(all.tiles.size() == 10);
  CHECK(progress.take(b, some) == Found::kNotYet);
  progress.finish(a, {0, {0, 3}});
  REQUIRE(progress.take(b, some) == Found::kTiles);
  CHECK(some.step == 1);
  CHECK(some.tiles.end == 3);  // the others' rows are not done
  progress.finish(a, {0, {3, 10}});
  REQUIRE(progress.take(a, all) == Found::kTiles);
  CHECK(all.tiles.size() == 7);
  progress.finish(a, all);
  CHECK(progress.take(a, all) == Found::kNotYet);  // b's three
  progress.finish(b, some);
  REQUIRE(progress.take(a, all) == Found::kTiles);
  CHECK(all.step == 2);
  CHECK(progress.take(b, some) == Found::kNothing);
  CHECK_FALSE(progress.is_done(b));
  progress.finish(a, all);
  CHECK(progress.is_done(b));
}

TEST_CASE("a thread keeps to its lane, and to others where it may") {
  const Schedule schedule = make_schedule();
  Progress progress(schedule);
  progress.begin(1);
  Worker little{1, 1.0, false, 2}, big{1, 1.0, false, 1, 2};
  Taken taken;
  CHECK(progress.take(little, taken) == Found::kNotYet);
  for (int step = 0; step < 2; step++) {
    REQUIRE(progress.take(big, taken) == Found::kTiles);
    progress.finish(big, taken);
  }
  REQUIRE(progress.take(big, taken) == Found::kTiles);  // the LITTLE one's, for nobody comes
  CHECK(taken.step == 2);
  CHECK(progress.take(little, taken) == Found::kNothing);
}

TEST_CASE("who comes with a round that is over finds nothing and changes nothing") {
  const Schedule schedule = make_schedule();
  Progress progress(schedule);
  progress.begin(1);
  Worker late = make_worker(1), worker = make_worker(2);
  progress.begin(2);
  Taken taken;
  CHECK(progress.take(late, taken) == Found::kNothing);
  REQUIRE(progress.take(worker, taken) == Found::kTiles);
  CHECK(taken.tiles.begin == 0);
}

TEST_CASE("many threads take each tile once, round after round") {
  const Schedule schedule = make_schedule();
  Progress progress(schedule);
  std::atomic<uint32_t> round{0};
  std::atomic<int> taken_tiles{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++) {
    threads.emplace_back([&, i] {
      while (!stop) {
        const uint32_t now = round;
        Worker worker = make_worker(now, 0.3, i % 2);
        Taken taken;
        for (Found found = Found::kNotYet; now && found != Found::kNothing;) {
          found = progress.take(worker, taken);
          if (found == Found::kTiles) {
            taken_tiles += static_cast<int>(taken.tiles.size());
            progress.finish(worker, taken);
          }
        }
      }
    });
  }
  for (uint32_t next = 1; next <= 200; next++) {
    progress.begin(next);
    round = next;
    const Worker worker = make_worker(next);
    const auto is_done = [&] { return progress.is_done(worker); };
    if (!Bell::watch(1'000'000, is_done)) progress.bell().sleep(is_done);
    CHECK(taken_tiles == 24 * static_cast<int>(next));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace bve
