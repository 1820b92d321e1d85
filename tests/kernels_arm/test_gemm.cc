// Every matrix product of the list against a loop in double precision, and against the scalar row
// of its packing: all sizes around the tile, parts of the output, row lists, gates, accumulation.
#include "kit.h"

namespace {

// What a product means, before any packing.
struct Product {
  size_t m, n, k;
  std::vector<float> left, right, scale, bias;  // left [m, k], right [n, k]: integers in qd8 x qc8
  std::vector<bve_row> rows;                    // zero as of int8

  Product(const bve_gemm_row& row, size_t m_, size_t n_, size_t k_, bool extreme)
      : m(m_), n(n_), k(k_), left(m * k), right(n * k), scale(n), bias(n), rows(m) {
    Random random(m * 10007 + n * 101 + k);
    const bool is_int8 = row.lhs.type == bve_qd8;
    const auto half = [](float x) { return bve_from_half(bve_to_half(x)); };
    for (float& x : left) {
      x = is_int8 ? extreme ? 127 : random.below(256) - 128 : random.uniform(-2, 2);
      if (row.lhs.type == bve_f16) x = half(x);
    }
    for (float& x : right) {
      x = is_int8 ? extreme ? -127 : random.below(255) - 127 : random.uniform(-1, 1);
      if (row.packing == bve_f16p) x = half(x);
    }
    for (float& x : scale) x = is_int8 ? random.uniform(0.001f, 0.02f) : 1;
    for (float& x : bias) x = random.uniform(-3, 3);
    for (bve_row& x : rows) {
      x.scale = is_int8 ? random.uniform(0.001f, 0.02f) : 1;
      x.zero = !is_int8 ? 0 : extreme ? -128 : random.below(256) - 128;
    }
  }

  // Sum of products of the numbers meant, and of their magnitudes.
  void at(size_t i, size_t j, double* sum, double* magnitude) const {
    double total = 0, size = 0;
    for (size_t r = 0; r < k; r++) {
      const double x = (left[i * k + r] - double(rows[i].zero)) * right[j * k + r];
      total += x;
      size += std::abs(x);
    }
    *sum = total * rows[i].scale * scale[j] + bias[j];
    *magnitude = size * rows[i].scale * scale[j] + std::abs(bias[j]);
  }

