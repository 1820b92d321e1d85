// A delegate of several inputs and outputs in ExecuTorch's own runtime. $BVE_PORTS_PTE: what
// write_pte.py made of the program of ports_program.h, methods [left, right] -> [turned, doubled].
#include <array>
#include <string>
#include <vector>

#include "bve.h"
#include "bve_executorch.h"
#include "delegates/executorch_file.h"
#include "doctest.h"
#include "ports_program.h"

namespace bve::test {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;
using executorch::runtime::Error;
using Shape = std::vector<TensorImpl::SizesType>;

const Shape kLeft{1, 2, 4}, kRight{16};

struct Call : Loaded {
  using Loaded::Loaded;

  Error set(size_t number, void* data, Shape shape, ScalarType type = ScalarType::Float) {
    std::array<TensorImpl::DimOrderType, 3> order{0, 1, 2};
    TensorImpl input(type, static_cast<ssize_t>(shape.size()), shape.data(), data, order.data());
    return method->set_input(Tensor(&input), number);
  }
};

TEST_CASE("every output of every input is what a step of the core says, and a loop") {
  Opened opened(read_file_of("BVE_PORTS_PTE"));
  Call call(*opened.program, "forward");
  REQUIRE_MESSAGE(call.method.ok(), take_error());
  for (const float first : {0.0f, 5.0f}) {
    PortsCase given(first);
    REQUIRE(call.set(0, given.left.data(), kLeft) == Error::Ok);
    REQUIRE(call.set(1, given.right.data(), kRight) == Error::Ok);
    REQUIRE_MESSAGE(call.method->execute() == Error::Ok, take_error());
    CHECK(call.read_output(0) == given.turned);
    CHECK(call.read_output(0) == ask_step(given, 2));
    CHECK(call.read_output(1) == given.doubled);
    CHECK(call.read_output(1) == ask_step(given, 3));
  }
  CHECK(take_error().empty());
}

TEST_CASE("tensors that are not the ports' are refused with the port's name") {
  Opened opened(read_file_of("BVE_PORTS_PTE"));
  double data[16]{};
  const auto ask = [&](const char* name, const Shape& left, const Shape& right,
                       ScalarType type = ScalarType::Float) {
    Call call(*opened.program, name);
    REQUIRE(call.method.ok());
    REQUIRE(call.set(0, data, left, type) == Error::Ok);
    REQUIRE(call.set(1, data, right) == Error::Ok);
    CHECK(call.method->execute() == Error::InvalidArgument);
    return take_error();
  };
  CHECK(ask("one_out", kLeft, kRight) ==
        "2 tensors in and 1 out, expected as many as the program's left, right -> turned, doubled; "
        "export the model again");
  CHECK(ask("two_rows", kLeft, kRight) ==
        "turned of float32 [2, 4], expected float32 [3, 4], packed; export the model again");
  CHECK(ask("wide", {1, 2, 5}, kRight) ==
        "left of float32 [1, 2, 5], expected float32 [1, 2, 4], packed; give it as the model has "
        "its input");
  CHECK(
      ask("square", kLeft, {4, 4}) ==
      "right of float32 [4, 4], expected float32 [16], packed; give it as the model has its input");
  CHECK(ask("double", kLeft, kRight, ScalarType::Double) ==
        "left of another type [1, 2, 4], expected float32 [1, 2, 4], packed; give it as the model "
        "has its input");
}

TEST_CASE("a frame for a program that takes no image is refused, and is gone then") {
  Opened opened(read_file_of("BVE_PORTS_PTE"));
  Call call(*opened.program, "forward");
  REQUIRE(call.method.ok());
  PortsCase given;
  REQUIRE(call.set(0, given.left.data(), kLeft) == Error::Ok);
  REQUIRE(call.set(1, given.right.data(), kRight) == Error::Ok);
  const bve_frame frame{};
  bve_executorch_set_frame(&frame);
  CHECK(call.method->execute() == Error::InvalidArgument);
  CHECK_FALSE(take_error().empty());
  REQUIRE(call.method->execute() == Error::Ok);
  CHECK(call.read_output(1) == given.doubled);
}

}  // namespace
}  // namespace bve::test
