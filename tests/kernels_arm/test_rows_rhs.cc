// Keys, values and the router against loops in double precision.
#include "kit.h"

namespace {

// Column j of the packed right side is src[at(j, r)].
template <typename At>
void check_rhs(const char* name, bve_pack_rhs_fn* run, size_t n, size_t d, bve_packing packing,
               size_t columns, size_t depth, At at) {
  CAPTURE(std::string(name));
  CAPTURE(n);
  CAPTURE(d);
  CAPTURE(packing);
  Random random(n * 100 + d);
  const size_t stride = d + 7;
  Buffer<float> src(n * stride - 7);
  for (size_t i = 0; i < src.size(); i++) src[i] = random.uniform(-4, 3);
  for (size_t r = 0; r < depth; r++) src[at(0, r, stride)] = 0;
  Buffer<char> dst(round_up(columns, 16) / 16 * bve_rhs_stride_bytes(packing, depth));
  const bve_pack_rhs a = {n, d, src.data(), stride * 4, dst.data(), packing};
  run(&a);
  CHECK(dst.guards_hold());
  const bool is_int8 = packing == bve_qc8p4 || packing == bve_qc8p8;
  double worst = 0;
  int bad_heads = 0, bad_sums = 0;
  for (size_t j = 0; j < round_up(columns, 16); j++) {
    const float scale = is_int8 ? head_at(dst.data(), packing, depth, 0, j) : 1;
    bad_heads += head_at(dst.data(), packing, depth, is_int8, j) != 0;
    double largest = 0;
    int sum = 0;
    for (size_t r = 0; r < round_up(depth, bve_rhs_kr(packing)); r++) {
      const double x = j < columns && r < depth ? src[at(j, r, stride)] : 0;
      const float y = rhs_at(dst.data(), packing, depth, r, j);
      largest = std::max(largest, std::abs(x));
      sum += is_int8 ? static_cast<int>(y) : 0;
      const double limit = is_int8               ? scale * 0.501
                           : packing == bve_f16p ? std::abs(x) / 2048 + 6e-8
                                                 : 0;
      raise(worst, std::abs(scale * y - x) - limit);
    }
    if (is_int8) {
      bad_sums += sum != sum_at(dst.data(), packing, depth, j);
      const double expected = j >= columns ? 0 : (largest > 0 ? largest : 1) / 127;
      bad_heads += std::abs(scale - expected) > 1e-6 * expected;
    }
  }
  CHECK(worst <= 0);
  CHECK(bad_heads == 0);
  CHECK(bad_sums == 0);
}

const bve_packing kPackings[] = {bve_f32p, bve_f16p, bve_qc8p4, bve_qc8p8};

}  // namespace

TEST_CASE("keys and values, in every packing") {
  const size_t sizes[][2] = {{1, 1}, {15, 16}, {16, 32}, {17, 64}, {37, 61}, {5, 3}, {197, 64}};
  for (const auto& row : bve_list_keys()) {
    if (!can_run(row)) continue;
    for (const auto& size : sizes) {
      const size_t n = size[0], d = size[1];
      for (bve_packing packing : kPackings)
        check_rhs(row.name, row.run, n, d, packing, n, d,
                  [](size_t j, size_t r, size_t stride) { return j * stride + r; });
    }
  }
  for (const auto& row : bve_list_values()) {
    if (!can_run(row)) continue;
    for (const auto& size : sizes) {
      const size_t n = size[0], d = size[1];
      for (bve_packing packing : kPackings)
        check_rhs(row.name, row.run, n, d, packing, d, n,
                  [](size_t j, size_t r, size_t stride) { return r * stride + j; });
    }
  }
}

