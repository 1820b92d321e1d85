#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_kit.h"
#include "half.h"
#include "select.h"

using namespace bve_bench;

namespace {

// No two of `count` values further apart than that share of the largest, or of 1. What is not a
// number is far from all.
bool close(const float* a, const float* b, size_t count, double limit) {
  float largest = 1;
  for (size_t i = 0; i < count; i++) largest = fabsf(b[i]) > largest ? fabsf(b[i]) : largest;
  for (size_t i = 0; i < count; i++)
    if (!(fabsf(a[i] - b[i]) <= limit * largest)) return false;
  return true;
}

// Two packed left sides of the same layout, and their rows: no element further than 1e-3 apart (of
// bytes, than one step).
bool same_lhs(const Memory& a, const Memory& b, bve_lhs lhs, const bve_row* rows_a,
              const bve_row* rows_b, size_t m, size_t k) {
  const size_t bytes = (m + lhs.mr - 1) / lhs.mr * bve_lhs_stride_bytes(lhs, k);
  for (size_t i = 0; lhs.type == bve_qd8 && i < m; i++)
    if (!(fabsf(rows_a[i].scale - rows_b[i].scale) <= 1e-3f * rows_b[i].scale)) return false;
  if (lhs.type == bve_f32) return close(a.as<float>(), b.as<float>(), bytes / 4, 1e-5);
  for (size_t i = 0; lhs.type == bve_f16 && i < bytes / 2; i++) {
    const float x = bve_from_half(a.as<uint16_t>()[i]), y = bve_from_half(b.as<uint16_t>()[i]);
    if (!(fabsf(x - y) <= 1e-3f * (1 + fabsf(y)))) return false;
  }
  for (size_t i = 0; lhs.type == bve_qd8 && i < bytes; i++) {
    const int step = a.as<uint8_t>()[i] - b.as<uint8_t>()[i];
    const bool near = abs(step) <= 1 || abs(step) == 255;  // -128 and 127 of int8 read as uint8
    if (!near) return false;
  }
  return true;
}

void fill(Bench& b, float* to, size_t count) {
  for (size_t i = 0; i < count; i++) to[i] = b.uniform();
}

// ---- the matrix product

void bench_gemm(Bench& b, const bve_gemm_row& row, size_t m, size_t n, size_t k) {
  const bve_gemm_row& scalar = *bve_select_gemm(row.packing, bve_scalar, bve_any_core);
  const size_t stride = bve_rhs_stride_bytes(row.packing, k);
  Memory src(m * k * 4), weights(n * k * 4), bias(n * 4), rhs((n + 15) / 16 * stride);
  Memory rows(m * sizeof(bve_row)), reference_rows(m * sizeof(bve_row));
  Memory lhs((m + row.lhs.mr) * bve_lhs_stride_bytes(row.lhs, k));
  Memory reference_lhs((m + 1) * bve_lhs_stride_bytes(scalar.lhs, k));
  Memory dst(m * n * 4), reference_dst(m * n * 4);
  if (!src || !weights || !bias || !rhs || !rows || !reference_rows || !lhs || !reference_lhs ||
      !dst || !reference_dst)
    return;
  fill(b, src.as<float>(), m * k);
  fill(b, weights.as<float>(), n * k);
  fill(b, bias.as<float>(), n);
  if (row.lhs.type == bve_qd8) {
    Memory small(n * k), scale(n * 4);
    if (!small || !scale) return;
    for (size_t i = 0; i < n * k; i++)
      small.as<int8_t>()[i] = static_cast<int8_t>(127 * weights.as<float>()[i]);
    for (size_t i = 0; i < n; i++) scale.as<float>()[i] = 1.0f / 127;
    bve_pack_weights_qc8(row.packing, n, k, small.as<int8_t>(), scale.as<float>(), bias.as<float>(),
                         rhs.as<void>());
  } else {
    bve_pack_weights_f32(row.packing, n, k, weights.as<float>(), bias.as<float>(), rhs.as<void>());
  }
  const auto pack = [&](bve_lhs layout, const Memory& to, const Memory& to_rows) {
    bve_pack p = {};
    p.m = m, p.k = k;
    p.src = src.as<float>(), p.src_stride_bytes = k * 4;
    p.dst = to.as<void>(), p.lhs = layout, p.rows = to_rows.as<bve_row>();
    bve_select_pack(layout.type, bve_scalar)->run(&p);
  };
  pack(row.lhs, lhs, rows);
  pack(scalar.lhs, reference_lhs, reference_rows);

  bve_gemm a = {};
  a.m = m, a.n = n, a.k = k;
  a.lhs = lhs.as<void>(), a.lhs_stride_bytes = bve_lhs_stride_bytes(row.lhs, k);
  a.rows = row.lhs.type == bve_qd8 ? rows.as<bve_row>() : nullptr;
  a.rhs = rhs.as<void>(), a.rhs_stride_bytes = stride;
  a.dst = dst.as<float>(), a.dst_stride_bytes = n * 4;
  row.run(&a);
  bve_gemm r = a;
  r.m = m < 16 ? m : 16;  // the scalar one is slow
  r.lhs = reference_lhs.as<void>(), r.lhs_stride_bytes = bve_lhs_stride_bytes(scalar.lhs, k);
  r.rows = a.rows ? reference_rows.as<bve_row>() : nullptr;
  r.dst = reference_dst.as<float>();
  scalar.run(&r);
  const double limit = row.lhs.type == bve_f16 ? 1e-2 : 1e-5;
  const bool correct = close(dst.as<float>(), r.dst, r.m * n, limit);
  const double peak = bve_measure_peak(row.isa, row.lhs.type);
  add(b, {row.name, "", m, n, k, 0, 0, peak, correct}, static_cast<double>(m) * n * k,
      [&] { row.run(&a); });
}

// ---- rows

// How the product that this CPU would choose wants its left side.
bve_lhs lhs_of(bve_type type, uint32_t isa) {
  bve_packing packing = type == bve_f32 ? bve_f32p : bve_f16p;
  if (type == bve_qd8) packing = bve_prefer_packing(isa);
  const bve_lhs lhs = bve_select_gemm(packing, isa, bve_any_core)->lhs;
  return lhs.type == type ? lhs : bve_lhs{type, 1, 1, false};
}

void bench_pack(Bench& b, const bve_kernel_row<bve_pack_fn>& row, size_t m, size_t k) {
  const bve_lhs lhs = lhs_of(row.type, b.isa);
  const size_t bytes = (m + lhs.mr) * bve_lhs_stride_bytes(lhs, k);
  Memory src(m * k * 4), gain(k * 4), offset(k * 4), scratch((k + 16) * 4), dst(bytes),
      reference(bytes), rows(m * sizeof(bve_row)), reference_rows(m * sizeof(bve_row));
  if (!src || !gain || !offset || !scratch || !dst || !reference || !rows || !reference_rows)
    return;
  fill(b, src.as<float>(), m * k);
  fill(b, gain.as<float>(), k);
  fill(b, offset.as<float>(), k);
  const char* const names[] = {"as_is", "layernorm", "gelu"};
  for (int job = 0; job < 3; job++) {
    const bve_before before = static_cast<bve_before>(job);
    const bve_pack a = {m,
                        k,
                        src.as<float>(),
                        k * 4,
                        nullptr,
                        before,
                        gain.as<float>(),
                        offset.as<float>(),
                        1e-6f,
                        scratch.as<float>(),
                        dst.as<void>(),
                        lhs,
                        rows.as<bve_row>()};
    bve_pack r = a;
    r.dst = reference.as<void>(), r.rows = reference_rows.as<bve_row>();
    row.run(&a);
    bve_select_pack(row.type, bve_scalar)->run(&r);
    const bool correct = same_lhs(dst, reference, lhs, a.rows, r.rows, m, k);
    add(b, {row.name, names[job], m, 0, k, 0, 0, 0, correct}, 0, [&] { row.run(&a); });
  }
}

void bench_softmax(Bench& b, const bve_kernel_row<bve_softmax_fn>& row, size_t m, size_t n) {
  const bve_lhs lhs = lhs_of(row.type, b.isa);
  const size_t bytes = (m + lhs.mr) * bve_lhs_stride_bytes(lhs, n), stride = (n + 15) / 16 * 16;
  Memory scores(m * stride * 4), copy(m * stride * 4), dst(bytes), reference(bytes),
      rows(m * sizeof(bve_row)), reference_rows(m * sizeof(bve_row));
  if (!scores || !copy || !dst || !reference || !rows || !reference_rows) return;
  fill(b, scores.as<float>(), m * stride);
  memcpy(copy.as<void>(), scores.as<void>(), m * stride * 4);
  const bve_softmax a = {
      m, n, scores.as<float>(), stride * 4, dst.as<void>(), lhs, rows.as<bve_row>()};
  bve_softmax r = a;
  r.scores = copy.as<float>(), r.dst = reference.as<void>(), r.rows = reference_rows.as<bve_row>();
  row.run(&a);
  bve_select_softmax(row.type, bve_scalar)->run(&r);
  const bool correct = same_lhs(dst, reference, lhs, a.rows, r.rows, m, n);
  add(b, {row.name, "", m, n, 0, 0, 0, 0, correct}, 0, [&] { row.run(&a); });
}

void bench_rhs(Bench& b, const bve_kernel_row<bve_pack_rhs_fn>& row, bve_pack_rhs_fn* scalar,
               bool keys, size_t n, size_t d) {
  const char* const names[] = {"f32p", "f16p", "qc8p4", "qc8p8"};
  for (int job = 0; job < 4; job++) {
    const bve_packing packing = static_cast<bve_packing>(job);
    const size_t columns = keys ? n : d, depth = keys ? d : n;
    const size_t bytes = (columns + 15) / 16 * bve_rhs_stride_bytes(packing, depth);
    Memory src(n * d * 4), dst(bytes), reference(bytes);
    if (!src || !dst || !reference) return;
    fill(b, src.as<float>(), n * d);
    const bve_pack_rhs a = {n, d, src.as<float>(), d * 4, dst.as<void>(), packing};
    bve_pack_rhs r = a;
    r.dst = reference.as<void>();
    row.run(&a);
    scalar(&r);
    // A scale that differs in its last place moves a byte by a step, its sum with it; the rest is
    // the same to the last bit.
    size_t different = 0;
    for (size_t i = 0; i < bytes; i++) different += dst.as<char>()[i] != reference.as<char>()[i];
    const bool correct = different * 200 <= bytes;
    add(b, {row.name, names[job], 0, n, d, 0, 0, 0, correct}, 0, [&] { row.run(&a); });
  }
}

void bench_route(Bench& b, const bve_kernel_row<bve_route_fn>& row, size_t n, size_t c, size_t k) {
  Memory src(n * c * 4), parameters(3 * (c + 16) * 4), scratch((n + 16) * 4), lists(n * 4),
      reference_lists(n * 4), gate(n * 4), reference_gate(n * 4);
  if (!src || !parameters || !scratch || !lists || !reference_lists || !gate || !reference_gate)
    return;
  fill(b, src.as<float>(), n * c);
  float* p = parameters.as<float>();
  fill(b, p, 3 * c);
  const bve_route a = {n,
                       c,
                       k,
                       src.as<float>(),
                       c * 4,
                       p,
                       p + c,
                       p + 2 * c,
                       0,
                       1e-6f,
                       scratch.as<float>(),
                       lists.as<int32_t>(),
                       lists.as<int32_t>() + k,
                       gate.as<float>()};
  bve_route r = a;
  r.selected = reference_lists.as<int32_t>(), r.skipped = r.selected + k;
  r.gate = reference_gate.as<float>();
  row.run(&a);
  bve_select_route(bve_scalar)->run(&r);
  const bool correct = !memcmp(a.selected, r.selected, n * 4) && close(a.gate, r.gate, k, 1e-4);
  add(b, {row.name, "", k, n, c, 0, 0, 0, correct}, 0, [&] { row.run(&a); });
}

}  // namespace

