// Sessions of more threads than there are tiles, or cores, one by one and many at once.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <thread>

#include "cores.h"
#include "doctest.h"
#include "emulator.h"
#include "session.h"
#include "tiny_program.h"

namespace bve::test {
namespace {

// A session of more threads than this machine may have cores for.
std::unique_ptr<Session> start_many(const Program& program, Weights& weights, uint32_t threads,
                                    uint32_t little_threads = 0) {
  const std::vector<Core> cores(threads, list_cores()[0]);
  const bve_options options{BVE_ABI_VERSION, threads, little_threads, 0, 0, 0, 0};
  return std::make_unique<Session>(program, weights, 0.5f, options, cores, threads);
}

std::vector<float> run_session(Session& session, const std::vector<float>& image) {
  std::vector<float> logits(3, NAN);
  session.run(image.data(), image.size(), logits.data(), 3);
  return logits;
}

TEST_CASE("more threads than there are tiles, or cores, change no bit") {
  for (const uint32_t size : {4u, 14u}) {
    Bytes bytes = make_tiny_program({bve_qc8p4}, size);
    const auto program = Program::open(bytes.data(), bytes.count());
    Weights weights(*program);
    const std::vector<float> image = Noise(7).take(size_t{3} * size * size);
    const std::vector<float> alone = run_session(*start_many(*program, weights, 1), image);
    CHECK(std::isfinite(alone[0]));
    for (const uint32_t threads : {2u, 3u, 8u}) {
      for (const uint32_t little : {0u, threads / 2}) {
        const auto session = start_many(*program, weights, threads, little);
        for (int run = 0; run < 20; run++) CHECK(run_session(*session, image) == alone);
      }
    }
  }
}

TEST_CASE("eight sessions of eight threads at once, started and stopped over and over") {
  Bytes bytes = make_tiny_program({bve_qc8p4}, 14);
  const auto program = Program::open(bytes.data(), bytes.count());
  Weights weights(*program);
  const std::vector<float> image = Noise(7).take(size_t{3} * 14 * 14);
  const auto inherited = start_many(*program, weights, 1);
  const std::vector<float> expected = run_session(*inherited, image);
  // STORM_SECONDS: for how long, of a thread sanitizer's run
  const char* const asked = std::getenv("STORM_SECONDS");
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::milliseconds(asked ? 1000 * std::atoi(asked) : 300);
  std::atomic<int> wrong{0}, runs{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; caller++) {
    callers.emplace_back([&, caller] {
      do {
        const auto session = start_many(*program, weights, 8, caller % 3 == 0 ? 3 : 0);
        for (int run = 0; run < 5 + caller; run++) {
          if (run_session(*session, image) != expected) wrong++;
          runs++;
          if (run % 4 == 3) std::this_thread::sleep_for(std::chrono::microseconds(300));
        }
      } while (std::chrono::steady_clock::now() < end);
    });
  }
  while (!is_emulated() &&
         std::chrono::steady_clock::now() < end) {  // processes that copy all that
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      alarm(20);
      _exit(run_session(*inherited, image) == expected ? 0 : 1);
    }
    int status = 1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
  CHECK(runs >= 8 * 5);
}

}  // namespace
}  // namespace bve::test
