// The kernel of bve::dispatch in ExecuTorch's own runtime. $BVE_DISPATCH_PTE: what write_pte.py
// made of the op alone, its tensors the method's inputs: 5 tokens of 32 and 4 floats, 3 of them
// selected.
#include <executorch/runtime/kernel/operator_registry.h>

#include <array>
#include <cstring>
#include <vector>

#include "bve.h"
#include "bve_executorch.h"
#include "doctest.h"
#include "doors/executorch_file.h"

namespace bve::test {
namespace {

using executorch::aten::ScalarType;
using executorch::aten::TensorImpl;
using executorch::runtime::Error;

constexpr size_t kTokens = 5, kSelected = 3, kDim = 32, kLittle = 4;

int count_kernels() {
  int count = 0;
  for (const auto& kernel : executorch::runtime::get_registered_kernels())
    count += !std::strcmp(kernel.name_, "bve::dispatch.out");
  return count;
}

// x, z, gain, offset, weight and bias, as the op takes them.
struct Inputs {
  std::vector<std::vector<TensorImpl::SizesType>> sizes;
  std::vector<std::vector<float>> data;

  explicit Inputs(int batch = 1)
      : sizes{{batch, kTokens, kDim},
              {batch, kTokens, kLittle},
              {kLittle},
              {kLittle},
              {1, kLittle},
              {1}} {
    Noise noise(3);
    for (const auto& shape : sizes) {
      size_t count = 1;
      for (const auto size : shape) count *= size;
      data.push_back(noise.take(count));
    }
  }
  // Of that type, whose values nobody reads where it is not float.
  Error execute(Loaded& loaded, ScalarType type = ScalarType::Float) {
    std::vector<double> room(2 * kTokens * kDim);
    for (size_t i = 0; i < sizes.size(); i++) {
      TensorImpl::DimOrderType order[]{0, 1, 2};
      void* const values =
          type == ScalarType::Float ? static_cast<void*>(data[i].data()) : room.data();
      TensorImpl input(type, static_cast<ssize_t>(sizes[i].size()), sizes[i].data(), values, order);
      const Error error = loaded.method->set_input(executorch::aten::Tensor(&input), i);
      if (error != Error::Ok) return error;
    }
    return loaded.method->execute();
  }
};

TEST_CASE("the kernel is not there until it is asked for, and then once") {
  CHECK(count_kernels() == 0);
  Opened opened(read_file_of("BVE_DISPATCH_PTE"));
  REQUIRE(opened.program.ok());
  CHECK(opened.load("forward") == Error::OperatorMissing);
  for (int i = 0; i < 2; i++) {
    CHECK(bve_executorch_add_dispatch() == 0);
    CHECK(count_kernels() == 1);
  }
  CHECK(opened.load("forward") == Error::Ok);
}

TEST_CASE("the runtime says what the core says") {
  REQUIRE(bve_executorch_add_dispatch() == 0);
  Opened opened(read_file_of("BVE_DISPATCH_PTE"));
  Loaded loaded(*opened.program, "forward");
  REQUIRE(loaded.method.ok());
  Inputs inputs;
  REQUIRE(inputs.execute(loaded) == Error::Ok);

  std::vector<float> x(kTokens * kDim), z(kTokens * kLittle), gate(kSelected);
  std::vector<int32_t> order(kTokens);
  bve_tokens tokens{};
  tokens.count = kTokens;
  tokens.selected = kSelected;
  tokens.dim = kDim;
  tokens.little_dim = kLittle;
  const float** const read[]{&tokens.x, &tokens.z, &tokens.gain, &tokens.offset, &tokens.weight};
  for (size_t i = 0; i < 5; i++) *read[i] = inputs.data[i].data();
  tokens.bias = inputs.data[5][0];
  tokens.epsilon = 1e-6f;
  tokens.x_out = x.data();
  tokens.z_out = z.data();
  tokens.gate = gate.data();
  tokens.order = order.data();
  REQUIRE(bve_dispatch(&tokens, nullptr) == 0);
  CHECK(order != std::vector<int32_t>{0, 1, 2, 3, 4});  // else nothing was moved
  CHECK(loaded.read_output(0) == x);
  CHECK(loaded.read_output(1) == z);
  CHECK(loaded.read_output(2) == gate);
  CHECK(loaded.read_output<int32_t>(3) == order);
}

TEST_CASE("tensors and counts that it cannot take are refused in words") {
  REQUIRE(bve_executorch_add_dispatch() == 0);
  Opened opened(read_file_of("BVE_DISPATCH_PTE"));
  const auto ask = [&](const char* name, int batch, ScalarType type, Error expected) {
    Loaded loaded(*opened.program, name);
    REQUIRE(loaded.method.ok());
    CHECK(Inputs(batch).execute(loaded, type) == expected);
    return take_error();
  };
  CHECK(ask("double", 1, ScalarType::Double, Error::InvalidProgram) ==
        "bve::dispatch.out of other types, expected packed floats");
  CHECK(has(ask("batch", 2, ScalarType::Float, Error::InvalidArgument),
            "bve::dispatch.out of other shapes, expected x [1, n, C], z [1, n, c]"));
  CHECK(ask("many", 1, ScalarType::Float, Error::InvalidArgument) ==
        "bve::dispatch.out of 6 selected tokens, expected 1 to 5");
  CHECK(ask("forward", 1, ScalarType::Float, Error::Ok).empty());
}

}  // namespace
}  // namespace bve::test
