// A program of two inputs and two outputs, through the C ABI.
#include <doctest/doctest.h>

#include <numeric>
#include <string>

#include "bve.h"
#include "program_builder.h"

namespace bve::test {
namespace {

// "turned" [3, 4] is "left"'s rows 1, 0, 0 and "doubled" [2, 2, 4] twice "right".
Bytes make_program() {
  ProgramBuilder builder;
  std::vector<float> once(16), twice(16);
  for (size_t i = 0; i < 4; i++) once[5 * i] = 1, twice[5 * i] = 2;
  const uint32_t same = builder.add_linear("same", bve_f32p, 4, 4, once, {});
  const uint32_t more = builder.add_linear("more", bve_f32p, 4, 4, twice, {});
  const uint32_t rows = builder.add_rows("rows", {1, 0, 0});
  builder.start_entry("main", 0);
  const uint32_t turned = builder.add_buffer(3, 4), left = builder.add_buffer(2, 4);
  const uint32_t right = builder.add_buffer(4, 4), doubled = builder.add_buffer(4, 4);
  const uint32_t list = builder.add_list(3);
  builder.add_port("left", kInput, left, {1, 2, 4});
  builder.add_port("right", kInput, right, {16});
  builder.add_port("turned", kOutput, turned, {3, 4});
  builder.add_port("doubled", kOutput, doubled, {2, 2, 4});
  builder.add_op("rows", 0, 0, RowsArgs{rows, list});
  builder.add_op("turned", 0, 0,
                 LinearArgs{left, list, 3, bve_as_is, kNone, kNone, same, 0, 4, turned, 0, 0, kNone,
                            kNone, 0});
  builder.add_op("doubled", 0, 1,
                 LinearArgs{right, kNone, 4, bve_as_is, kNone, kNone, more, 0, 4, doubled, 0, 0,
                            kNone, kNone, 0});
  return builder.build();
}

struct Opened {
  Bytes bytes = make_program();
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
  std::vector<float> left(8), right(16), turned(12), doubled(16);
  std::iota(left.begin(), left.end(), 0.0f);
  std::iota(right.begin(), right.end(), 20.0f);
  bve_error error{};
  CHECK(bve_set(opened.session, 0, left.data(), 8, &error) == 0);
  CHECK(bve_step(opened.session, &error) != 0);
  CHECK(std::string(error.text).find("a step without right, expected") == 0);
  CHECK(bve_get(opened.session, 2, turned.data(), 12, &error) != 0);
  CHECK(std::string(error.text).find("turned before any step") == 0);
  CHECK(bve_set(opened.session, 1, right.data(), 16, nullptr) == 0);
  left.assign(8, -1);  // a copy was kept
  for (int step = 0; step < 2; step++) {
    REQUIRE(bve_step(opened.session, nullptr) == 0);
    REQUIRE(bve_get(opened.session, 2, turned.data(), 12, nullptr) == 0);
    REQUIRE(bve_get(opened.session, 3, doubled.data(), 16, nullptr) == 0);
    CHECK(turned == std::vector<float>{4, 5, 6, 7, 0, 1, 2, 3, 0, 1, 2, 3});
    for (size_t i = 0; i < 16; i++) CHECK(doubled[i] == 2 * right[i]);
    right.assign(16, static_cast<float>(step));
    REQUIRE(bve_set(opened.session, 1, right.data(), 16, nullptr) == 0);
  }
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
  CHECK(std::string(error.text).find("call bve_set, bve_step and bve_get") != std::string::npos);
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
