// Every pack and softmax of the list against loops in double precision, and against the scalar one.
#include "kit.h"

namespace {

const size_t kLengths[] = {1, 3, 15, 16, 17, 31, 32, 37, 48, 61, 96, 197};

std::vector<double> before(const bve_pack& a, size_t i) {
  const size_t row = a.src_rows ? a.src_rows[i] : i;
  const float* src = reinterpret_cast<const float*>(reinterpret_cast<const char*>(a.src) +
                                                    row * a.src_stride_bytes);
  std::vector<double> x(src, src + a.k);
  if (a.before == bve_gelu)
    for (double& v : x) v = 0.5 * v * std::erfc(-v / std::sqrt(2.0));
  if (a.before == bve_layernorm) {
    double mean = 0, variance = 0;
    for (double v : x) mean += v / a.k;
    for (double v : x) variance += (v - mean) * (v - mean) / a.k;
    for (size_t j = 0; j < a.k; j++)
      x[j] = (x[j] - mean) / std::sqrt(variance + a.epsilon) * a.gain[j] + a.offset[j];
  }
  return x;
}

struct Layout {
  uint8_t mr, kr;
  bool is_unsigned;
};

struct PackCase {
  size_t m, k;
  bve_before before;
  bve_lhs lhs;
  float spread, shift;
};

// Packs by `row` and by the reference, and compares both with the values in double precision.
void check_pack(const bve_kernel_row<bve_pack_fn>& row, const PackCase& c) {
  CAPTURE(std::string(row.name));
  CAPTURE(c.m);
  CAPTURE(c.k);
  CAPTURE(c.before);
  CAPTURE(int(c.lhs.mr));
  CAPTURE(c.lhs.is_unsigned);
  Random random(c.m * 1000 + c.k);
  const size_t src_rows = c.m + 3, stride = c.k + 5;
  Buffer<float> src(src_rows * stride - 5), gain(c.k), offset(c.k), scratch(round_up(c.k, 16));
  for (size_t i = 0; i < src.size(); i++) src[i] = random.uniform(-c.spread, c.spread) + c.shift;
  for (size_t j = 0; j < c.k; j++) {
    gain[j] = random.uniform(0.5f, 2);
    offset[j] = random.uniform(-1, 1);
  }
  Buffer<int32_t> list(c.m);
  for (size_t i = 0; i < c.m; i++) list[i] = random.below(static_cast<int>(src_rows));
  const size_t panels = (c.m + c.lhs.mr - 1) / c.lhs.mr;
  Buffer<char> dst(panels * bve_lhs_stride_bytes(c.lhs, c.k)), dst2(dst.size());
  Buffer<bve_row> rows(c.m), rows2(c.m);
  bve_pack a = {c.m,
                c.k,
                src.data(),
                stride * 4,
                list.data(),
                c.before,
                gain.data(),
                offset.data(),
                1e-6f,
                scratch.data(),
                dst.data(),
                c.lhs,
                c.lhs.type == bve_qd8 ? rows.data() : nullptr};
  row.run(&a);
  CHECK(dst.guards_hold());
  CHECK(rows.guards_hold());
  CHECK(scratch.guards_hold());
  bve_pack b = a;
  b.dst = dst2.data();
  b.rows = c.lhs.type == bve_qd8 ? rows2.data() : nullptr;
  bve_select_pack(c.lhs.type, bve_scalar)->run(&b);

  // What gelu and layernorm may be off by; a gelu for 8 bits has fewer terms.
  const double slack = c.before == bve_gelu && c.lhs.type == bve_qd8 ? 1e-4 : 1e-5;
  double worst = 0, worst_step = 0, worst_scale = 0, pad = 0;
  for (size_t i = 0; i < c.m; i++) {
    const std::vector<double> x = before(a, i);
    double low = 0, high = 0;
    for (double v : x) {
      low = std::min(low, v);
      high = std::max(high, v);
    }
    if (c.lhs.type == bve_qd8) {
      const double scale = (high > low ? high - low : 1) / 255;
      // Both ends of the range may be off by that.
      const double limit = 1e-6 * scale + (c.before == bve_as_is ? 0 : 2 * slack / 255);
      for (const double got : {rows[i].scale, rows2[i].scale})
        raise(worst_scale, std::abs(got - scale) - limit);
    }
    for (size_t j = 0; j < round_up(c.k, c.lhs.kr); j++) {
      if (c.lhs.type == bve_qd8) {
        int q = lhs_at<int8_t>(dst.data(), c.lhs, c.k, i, j);
        int q2 = lhs_at<int8_t>(dst2.data(), c.lhs, c.k, i, j);
        if (j >= c.k) {
          raise(pad, std::abs(q));
          continue;
        }
        if (c.lhs.is_unsigned) q &= 255, q2 &= 255;
        raise(worst_step, std::abs(q - q2));
        const double y = double(rows[i].scale) * (q - rows[i].zero);
        raise(worst, (std::abs(y - x[j]) - slack) / rows[i].scale);
      } else {
        const float y = c.lhs.type == bve_f32
                            ? lhs_at<float>(dst.data(), c.lhs, c.k, i, j)
                            : bve_from_half(lhs_at<uint16_t>(dst.data(), c.lhs, c.k, i, j));
        const double rounding = c.lhs.type == bve_f16 ? std::abs(x[j]) / 2048 + 6e-8 : 0;
        raise(worst, std::abs(y - x[j]) - rounding);
      }
    }
  }
  if (c.lhs.type == bve_qd8) {
    // Half a step for rounding, and half for a zero point that is rounded too and clamps the end.
    CHECK(worst <= 1.001);
    CHECK(worst_step <= 1);
    CHECK(worst_scale <= 0);
    CHECK(pad == 0);
  } else {
    CHECK(worst <= slack);
  }
}

}  // namespace

