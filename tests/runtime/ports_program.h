// A program of two inputs and two outputs, of other ranks than an image's, and what it has to say.
#pragma once

#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "bve.h"
#include "program_builder.h"

namespace bve::test {

// "turned" [3, 4] is rows 1, 0, 0 of "left" [1, 2, 4], and "doubled" [2, 2, 4] twice "right" [16].
inline Bytes make_ports_program() {
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

// Whole numbers for its inputs, which it multiplies without rounding, and its outputs of them.
struct PortsCase {
  std::vector<float> left = std::vector<float>(8), right = std::vector<float>(16), turned, doubled;

  explicit PortsCase(float first = 0) {
    std::iota(left.begin(), left.end(), first);
    std::iota(right.begin(), right.end(), first + 20);
    for (const size_t row : {1, 0, 0}) {
      for (size_t column = 0; column < 4; column++) turned.push_back(left[4 * row + column]);
    }
    for (const float value : right) doubled.push_back(2 * value);
  }
};

// What a step of it gives at that port.
inline std::vector<float> ask_step(const PortsCase& given, size_t port) {
  Bytes bytes = make_ports_program();
  bve_program* const program = bve_open_bytes(bytes.data(), bytes.count(), nullptr);
  bve_session* const session = bve_start(program, 0, nullptr, nullptr);
  REQUIRE(bve_set(session, 0, given.left.data(), 8, nullptr) == 0);
  REQUIRE(bve_set(session, 1, given.right.data(), 16, nullptr) == 0);
  REQUIRE(bve_step(session, nullptr) == 0);
  std::vector<float> answer(port == 2 ? 12 : 16);
  REQUIRE(bve_get(session, port, answer.data(), answer.size(), nullptr) == 0);
  bve_stop(session);
  bve_close(program);
  return answer;
}

}  // namespace bve::test
