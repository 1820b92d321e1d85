// Which ways of running are tried, and that the fastest is told.
#include <string>

#include "choice.h"
#include "doctest.h"
#include "tiny_program.h"

namespace bve::test {
namespace {

constexpr bve_options kEight{BVE_ABI_VERSION, 8, 0, 0, 0, 0, 1};

// What is tried of eight threads, on cores of these capacities.
std::vector<std::string> list_tried(const std::vector<int>& capacities) {
  Bytes bytes = make_tiny_program({bve_f32p});
  const auto program = Program::open(bytes.data(), bytes.count());
  Weights weights(*program);
  std::vector<Core> cores;
  for (const int capacity : capacities)
    cores.push_back({list_cores()[0].number, capacity, bve_any_core});
  const std::string told = choose_session(*program, weights, 0.5f, kEight, cores, 8)->describe();
  std::vector<std::string> ways;
  for (size_t at = 0; (at = told.find("{\"way\": ", at)) != told.npos; at++)
    ways.push_back(told.substr(at + 8, told.find(", \"ms\"", at) - at - 8));
  return ways;
}

TEST_CASE("lanes and all cores are tried where there are LITTLE ones") {
  const std::vector<int> rk3588{1024, 1024, 1024, 1024, 530, 530, 530, 530};
  CHECK(list_tried(rk3588) ==
        std::vector<std::string>{R"("one thread", "threads": 1, "little_threads": 0)",
                                 R"("big cores", "threads": 4, "little_threads": 0)",
                                 R"("lanes", "threads": 8, "little_threads": 4)",
                                 R"("all cores", "threads": 8, "little_threads": 0)"});
  const std::vector<int> x2_a710_a510{2995200, 2496000, 2496000, 2496000,
                                      1785600, 1785600, 1785600, 1785600};
  CHECK(list_tried(x2_a710_a510) == list_tried(rk3588));
  CHECK(list_tried(std::vector<int>(8, 0)).size() == 2);  // a machine that tells no capacities
}

TEST_CASE("the way that is chosen is one of those tried, and runs") {
  Bytes bytes = make_tiny_program({bve_f32p}, 14);
  const auto program = Program::open(bytes.data(), bytes.count());
  Weights weights(*program);
  const std::vector<Core> cores(8, list_cores()[0]);
  const auto session = choose_session(*program, weights, 0.5f, kEight, cores, 8);
  CHECK(session->cpu_ns() < 5'000'000);  // the trials are not in it
  const std::string told = session->describe();
  const size_t chosen = told.find("\"tried\": {\"chosen\": \"");
  REQUIRE(chosen != told.npos);
  const bool is_one = told.compare(chosen + 21, 10, "one thread") == 0;
  CHECK((told.find("\"threads\": 1, \"little_threads\": 0, \"cores\"") != told.npos) == is_one);
  const std::vector<float> image = Noise(7).take(size_t{3} * 14 * 14);
  std::vector<float> logits(3), alone(3);
  session->run(image.data(), image.size(), logits.data(), 3);
  bve_options one = kEight;
  one.threads = 1;
  Session(*program, weights, 0.5f, one, cores, 8).run(image.data(), image.size(), alone.data(), 3);
  CHECK(logits == alone);
}

TEST_CASE("what cannot be chosen of is refused") {
  Bytes bytes = make_tiny_program({bve_f32p});
  const auto program = Program::open(bytes.data(), bytes.count());
  Weights weights(*program);
  const std::vector<Core> cores(4, list_cores()[0]);
  const auto refuse = [&](uint32_t threads, uint32_t little_threads) -> std::string {
    bve_options options = kEight;
    options.threads = threads;
    options.little_threads = little_threads;
    try {
      choose_session(*program, weights, 0, options, cores, 4);
    } catch (const std::exception& error) {
      return error.what();
    }
    return "";
  };
  CHECK(refuse(4, 1).find("1 LITTLE threads with choose, expected 0") == 0);
  CHECK(refuse(5, 0) == "5 threads, expected 1 to 4, the cores this process may use");
  CHECK(refuse(0, 0).find("0 threads, expected 1 to 4") == 0);
}

}  // namespace
}  // namespace bve::test