  size_t lhs_bytes(bve_lhs lhs) const {
    return (m + lhs.mr - 1) / lhs.mr * bve_lhs_stride_bytes(lhs, k);
  }
  void pack_lhs(bve_lhs lhs, Buffer<char>& dst, Buffer<bve_row>& packed_rows) const {
    for (size_t i = 0; i < m; i++) {
      packed_rows[i] = {rows[i].scale, rows[i].zero + (lhs.is_unsigned ? 128 : 0)};
      for (size_t j = 0; j < round_up(k, lhs.kr); j++) {
        const float x = j < k ? left[i * k + j] : 0;
        void* panel = dst.data() + i / lhs.mr * bve_lhs_stride_bytes(lhs, k);
        const size_t e = (j / lhs.kr * lhs.mr + i % lhs.mr) * lhs.kr + j % lhs.kr;
        const int flip = lhs.is_unsigned && j < k ? 128 : 0;
        if (lhs.type == bve_f32) static_cast<float*>(panel)[e] = x;
        if (lhs.type == bve_f16) static_cast<uint16_t*>(panel)[e] = bve_to_half(x);
        if (lhs.type == bve_qd8)
          static_cast<uint8_t*>(panel)[e] = static_cast<uint8_t>(static_cast<int>(x) + flip);
      }
    }
  }
  void pack_rhs(bve_packing packing, Buffer<char>& dst) const {
    if (packing == bve_f32p || packing == bve_f16p)
      return bve_pack_weights_f32(packing, n, k, right.data(), bias.data(), dst.data());
    const std::vector<int8_t> weights(right.begin(), right.end());
    bve_pack_weights_qc8(packing, n, k, weights.data(), scale.data(), bias.data(), dst.data());
  }
};

struct Options {
  bool list, gate, accumulate, part;
};

// dst [m + 3, n + 5] as the kernel leaves it. Of a part: only rows from the second panel of the
// left side on, and columns from the second of the right.
std::vector<float> run(const bve_gemm_row& row, const Product& p, Options options,
                       const std::vector<int32_t>& list, const std::vector<float>& gate) {
  Buffer<char> lhs(p.lhs_bytes(row.lhs));
  Buffer<char> rhs((p.n + 15) / 16 * bve_rhs_stride_bytes(row.packing, p.k));
  Buffer<bve_row> rows(p.m);
  p.pack_lhs(row.lhs, lhs, rows);
  p.pack_rhs(row.packing, rhs);
  const size_t stride = p.n + 5;
  Buffer<float> dst((p.m + 3) * stride);
  for (size_t i = 0; i < dst.size(); i++) dst[i] = static_cast<float>(i % 17) - 8;

  const size_t i0 = options.part && p.m > row.lhs.mr ? row.lhs.mr : 0;
  const size_t j0 = options.part && p.n > 16 ? 16 : 0;
  bve_gemm a = {};
  a.m = p.m - i0;
  a.n = p.n - j0;
  a.k = p.k;
  a.lhs_stride_bytes = bve_lhs_stride_bytes(row.lhs, p.k);
  a.lhs = lhs.data() + i0 / row.lhs.mr * a.lhs_stride_bytes;
  a.rows = row.lhs.type == bve_qd8 ? rows.data() + i0 : nullptr;
  a.rhs_stride_bytes = bve_rhs_stride_bytes(row.packing, p.k);
  a.rhs = rhs.data() + j0 / 16 * a.rhs_stride_bytes;
  a.dst = dst.data() + j0 + (options.list ? 0 : i0 * stride);
  a.dst_stride_bytes = stride * sizeof(float);
  a.dst_rows = options.list ? list.data() + i0 : nullptr;
  a.gate = options.gate ? gate.data() + i0 : nullptr;
  a.accumulate = options.accumulate;
  row.run(&a);
  CHECK(dst.guards_hold());
  CHECK(lhs.guards_hold());
  CHECK(rhs.guards_hold());
  return std::vector<float>(dst.data(), dst.data() + dst.size());
}

void check(const bve_gemm_row& row, size_t m, size_t n, size_t k, Options options, bool extreme) {
  CAPTURE(std::string(row.name));
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  CAPTURE(options.list);
  CAPTURE(options.gate);
  CAPTURE(options.accumulate);
  CAPTURE(options.part);
  const Product p(row, m, n, k, extreme);
  std::vector<int32_t> list(m);  // each second row of m + 3, from the end, then the others
  for (size_t i = 0; i < m; i++) list[i] = static_cast<int32_t>((2 * (m - i) + i / 2) % (m + 3));
  std::vector<bool> taken(m + 3);
  for (size_t i = 0; i < m; i++) {  // of rows listed twice the later goes to the next free one
    while (taken[static_cast<size_t>(list[i])])
      list[i] = static_cast<int32_t>((static_cast<size_t>(list[i]) + 1) % (m + 3));
    taken[static_cast<size_t>(list[i])] = true;
  }
  std::vector<float> gate(m);
  for (size_t i = 0; i < m; i++) gate[i] = 0.25f * static_cast<float>(i % 7);

  const std::vector<float> dst = run(row, p, options, list, gate);
  // The reference's panels of one row would make another part; it computes all.
  const bve_gemm_row& scalar = *bve_select_gemm(row.packing, bve_scalar, bve_any_core);
  const std::vector<float> reference =
      run(scalar, p, {options.list, options.gate, options.accumulate, false}, list, gate);

  const size_t i0 = options.part && m > row.lhs.mr ? row.lhs.mr : 0;
  const size_t j0 = options.part && n > 16 ? 16 : 0, stride = n + 5;
  std::vector<float> expected(dst.size());
  for (size_t i = 0; i < dst.size(); i++) expected[i] = static_cast<float>(i % 17) - 8;
  const double epsilon = row.lhs.type == bve_f16 ? 4e-3 : row.lhs.type == bve_f32 ? 2e-6 : 1e-6;
  double worst = 0, worst_reference = 0;
  for (size_t i = i0; i < m; i++) {
    const size_t dst_row = options.list ? static_cast<size_t>(list[i]) : i;
    for (size_t j = j0; j < n; j++) {
      const size_t e = dst_row * stride + j;
      double sum, magnitude;
      p.at(i, j, &sum, &magnitude);
      const double factor = options.gate ? gate[i] : 1, before = expected[e];
      const double value = sum * factor + (options.accumulate ? before : 0);
      const double limit =
          epsilon * (magnitude * factor + (options.accumulate ? std::abs(before) : 0));
      raise(worst, std::abs(dst[e] - value) - limit);
      raise(worst_reference, std::abs(dst[e] - reference[e]) - limit);
      expected[e] = dst[e];
    }
  }
  CHECK(worst <= 0);
  CHECK(worst_reference <= 0);
  CHECK(expected == dst);  // nothing else was written
}

}  // namespace