TEST_CASE("pack: gather, layernorm, gelu, in every layout") {
  const Layout layouts[] = {{1, 1, false}, {1, 4, false}, {1, 4, true},  {1, 8, false},
                            {4, 4, false}, {6, 4, true},  {8, 8, false}, {4, 8, true}};
  for (const auto& row : bve_list_packs()) {
    if (!can_run(row)) continue;
    for (const Layout& layout : layouts) {
      if ((row.type == bve_qd8) != (layout.kr != 1)) continue;
      const bve_lhs lhs = {row.type, layout.mr, layout.kr, layout.is_unsigned};
      for (size_t k : kLengths)
        for (bve_before before : {bve_as_is, bve_layernorm, bve_gelu})
          check_pack(row, {k % 2 ? 5u : 9u, k, before, lhs, 3, 0.5f});
    }
    if (row.type != bve_qd8) check_pack(row, {7, 37, bve_as_is, {row.type, 4, 1, false}, 3, 0});
  }
}

TEST_CASE("pack: rows of one sign, of zeros and of tiny numbers") {
  for (const auto& row : bve_list_packs()) {
    if (!can_run(row) || row.type != bve_qd8) continue;
    const bve_lhs lhs = {bve_qd8, 1, 4, false};
    check_pack(row, {2, 37, bve_as_is, lhs, 1, 5});
    check_pack(row, {2, 37, bve_as_is, lhs, 1, -5});
    check_pack(row, {2, 37, bve_as_is, lhs, 0, 0});
    Buffer<float> src(3);
    src[0] = 1e-42f, src[1] = -1e-42f, src[2] = 0;
    Buffer<int8_t> dst(16);
    Buffer<bve_row> rows(1);
    const bve_pack a = {1,       3, src.data(), 12,         nullptr, bve_as_is,  nullptr,
                        nullptr, 0, nullptr,    dst.data(), lhs,     rows.data()};
    row.run(&a);
    CHECK(rows[0].scale == doctest::Approx(1 / 255.0));
    for (int j = 0; j < 3; j++) CHECK(dst[j] == rows[0].zero);
  }
}

