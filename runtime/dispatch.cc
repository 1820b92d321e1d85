#include "dispatch.h"

#include <cstring>

#include "error.h"
#include "select.h"

namespace bve {
namespace {

void check(const bve_tokens& t) {
  if (t.count < 1 || t.count > INT32_MAX)
    fail("%zu tokens to dispatch, expected 1 to %d", t.count, INT32_MAX);
  if (t.selected < 1 || t.selected > t.count)
    fail("%zu tokens selected, expected 1 to %zu, which there are", t.selected, t.count);
  if (t.dim < BVE_LEAST_DIM || t.little_dim < 1) {
    fail("tokens of %zu and %zu floats, expected at least %d and 1", t.dim, t.little_dim,
         BVE_LEAST_DIM);
  }
}

// The next multiple of 64. In x_out there is room behind it for a score of each token and whole
// vectors, by BVE_LEAST_DIM.
float* align(float* memory) {
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory) + 63) / 64 * 64);
}

void copy_rows(const float* src, size_t columns, const int32_t* rows, size_t count, float* dst) {
  for (size_t i = 0; i < count; i++)
    std::memcpy(dst + i * columns, src + rows[i] * columns, columns * sizeof(float));
}

}  // namespace

void dispatch_tokens(const bve_tokens& t) {
  static const bve_kernel_row<bve_route_fn>& route = *bve_select_route(bve_detect_isa());
  check(t);
  bve_route args{};
  args.n = t.count;
  args.c = t.little_dim;
  args.k = t.selected;
  args.src = t.z;
  args.src_stride_bytes = t.little_dim * sizeof(float);
  args.gain = t.gain;
  args.offset = t.offset;
  args.weight = t.weight;
  args.bias = t.bias;
  args.epsilon = t.epsilon;
  args.scratch = align(t.x_out);
  args.selected = t.order;
  args.skipped = t.order + t.selected;
  args.gate = t.gate;
  route.run(&args);
  copy_rows(t.x, t.dim, t.order, t.count, t.x_out);
  copy_rows(t.z, t.little_dim, t.order, t.count, t.z_out);
}

}  // namespace bve