// Sizes are those of blvit_s at 224 px.
size_t bve_bench_kernels(const char* filter, double seconds_per_kernel, bve_bench_result* results,
                         size_t capacity) {
  Bench b = {filter, seconds_per_kernel, results, capacity, 0, bve_detect_isa(), 1};
  const size_t tokens = 197, sizes[][2] = {{1536, 384}, {384, 1536}, {384, 96}, {197, 64}};
  const size_t widths[] = {96, 384, 1536};
  for (const auto& row : bve_list_gemms())
    for (const auto& size : sizes)
      if (b.wants(row.name, row.isa)) bench_gemm(b, row, tokens, size[0], size[1]);
  for (const auto& row : bve_list_packs())
    for (size_t k : widths)
      if (b.wants(row.name, row.isa)) bench_pack(b, row, tokens, k);
  for (const auto& row : bve_list_softmaxes())
    if (b.wants(row.name, row.isa)) bench_softmax(b, row, tokens, tokens);
  for (const auto& row : bve_list_keys())
    if (b.wants(row.name, row.isa))
      bench_rhs(b, row, bve_select_keys(bve_scalar)->run, true, tokens, 64);
  for (const auto& row : bve_list_values())
    if (b.wants(row.name, row.isa))
      bench_rhs(b, row, bve_select_values(bve_scalar)->run, false, tokens, 64);
  for (const auto& row : bve_list_routes())
    if (b.wants(row.name, row.isa)) bench_route(b, row, tokens, 96, 99);
  bench_frames(b);
  return b.count;
}