TEST_CASE("pack: what is not finite is not hidden") {
  const size_t m = 3;
  for (const auto& row : bve_list_packs()) {
    if (!can_run(row)) continue;
    CAPTURE(std::string(row.name));
    const uint8_t kr = row.type == bve_qd8 ? 4 : 1;
    for (size_t k : kLengths) {
      CAPTURE(k);
      Random random(k);
      Buffer<float> src(m * k), gain(k), offset(k), scratch(round_up(k, 16));
      gain.fill(1.5f);
      offset.fill(0.25f);
      for (bve_before before : {bve_as_is, bve_layernorm, bve_gelu}) {
        CAPTURE(before);
        for (float hostile : not_finite()) {
          CAPTURE(hostile);
          for (size_t at : {size_t(0), k / 2, k - 1}) {
            CAPTURE(at);
            for (size_t i = 0; i < src.size(); i++) src[i] = random.uniform(-2, 3);
            src[k + at] = hostile;
            const bve_lhs lhs = {row.type, 4, kr, false};
            Buffer<char> dst(bve_lhs_stride_bytes(lhs, k));
            Buffer<bve_row> rows(m);
            const bve_pack a = {m,
                                k,
                                src.data(),
                                k * 4,
                                nullptr,
                                before,
                                gain.data(),
                                offset.data(),
                                1e-6f,
                                scratch.data(),
                                dst.data(),
                                lhs,
                                row.type == bve_qd8 ? rows.data() : nullptr};
            row.run(&a);
            if (row.type == bve_qd8) {
              CHECK(std::isnan(rows[1].scale));
              CHECK(std::isfinite(rows[0].scale));
              CHECK(std::isfinite(rows[2].scale));
              continue;
            }
            const float y = row.type == bve_f32
                                ? lhs_at<float>(dst.data(), lhs, k, 1, at)
                                : bve_from_half(lhs_at<uint16_t>(dst.data(), lhs, k, 1, at));
            if (before == bve_layernorm || std::isnan(hostile)) {
              CHECK(std::isnan(y));
            } else {
              CHECK((!std::isfinite(y) || (before == bve_gelu && hostile < 0 && y == 0)));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("pack: a range beyond float is not finite") {
  for (const auto& row : bve_list_packs()) {
    if (!can_run(row) || row.type != bve_qd8) continue;
    Buffer<float> src(2);
    src[0] = 3e38f, src[1] = -3e38f;
    Buffer<int8_t> dst(16);
    Buffer<bve_row> rows(1);
    bve_pack a{};
    a.m = 1, a.k = 2, a.src = src.data(), a.dst = dst.data(), a.rows = rows.data();
    a.lhs = {bve_qd8, 1, 4, false};
    row.run(&a);
    CHECK(std::isnan(rows[0].scale));
  }
}

TEST_CASE("gelu is within 2e-6 of x * Phi(x)") {
  const size_t count = 40001;
  Buffer<float> src(count), dst(count + 3), scratch(round_up(count, 16));
  for (size_t i = 0; i < count; i++) src[i] = (static_cast<float>(i) - 20000) / 2000;
  src[0] = -1e30f, src[1] = 1e30f, src[2] = -88, src[3] = 88;
  for (const auto& row : bve_list_packs()) {
    if (!can_run(row) || row.type != bve_f32) continue;
    CAPTURE(std::string(row.name));
    const bve_pack a = {1,       count,          src.data(), 0,
                        nullptr, bve_gelu,       nullptr,    nullptr,
                        0,       scratch.data(), dst.data(), {bve_f32, 1, 1, false},
                        nullptr};
    row.run(&a);
    double worst = 0;
    for (size_t i = 0; i < count; i++) {
      const double x = src[i], y = 0.5 * x * std::erfc(-x / std::sqrt(2.0));
      if (i != 1) raise(worst, std::abs(dst[i] - y));
    }
    CHECK(worst <= 2e-6);
    CHECK(dst[1] == 1e30f);
  }
}

TEST_CASE("softmax, packed") {
  const Layout layouts[] = {{1, 1, false}, {1, 4, false}, {1, 4, true},
                            {1, 8, true},  {4, 4, false}, {8, 8, false}};
  for (const auto& row : bve_list_softmaxes()) {
    if (!can_run(row)) continue;
    CAPTURE(std::string(row.name));
    for (const Layout& layout : layouts) {
      if ((row.type == bve_qd8) != (layout.kr != 1)) continue;
      const bve_lhs lhs = {row.type, layout.mr, layout.kr, layout.is_unsigned};
      for (size_t n : kLengths) {
        CAPTURE(n);
        const size_t m = 5, stride = round_up(n, 16) + 16;
        Random random(n);
        Buffer<float> scores(m * stride);
        for (size_t i = 0; i < scores.size(); i++) scores[i] = random.uniform(-8, 8);
        scores[1] = -1e30f;
        if (n > 2) scores[2] = 30;
        for (size_t j = 0; j < n; j++) scores[stride + j] = -2e4f;
        std::vector<float> was(scores.data(), scores.data() + scores.size());
        const size_t panels = (m + lhs.mr - 1) / lhs.mr;
        Buffer<char> dst(panels * bve_lhs_stride_bytes(lhs, n));
        Buffer<bve_row> rows(m);
        const bve_softmax a = {m,
                               n,
                               scores.data(),
                               stride * 4,
                               dst.data(),
                               lhs,
                               row.type == bve_qd8 ? rows.data() : nullptr};
        row.run(&a);
        CHECK(scores.guards_hold());
        CHECK(dst.guards_hold());
        CHECK(rows.guards_hold());
        double worst = 0, pad = 0;
        for (size_t i = 0; i < m; i++) {
          const float* s = was.data() + i * stride;
          const double largest = *std::max_element(s, s + n);
          double sum = 0;
          for (size_t j = 0; j < n; j++) sum += std::exp(s[j] - largest);
          for (size_t j = 0; j < round_up(n, lhs.kr); j++) {
            const double p = j < n ? std::exp(s[j] - largest) / sum : 0;
            if (lhs.type == bve_qd8) {
              int q = lhs_at<int8_t>(dst.data(), lhs, n, i, j);
              if (j >= n) {
                raise(pad, std::abs(q));
                continue;
              }
              if (lhs.is_unsigned) q &= 255;
              const double y = double(rows[i].scale) * (q - rows[i].zero);
              raise(worst, std::abs(y - p) / rows[i].scale);
            } else {
              const double y = lhs.type == bve_f32
                                   ? lhs_at<float>(dst.data(), lhs, n, i, j)
                                   : bve_from_half(lhs_at<uint16_t>(dst.data(), lhs, n, i, j));
              const double rounding = lhs.type == bve_f16 ? p / 2048 + 6e-8 : 0;
              // A difference of floats is exact to its last place, which exp makes relative.
              const double share = 1e-6 + 1.2e-7 * (largest - s[std::min(j, n - 1)]);
              raise(worst, std::abs(y - p) - rounding - share * p);
            }
          }
        }
        // Half a step, and 0.05 for exponentials of fewer terms.
        CHECK(worst <= (lhs.type == bve_qd8 ? 0.55 : 1e-37));
        CHECK(pad == 0);
      }
    }
  }
}

TEST_CASE("softmax: a score of NaN or infinity is not hidden; one of minus infinity is zero") {
  const size_t m = 3;
  for (const auto& row : bve_list_softmaxes()) {
    if (!can_run(row)) continue;
    CAPTURE(std::string(row.name));
    const bve_lhs lhs = {row.type, 1, static_cast<uint8_t>(row.type == bve_qd8 ? 4 : 1), false};
    for (size_t n : kLengths) {
      CAPTURE(n);
      Random random(n);
      const size_t stride = round_up(n, 16);
      Buffer<float> scores(m * stride);
      for (float hostile : not_finite()) {
        CAPTURE(hostile);
        for (size_t at : {size_t(0), n / 2, n - 1}) {
          CAPTURE(at);
          if (hostile == -INFINITY && n == 1) continue;
          for (size_t i = 0; i < scores.size(); i++) scores[i] = random.uniform(-4, 4);
          scores[stride + at] = hostile;
          Buffer<char> dst(m * bve_lhs_stride_bytes(lhs, n));
          Buffer<bve_row> rows(m);
          const bve_softmax a = {m,
                                 n,
                                 scores.data(),
                                 stride * 4,
                                 dst.data(),
                                 lhs,
                                 row.type == bve_qd8 ? rows.data() : nullptr};
          row.run(&a);
          for (size_t i = 0; i < m; i++) {
            int nans = 0;
            float least = 0;
            for (size_t j = 0; j < n; j++) {
              const float p = row.type == bve_f32 ? lhs_at<float>(dst.data(), lhs, n, i, j)
                              : row.type == bve_f16
                                  ? bve_from_half(lhs_at<uint16_t>(dst.data(), lhs, n, i, j))
                                  : rows[i].scale * static_cast<float>(
                                                        lhs_at<int8_t>(dst.data(), lhs, n, i, j) -
                                                        rows[i].zero);
              nans += std::isnan(p);
              if (j == at) least = p;
            }
            CHECK(nans == (i == 1 && hostile != -INFINITY ? static_cast<int>(n) : 0));
            if (i == 1 && hostile == -INFINITY) CHECK(least < 1e-30f);
          }
        }
      }
    }
  }
}
