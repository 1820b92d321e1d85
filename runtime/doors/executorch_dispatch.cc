// ExecuTorch's door to token dispatch: the kernel of bve::dispatch, the op that
// bigvit_edge/models/dispatch.py defines, for programs whose other ops ExecuTorch runs by itself.
// Not registered when the library is loaded: a build that selects its ops has room for these alone.
#include <executorch/runtime/kernel/kernel_includes.h>
#include <executorch/runtime/kernel/operator_registry.h>

#include <cstring>

#include "bve_executorch.h"
#include "executorch_errors.h"

namespace bve {
namespace {

using namespace executorch::runtime;
using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;

constexpr char kName[] = "bve::dispatch.out";
// The values of a call, in the order of the op's schema.
enum { kX, kZ, kGain, kOffset, kWeight, kBias, kEpsilon, kK, kXOut, kZOut, kGate, kOrder, kCount };

bool has_types(Span<EValue*> values) {
  if (values.size() < kCount || !values[kEpsilon]->isDouble() || !values[kK]->isInt()) return false;
  for (int i = 0; i < kCount; i++) {
    if (i == kEpsilon || i == kK) continue;
    if (!values[i]->isTensor()) return false;
    const Tensor& tensor = values[i]->toTensor();
    if (tensor.scalar_type() != (i == kOrder ? ScalarType::Int : ScalarType::Float) ||
        !is_contiguous_dim_order(tensor.dim_order().data(), tensor.dim()))
      return false;
  }
  return true;
}

bool has_shapes(Span<EValue*> values) {
  const Tensor &x = values[kX]->toTensor(), &z = values[kZ]->toTensor();
  if (x.dim() != 3 || z.dim() != 3 || x.size(0) != 1 || z.size(0) != 1 || x.size(1) != z.size(1))
    return false;
  for (int i : {kGain, kOffset, kWeight})
    if (values[i]->toTensor().numel() != z.size(2)) return false;
  return values[kBias]->toTensor().numel() == 1;
}

bool resize(Span<EValue*> values) {
  const Tensor &x = values[kX]->toTensor(), &z = values[kZ]->toTensor();
  const auto give = [&](int i, std::initializer_list<SizesType> sizes) {
    return resize_tensor(values[i]->toTensor(), {sizes.begin(), sizes.size()}) == Error::Ok;
  };
  const SizesType n = x.sizes()[1], k = static_cast<SizesType>(values[kK]->toInt());
  return give(kXOut, {1, n, x.sizes()[2]}) && give(kZOut, {1, n, z.sizes()[2]}) &&
         give(kGate, {1, k, 1}) && give(kOrder, {1, n});
}

Error dispatch_tokens(Span<EValue*> values) {
  if (!has_types(values))
    return report(Error::InvalidProgram, "%s of other types, expected packed floats", kName);
  if (!has_shapes(values)) {
    return report(Error::InvalidArgument,
                  "%s of other shapes, expected x [1, n, C], z [1, n, c] and a router of c", kName);
  }
  const Tensor &x = values[kX]->toTensor(), &z = values[kZ]->toTensor();
  const int64_t k = values[kK]->toInt();
  if (k < 1 || k > x.size(1)) {
    return report(Error::InvalidArgument, "%s of %lld selected tokens, expected 1 to %zd", kName,
                  static_cast<long long>(k), x.size(1));
  }
  if (!resize(values))
    return report(Error::InvalidArgument, "%s with other results, expected room for these", kName);

  const auto read = [&](int i) { return values[i]->toTensor().const_data_ptr<float>(); };
  const auto write = [&](int i) { return values[i]->toTensor().mutable_data_ptr<float>(); };
  bve_tokens tokens{};
  tokens.count = static_cast<size_t>(x.size(1));
  tokens.selected = static_cast<size_t>(k);
  tokens.dim = static_cast<size_t>(x.size(2));
  tokens.little_dim = static_cast<size_t>(z.size(2));
  tokens.x = read(kX);
  tokens.z = read(kZ);
  tokens.gain = read(kGain);
  tokens.offset = read(kOffset);
  tokens.weight = read(kWeight);
  tokens.bias = *read(kBias);
  tokens.epsilon = static_cast<float>(values[kEpsilon]->toDouble());
  tokens.x_out = write(kXOut);
  tokens.z_out = write(kZOut);
  tokens.gate = write(kGate);
  tokens.order = values[kOrder]->toTensor().mutable_data_ptr<int32_t>();
  bve_error error{};
  const int status = bve_dispatch(&tokens, &error);
  return status ? report(Error::InvalidArgument, "%s: %s", kName, error.text) : Error::Ok;
}

void run(KernelRuntimeContext& context, Span<EValue*> values) {
  const Error error = dispatch_tokens(values);
  if (error != Error::Ok) context.fail(error);
}

}  // namespace
}  // namespace bve

int bve_executorch_add_dispatch(void) {
  using namespace executorch::runtime;
  for (const Kernel& kernel : get_registered_kernels())  // ExecuTorch stops the process at a second
    if (!std::strcmp(kernel.name_, bve::kName)) return 0;
  return static_cast<int>(register_kernel(Kernel(bve::kName, bve::run)));
}