namespace {

// run's column 1 of src[at(j, r)] must show what is not finite, and its neighbours must not.
template <typename At>
void check_not_finite(const char* name, bve_pack_rhs_fn* run, size_t columns, size_t depth,
                      bool as_keys, At at) {
  CAPTURE(std::string(name));
  CAPTURE(columns);
  CAPTURE(depth);
  const size_t n = as_keys ? columns : depth, d = as_keys ? depth : columns;
  Random random(n);
  Buffer<float> src(n * d);
  for (bve_packing packing : kPackings) {
    CAPTURE(packing);
    const bool is_int8 = packing == bve_qc8p4 || packing == bve_qc8p8;
    for (float hostile : not_finite()) {
      CAPTURE(hostile);
      for (size_t r : {size_t(0), depth / 2, depth - 1}) {
        CAPTURE(r);
        for (size_t i = 0; i < src.size(); i++) src[i] = random.uniform(-2, 3);
        src[at(1, r)] = hostile;
        Buffer<char> dst(round_up(columns, 16) / 16 * bve_rhs_stride_bytes(packing, depth));
        const bve_pack_rhs a = {n, d, src.data(), d * 4, dst.data(), packing};
        run(&a);
        for (size_t j = 0; j < columns; j++) {
          const float x = is_int8 ? head_at(dst.data(), packing, depth, 0, j)
                                  : rhs_at(dst.data(), packing, depth, r, j);
          if (j != 1) {
            CHECK(std::isfinite(x));
          } else if (is_int8 || std::isnan(hostile)) {
            CHECK(std::isnan(x));
          } else {
            CHECK(x == hostile);
          }
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("keys and values: what is not finite is not hidden") {
  const size_t sizes[][2] = {{2, 1}, {16, 16}, {17, 37}, {61, 64}, {20, 197}};
  for (const auto& size : sizes) {
    const size_t columns = size[0], depth = size[1];
    for (const auto& row : bve_list_keys())
      if (can_run(row))
        check_not_finite(row.name, row.run, columns, depth, true,
                         [&](size_t j, size_t r) { return j * depth + r; });
    for (const auto& row : bve_list_values())
      if (can_run(row))
        check_not_finite(row.name, row.run, columns, depth, false,
                         [&](size_t j, size_t r) { return r * columns + j; });
  }
}

namespace {

struct Routed {
  std::vector<float> scores, gate;
  std::vector<int32_t> selected, skipped;
};

Routed run_route(const bve_kernel_row<bve_route_fn>& row, size_t n, size_t c, size_t k,
                 const std::vector<float>& z, const std::vector<float>& gain,
                 const std::vector<float>& offset, const std::vector<float>& weight) {
  Buffer<float> src(n * (c + 3) - 3), gains(c), offsets(c), weights(c), scratch(round_up(n, 16));
  for (size_t i = 0; i < n; i++) std::copy_n(&z[i * c], c, src.data() + i * (c + 3));
  std::copy_n(gain.data(), c, gains.data());
  std::copy_n(offset.data(), c, offsets.data());
  std::copy_n(weight.data(), c, weights.data());
  Buffer<int32_t> selected(k), skipped(n - k);
  Buffer<float> gate(k);
  const bve_route a = {n,
                       c,
                       k,
                       src.data(),
                       (c + 3) * sizeof(float),
                       gains.data(),
                       offsets.data(),
                       weights.data(),
                       0.7f,
                       1e-6f,
                       scratch.data(),
                       selected.data(),
                       skipped.data(),
                       gate.data()};
  row.run(&a);
  CHECK(scratch.guards_hold());
  CHECK(selected.guards_hold());
  CHECK(skipped.guards_hold());
  CHECK(gate.guards_hold());
  return {{scratch.data(), scratch.data() + n},
          {gate.data(), gate.data() + k},
          {selected.data(), selected.data() + k},
          {skipped.data(), skipped.data() + n - k}};
}

}  // namespace

TEST_CASE("route: the best tokens in rising order, and their gates") {
  const size_t sizes[][3] = {{1, 1, 1},    {2, 8, 1},    {2, 8, 2},   {17, 5, 9},
                             {50, 16, 50}, {61, 37, 13}, {65, 48, 1}, {197, 96, 99}};
  for (const auto& row : bve_list_routes()) {
    if (!can_run(row)) continue;
    CAPTURE(std::string(row.name));
    for (const auto& size : sizes) {
      const size_t n = size[0], c = size[1], k = size[2];
      CAPTURE(n);
      CAPTURE(k);
      Random random(n);
      std::vector<float> z(n * c), gain(c), offset(c), weight(c);
      for (auto* v : {&z, &gain, &offset, &weight})
        for (float& x : *v) x = random.uniform(-1, 2);
      std::vector<double> scores(n);
      for (size_t i = 0; i < n; i++) {
        double mean = 0, variance = 0;
        for (size_t j = 0; j < c; j++) mean += double(z[i * c + j]) / c;
        for (size_t j = 0; j < c; j++) variance += std::pow(z[i * c + j] - mean, 2) / c;
        for (size_t j = 0; j < c; j++)
          scores[i] += ((z[i * c + j] - mean) / std::sqrt(variance + 1e-6) * gain[j] + offset[j]) *
                       weight[j];
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& s : scores) sum += s = std::exp(s - largest);
      for (double& s : scores) s /= sum;
      std::vector<int32_t> others;
      for (size_t i = 1; i < n; i++) others.push_back(static_cast<int32_t>(i));
      std::stable_sort(others.begin(), others.end(), [&](int a, int b) {
        return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
      });
      std::vector<int32_t> selected = {0};
      selected.insert(selected.end(), others.begin(), others.begin() + static_cast<long>(k - 1));
      std::vector<int32_t> skipped(others.begin() + static_cast<long>(k - 1), others.end());
      std::sort(selected.begin(), selected.end());
      std::sort(skipped.begin(), skipped.end());

      const Routed got = run_route(row, n, c, k, z, gain, offset, weight);
      CHECK(got.selected == selected);
      CHECK(got.skipped == skipped);
      double worst = 0;
      for (size_t i = 0; i < n; i++) raise(worst, std::abs(got.scores[i] / scores[i] - 1));
      for (size_t i = 0; i < k; i++) {
        const double s = static_cast<double>(n) * scores[static_cast<size_t>(selected[i])];
        raise(worst, std::abs(got.gate[i] - 2 * s / (1 + s)));
      }
      CHECK(worst <= 5e-5);
    }
  }
}

TEST_CASE("route: of equal scores the earlier token wins; what is not a number still makes k") {
  const size_t n = 37, c = 8, k = 11;
  const std::vector<float> ones(c, 1);
  for (const auto& row : bve_list_routes()) {
    if (!can_run(row)) continue;
    CAPTURE(std::string(row.name));
    const Routed equal = run_route(row, n, c, k, std::vector<float>(n * c), ones, ones, ones);
    for (size_t i = 0; i < n; i++)
      CHECK((i < k ? equal.selected[i] : equal.skipped[i - k]) == static_cast<int32_t>(i));

    for (float hostile : {NAN, -NAN, INFINITY}) {
      std::vector<float> z(n * c, hostile);
      const Routed got = run_route(row, n, c, k, z, ones, ones, ones);
      std::vector<int32_t> all = got.selected;
      all.insert(all.end(), got.skipped.begin(), got.skipped.end());
      std::sort(all.begin(), all.end());
      for (size_t i = 0; i < n; i++) CHECK(all[i] == static_cast<int32_t>(i));
      CHECK(got.selected[0] == 0);
    }
  }
}
