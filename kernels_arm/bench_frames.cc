#include <string.h>

#include "bench_kit.h"
#include "select.h"

using namespace bve_bench;

namespace {

void fill(Bench& b, uint8_t* to, size_t count) {
  for (size_t i = 0; i < count; i++) to[i] = static_cast<uint8_t>(128 + 127 * b.uniform());
}

// args(dst) are those of a call that writes there, at most so many bytes.
template <typename Fn, typename Args>
void bench_exact(Bench& b, const bve_kernel_row<Fn>& row, Fn* scalar, bve_bench_result result,
                 size_t bytes, Args args) {
  Memory dst(bytes), reference(bytes);
  if (!dst || !reference) return;
  const auto a = args(dst.as<uint8_t>()), r = args(reference.as<uint8_t>());
  row.run(&a);
  scalar(&r);
  result.kernel = row.name;
  result.correct = memcmp(dst.as<void>(), reference.as<void>(), bytes) == 0;
  add(b, result, 0, [&] { row.run(&a); });
}

void bench_yuv(Bench& b, const bve_kernel_row<bve_yuv_fn>& row, size_t n) {
  Memory src(3 * n);
  if (!src) return;
  const auto* y = src.as<uint8_t>();
  fill(b, src.as<uint8_t>(), 3 * n);
  const char* const names[] = {"in turns", "planes"};
  for (int job = 0; job < 2; job++) {
    const size_t step = job == 0 ? 2 : 1, plane = 2 * BVE_COLUMNS * (n / BVE_COLUMNS);
    bench_exact(b, row, bve_select_yuv(bve_scalar)->run, {"", names[job], 2, n, 0, 0, 0, 0, false},
                3 * plane, [&](uint8_t* dst) {
                  const uint8_t *u = y + 2 * n, *v = job == 0 ? u + 1 : u + n / 2;
                  return bve_yuv{n,     {y, y + n}, u,     v,
                                 step,  16384,      11485, -2819,
                                 -5850, 14516,      32,    {dst, dst + plane, dst + 2 * plane}};
                });
  }
}

void bench_rgb(Bench& b, const bve_kernel_row<bve_rgb_fn>& row, size_t n) {
  Memory src(8 * n);
  if (!src) return;
  fill(b, src.as<uint8_t>(), 8 * n);
  const char* const names[] = {"RGB", "BGRA"};
  for (int job = 0; job < 2; job++) {
    const size_t bytes = 3 + job, plane = 2 * BVE_COLUMNS * (n / BVE_COLUMNS);
    const auto* pixels = src.as<uint8_t>();
    bench_exact(b, row, bve_select_rgb(bve_scalar)->run, {"", names[job], 2, n, 0, 0, 0, 0, false},
                3 * plane, [&](uint8_t* dst) {
                  return bve_rgb{n,
                                 {pixels, pixels + n * bytes},
                                 static_cast<uint8_t>(bytes),
                                 static_cast<uint8_t>(2 * job),
                                 {dst, dst + plane, dst + 2 * plane}};
                });
  }
}

void bench_down(Bench& b, const bve_kernel_row<bve_down_fn>& row, size_t n) {
  constexpr size_t kPairs = 6;
  Memory src(kPairs * 2 * n);
  if (!src) return;
  fill(b, src.as<uint8_t>(), kPairs * 2 * n);
  const uint8_t* pairs[kPairs];
  int16_t weights[2 * kPairs];
  for (size_t p = 0; p < kPairs; p++) pairs[p] = src.as<uint8_t>() + p * 2 * n;
  for (int16_t& weight : weights) weight = static_cast<int16_t>(10000 * b.uniform());
  bench_exact(b, row, bve_select_down(bve_scalar)->run, {"", "", 1, n, 2 * kPairs, 0, 0, 0, false},
              n * sizeof(int16_t), [&](uint8_t* dst) {
                return bve_down{
                    n, kPairs, pairs, weights, 7, 32640, reinterpret_cast<int16_t*>(dst)};
              });
}

void bench_across(Bench& b, const bve_kernel_row<bve_across_fn>& row, size_t n, size_t columns) {
  constexpr size_t kDepth = 16;
  Memory src(3 * columns * sizeof(int16_t)), weights(n * kDepth * sizeof(int16_t)), starts(n * 4);
  if (!src || !weights || !starts) return;
  for (size_t i = 0; i < 3 * columns; i++)
    src.as<int16_t>()[i] = static_cast<int16_t>(16000 + 16000 * b.uniform());
  for (size_t i = 0; i < n * kDepth; i++)
    weights.as<int16_t>()[i] = static_cast<int16_t>(4000 * b.uniform());
  for (size_t i = 0; i < n; i++)
    starts.as<uint32_t>()[i] = static_cast<uint32_t>(i * (columns - kDepth) / n);
  const auto* plane = src.as<int16_t>();
  bench_exact(b, row, bve_select_across(bve_scalar)->run, {"", "", 1, n, kDepth, 0, 0, 0, false},
              3 * n, [&](uint8_t* dst) {
                return bve_across{n,
                                  kDepth,
                                  starts.as<uint32_t>(),
                                  weights.as<int16_t>(),
                                  {plane, plane + columns, plane + 2 * columns},
                                  20,
                                  dst,
                                  3,
                                  1};
              });
}

}  // namespace

// Sizes are those of a frame of 1920 x 1080: its square, 1088 columns in blocks, to 224 pixels.
void bve_bench::bench_frames(Bench& b) {
  constexpr size_t columns = 1088, pixels = 224;
  for (const auto& row : bve_list_yuvs())
    if (b.wants(row.name, row.isa)) bench_yuv(b, row, columns);
  for (const auto& row : bve_list_rgbs())
    if (b.wants(row.name, row.isa)) bench_rgb(b, row, columns);
  for (const auto& row : bve_list_downs())
    if (b.wants(row.name, row.isa)) bench_down(b, row, columns);
  for (const auto& row : bve_list_acrosses())
    if (b.wants(row.name, row.isa)) bench_across(b, row, pixels, columns);
}
