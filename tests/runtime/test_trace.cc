// Traced runs through the C ABI: what the events, the sums of them and the rows chosen say of one
// another.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "bve.h"
#include "doctest.h"
#include "tiny_program.h"

namespace {

std::atomic<size_t> allocations{0};

}  // namespace

void* operator new(size_t bytes) {
  allocations++;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace bve::test {
namespace {

struct Traced {
  Bytes bytes = make_tiny_program({bve_f32p});
  bve_program* program = bve_open_bytes(bytes.data(), bytes.count(), nullptr);
  bve_session* session;
  std::vector<float> image = Noise(7).take(3 * 4 * 4), logits = std::vector<float>(3);

  explicit Traced(uint32_t threads, float keep = 0) {
    const bve_options options{BVE_ABI_VERSION, threads, 0, 0, 0, 0, 0};
    bve_error error{};
    session = bve_start(program, keep, &options, &error);
    REQUIRE_MESSAGE(session, error.text);
    bve_trace(session, 1);
  }
  ~Traced() {
    bve_stop(session);
    bve_close(program);
  }
  void run() {
    REQUIRE(bve_run(session, image.data(), image.size(), logits.data(), 3, nullptr) == 0);
  }
  std::vector<bve_event> events() {
    size_t lost = 1;
    std::vector<bve_event> events(bve_events(session, nullptr, 0, &lost));
    CHECK(lost == 0);
    CHECK(bve_events(session, events.data(), events.size(), nullptr) == events.size());
    return events;
  }
};

TEST_CASE("the events of each op are its time, and a thread does one after the other") {
  for (uint32_t threads = 1; threads <= std::min(bve_count_cores(), 2u); threads++) {
    Traced traced(threads);
    for (int run = 0; run < 50; run++) {
      traced.run();
      std::vector<uint64_t> times(bve_times(traced.session, nullptr, 0)), sums(times.size());
      bve_times(traced.session, times.data(), times.size());
      const std::vector<bve_event> events = traced.events();
      const bve_event* last = nullptr;
      for (const bve_event& event : events) {
        REQUIRE(event.op < sums.size());
        sums[event.op] += event.end_ns - event.start_ns;
        CHECK(event.thread < threads);
        CHECK(event.tiles > 0);
        CHECK(event.end_ns >= event.start_ns);
        if (last && last->thread == event.thread) CHECK(event.start_ns >= last->end_ns);
        if (last) CHECK(event.thread >= last->thread);
        last = &event;
      }
      CHECK(sums == times);
    }
  }
}

TEST_CASE("traced runs allocate nothing, and untraced ones leave nothing") {
  Traced traced(std::min(bve_count_cores(), 2u));
  traced.run();
  const size_t before = allocations;
  for (int run = 0; run < 20; run++) traced.run();
  CHECK(allocations == before);
  bve_trace(traced.session, 0);
  CHECK(bve_events(traced.session, nullptr, 0, nullptr) == 0);
  traced.run();
  CHECK(traced.events().empty());
  bve_event event{};
  CHECK(bve_events(traced.session, &event, 1, nullptr) == 0);
}

TEST_CASE("of events no more are copied than there is room for") {
  Traced traced(1);
  traced.run();
  const std::vector<bve_event> all = traced.events();
  std::vector<bve_event> some(all.size(), bve_event{0, 0, 99, 0, 0, 0});
  CHECK(bve_events(traced.session, some.data(), 2, nullptr) == all.size());
  CHECK(some[1].start_ns == all[1].start_ns);
  CHECK(some[2].op == 99);
}

TEST_CASE("a router's rows are as many as it keeps, in rising order, the class token first") {
  for (const float keep : {1.0f, 0.5f}) {
    Traced traced(1, keep);
    traced.run();
    size_t routers = 0;
    for (size_t op = 0; op < bve_times(traced.session, nullptr, 0); op++) {
      std::vector<int32_t> rows(bve_rows(traced.session, op, nullptr, 0));
      const std::string name = bve_op_name(traced.session, op);
      CHECK((name.find("route") != name.npos) == !rows.empty());
      if (rows.empty()) continue;
      routers++;
      REQUIRE(bve_rows(traced.session, op, rows.data(), rows.size()) == rows.size());
      CHECK(rows.size() == (keep == 1 ? 5 : 3));
      CHECK(rows[0] == 0);
      for (size_t i = 1; i < rows.size(); i++) CHECK(rows[i] > rows[i - 1]);
      CHECK(rows.back() < 5);
    }
    CHECK(routers > 0);
    CHECK(bve_rows(traced.session, 1 << 20, nullptr, 0) == 0);
    bve_trace(traced.session, 0);
    for (size_t op = 0; op < bve_times(traced.session, nullptr, 0); op++)
      CHECK(bve_rows(traced.session, op, nullptr, 0) == 0);
  }
}

}  // namespace
}  // namespace bve::test