TEST_CASE("gemm: sizes around the tile, parts, lists, gates, accumulation") {
  for (const auto& row : bve_list_gemms()) {
    if (!can_run(row)) continue;
    const size_t rows = row.tile_rows, columns = row.tile_columns, kr = bve_rhs_kr(row.packing);
    int options = 0;
    for (size_t m : {size_t(1), rows > 1 ? rows - 1 : 2, rows, rows + 1, size_t(37)})
      for (size_t n : {size_t(1), columns - 1, columns, columns + 1, size_t(61)})
        for (size_t k : {size_t(1), kr + 1, size_t(37), size_t(64)}) {
          check(row, m, n, k,
                {(options & 1) != 0, (options & 2) != 0, (options & 4) != 0, (options & 8) != 0},
                false);
          options += 5;  // odd: all sixteen come
        }
  }
}

TEST_CASE("gemm: every option at one size") {
  for (const auto& row : bve_list_gemms()) {
    if (!can_run(row)) continue;
    for (int o = 0; o < 16; o++)
      check(row, 2 * row.tile_rows + 1, 2 * row.tile_columns + 3, 19,
            {(o & 1) != 0, (o & 2) != 0, (o & 4) != 0, (o & 8) != 0}, false);
  }
}

TEST_CASE("gemm: the largest sums that int8 makes") {
  for (const auto& row : bve_list_gemms())
    if (can_run(row) && row.lhs.type == bve_qd8)
      check(row, row.tile_rows, row.tile_columns, 1536, {false, false, false, false}, true);
}

TEST_CASE("gemm: the sums of a hostile head wrap") {
  const int32_t zero = -128, hostile = INT32_MAX - 5;
  const auto wrapped = static_cast<int32_t>(128 * static_cast<uint32_t>(hostile));
  for (const auto& row : bve_list_gemms()) {
    if (!can_run(row) || row.lhs.type != bve_qd8) continue;
    CAPTURE(std::string(row.name));
    Buffer<char> lhs(bve_lhs_stride_bytes(row.lhs, 4)), rhs(bve_rhs_stride_bytes(row.packing, 4));
    lhs.fill(0);
    rhs.fill(0);
    auto* head = reinterpret_cast<bve_qc8_head*>(rhs.data());
    for (int j = 0; j < BVE_PANEL; j++) head->scale[j] = 1, head->sum[j] = hostile;
    Buffer<bve_row> rows(1);
    rows[0] = {1, zero};
    Buffer<float> dst(BVE_PANEL);
    bve_gemm a{};
    a.m = 1, a.n = BVE_PANEL, a.k = 4;
    a.lhs = lhs.data(), a.lhs_stride_bytes = lhs.size(), a.rows = rows.data();
    a.rhs = rhs.data(), a.rhs_stride_bytes = rhs.size();
    a.dst = dst.data(), a.dst_stride_bytes = sizeof(float) * BVE_PANEL;
    row.run(&a);
    for (int j = 0; j < BVE_PANEL; j++) CHECK(dst[j] == static_cast<float>(wrapped));
  }
}

TEST_CASE("gemm: rows that share both packings agree") {
  const auto gemms = bve_list_gemms();
  for (const auto& a : gemms)
    for (const auto& b : gemms) {
      const bool same = a.packing == b.packing && a.lhs.type == b.lhs.type &&
                        a.lhs.mr == b.lhs.mr && a.lhs.kr == b.lhs.kr &&
                        a.lhs.is_unsigned == b.lhs.is_unsigned;
      if (&a >= &b || !same || a.lhs.type != bve_qd8 || !can_run(a) || !can_run(b)) continue;
      CAPTURE(std::string(a.name));
      CAPTURE(std::string(b.name));
      const Product p(a, 37, 61, 100, false);
      const auto x = run(a, p, {}, {}, {}), y = run(b, p, {}, {}, {});
      double worst = 0;
      for (size_t i = 0; i < x.size(); i++)
        raise(worst, std::abs(double(x[i]) - y[i]) / (1 + std::abs(x[i])));
      CHECK(worst <= 1e-6);
    }
}
