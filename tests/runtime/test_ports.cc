// A program of two inputs and two outputs, through the C ABI.
#include <doctest/doctest.h>

#include <string>

#include "bve.h"
#include "ports_program.h"

namespace bve::test {
namespace {

struct Opened {
  Bytes bytes = make_ports_program();
  bve_program* program = bve_open_bytes(bytes.data(), bytes.count(), nullptr);
  bve_session* session = program ? bve_start(program, 0, nullptr, nullptr) : nullptr;
  Opened() { REQUIRE(session != nullptr); }
  ~Opened() {
    bve_stop(session);
    bve_close(program);
  }
};

TEST_CASE("ports are listed, inputs first, with their names and sides") {
  const Opened opened;
  bve_port ports[4];
  REQUIRE(bve_ports(opened.session, ports, 4) == 4);
  CHECK(std::string(ports[0].name) == "left");
  CHECK(ports[0].is_output == 0);
  CHECK(ports[0].rank == 3);
  CHECK(ports[0].sides[1] == 2);
  CHECK(ports[0].sides[3] == 0);
  CHECK(std::string(ports[3].name) == "doubled");
  CHECK(ports[3].is_output == 1);
  CHECK(ports[3].count == 16);
  CHECK(bve_ports(opened.session, nullptr, 0) == 4);
  CHECK(bve_image_count(opened.session) == 8);
  CHECK(bve_logits_count(opened.session) == 12);
}

TEST_CASE("a step runs what was set, and what was set stays") {
  const Opened opened;
  PortsCase given;
  std::vector<float> turned(12), doubled(16);
  bve_error error{};
  CHECK(bve_set(opened.session, 0, given.left.data(), 8, &error) == 0);
  CHECK(bve_step(opened.session, &error) != 0);
  CHECK(std::string(error.text).find("a step without right, expected") == 0);
  CHECK(bve_get(opened.session, 2, turned.data(), 12, &error) != 0);
  CHECK(std::string(error.text).find("turned before any step") == 0);
  CHECK(bve_set(opened.session, 1, given.right.data(), 16, nullptr) == 0);
  given.left.assign(8, -1);  // a copy was kept
  for (const float first : {0.0f, 7.0f}) {
    const PortsCase next(first);
    REQUIRE(bve_set(opened.session, 1, next.right.data(), 16, nullptr) == 0);
    REQUIRE(bve_step(opened.session, nullptr) == 0);
    REQUIRE(bve_get(opened.session, 2, turned.data(), 12, nullptr) == 0);
    REQUIRE(bve_get(opened.session, 3, doubled.data(), 16, nullptr) == 0);
    CHECK(turned == given.turned);
    CHECK(doubled == next.doubled);
  }
}

TEST_CASE("a run on the caller's arrays says what a step says, and leaves what was set") {
  const Opened opened;
  PortsCase set, given(5);
  std::vector<float> turned(12), doubled(16), got(12);
  REQUIRE(bve_set(opened.session, 0, set.left.data(), 8, nullptr) == 0);
  REQUIRE(bve_set(opened.session, 1, set.right.data(), 16, nullptr) == 0);
  REQUIRE(bve_step(opened.session, nullptr) == 0);
  const bve_array arrays[]{
      {given.left.data(), 8}, {given.right.data(), 16}, {turned.data(), 12}, {doubled.data(), 16}};
  REQUIRE(bve_run_ports(opened.session, arrays, 4, nullptr) == 0);
  CHECK(turned == given.turned);
  CHECK(doubled == given.doubled);
  for (int step = 0; step < 2; step++) {
    REQUIRE(bve_get(opened.session, 2, got.data(), 12, nullptr) == 0);
    CHECK(got == set.turned);
    REQUIRE(bve_step(opened.session, nullptr) == 0);
  }
}

TEST_CASE("a run on fewer arrays, on none, or on arrays of other counts is refused") {
  const Opened opened;
  float numbers[16] = {};
  bve_array arrays[]{{numbers, 8}, {numbers, 16}, {numbers, 12}, {numbers, 15}};
  bve_error error{};
  CHECK(bve_run_ports(opened.session, arrays, 3, &error) != 0);
  CHECK(std::string(error.text) == "3 arrays, expected 4, one of each port; bve_ports lists them");
  CHECK(bve_run_ports(opened.session, arrays, 4, &error) != 0);
  CHECK(std::string(error.text) == "15 floats for doubled, expected 16; give as many");
  arrays[0] = {nullptr, 0};
  CHECK(bve_run_ports(opened.session, arrays, 4, &error) != 0);
  CHECK(std::string(error.text) == "0 floats that are null for left, expected 8; give as many");
}

TEST_CASE("other ports and counts are refused, and so is a run of one array") {
  const Opened opened;
  float numbers[16] = {};
  bve_error error{};
  CHECK(bve_set(opened.session, 2, numbers, 12, &error) != 0);
  CHECK(std::string(error.text).find("port 2, expected one of the inputs") == 0);
  CHECK(bve_set(opened.session, 9, numbers, 12, nullptr) != 0);
  CHECK(bve_get(opened.session, 1, numbers, 16, nullptr) != 0);
  CHECK(bve_set(opened.session, 0, numbers, 7, &error) != 0);
  CHECK(std::string(error.text) == "7 floats for left, expected 8; give as many");
  CHECK(bve_set(opened.session, 0, nullptr, 8, nullptr) != 0);
  CHECK(bve_run(opened.session, numbers, 8, numbers, 12, &error) != 0);
  CHECK(std::string(error.text).find("call bve_run_ports, or bve_set, ") != std::string::npos);
}

TEST_CASE("who was built with an older header starts sessions all the same") {
  const Opened opened;
  for (const uint32_t version : {1u, 2u, 3u}) {
    const bve_options options{version, 1, 0, 0, 0, 0, 0};
    bve_session* const session = bve_start(opened.program, 0, &options, nullptr);
    CHECK(session != nullptr);
    bve_stop(session);
  }
}

}  // namespace
}  // namespace bve::test
