// Token dispatch through the C ABI against loops in double precision, and what it says to counts
// that cannot be.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "bve.h"
#include "doctest.h"
#include "tiny_program.h"

namespace {

using bve::test::Noise;

struct Tokens {
  size_t n, k, dim, little_dim;
  std::vector<float> x, z, gain, offset, weight, x_out, z_out, gate;
  std::vector<int32_t> order;

  // x_out starts `shift` floats into its memory, so that it is on no multiple of 64 bytes.
  Tokens(size_t n, size_t k, size_t dim, size_t little_dim, size_t shift = 0)
      : n(n), k(k), dim(dim), little_dim(little_dim), shift_(shift) {
    Noise noise(n + k);
    x = noise.take(n * dim);
    z = noise.take(n * little_dim);
    gain = noise.take(little_dim);
    offset = noise.take(little_dim);
    weight = noise.take(little_dim);
    x_out.resize(shift + n * dim);
    z_out.resize(n * little_dim);
    gate.resize(k);
    order.resize(n);
  }

  bve_tokens call() {
    return {n,
            k,
            dim,
            little_dim,
            x.data(),
            z.data(),
            gain.data(),
            offset.data(),
            weight.data(),
            0.7f,
            1e-6f,
            x_out.data() + shift_,
            z_out.data(),
            gate.data(),
            order.data()};
  }

  std::vector<double> score() const {
    std::vector<double> scores(n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
      double mean = 0, variance = 0, dot = 0.7;
      for (size_t j = 0; j < little_dim; j++) mean += double{z[i * little_dim + j]} / little_dim;
      for (size_t j = 0; j < little_dim; j++)
        variance += std::pow(z[i * little_dim + j] - mean, 2) / little_dim;
      for (size_t j = 0; j < little_dim; j++) {
        const double unit = (z[i * little_dim + j] - mean) / std::sqrt(variance + 1e-6);
        dot += (unit * gain[j] + offset[j]) * weight[j];
      }
      sum += scores[i] = std::exp(dot);
    }
    for (double& s : scores) s /= sum;
    return scores;
  }

 private:
  size_t shift_;
};

std::string refuse(const bve_tokens& tokens) {
  bve_error error{};
  CHECK(bve_dispatch(&tokens, &error) == 1);
  CHECK(bve_dispatch(&tokens, nullptr) == 1);
  return error.text;
}

}  // namespace

TEST_CASE("the best tokens come first, then the others, both in rising order") {
  const size_t sizes[][5] = {{1, 1, 32, 1, 0},
                             {2, 1, 32, 8, 1},
                             {17, 9, 32, 16, 15},
                             {50, 50, 33, 16, 7},
                             {197, 99, 384, 96, 3}};
  for (const auto& size : sizes) {
    const size_t n = size[0], k = size[1], dim = size[2], little_dim = size[3], shift = size[4];
    CAPTURE(n);
    Tokens tokens(n, k, dim, little_dim, shift);
    const bve_tokens call = tokens.call();
    bve_error error{};
    REQUIRE_MESSAGE(bve_dispatch(&call, &error) == 0, error.text);

    const std::vector<double> scores = tokens.score();
    std::vector<int32_t> order(n);
    for (size_t i = 0; i < n; i++) order[i] = static_cast<int32_t>(i);
    std::stable_sort(order.begin() + 1, order.end(), [&](int32_t a, int32_t b) {
      return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
    });
    std::sort(order.begin(), order.begin() + static_cast<long>(k));
    std::sort(order.begin() + static_cast<long>(k), order.end());
    CHECK(tokens.order == order);
    for (size_t i = 0; i < n; i++) {
      const size_t from = static_cast<size_t>(order[i]);
      CHECK(!std::memcmp(call.x_out + i * dim, &tokens.x[from * dim], dim * sizeof(float)));
      CHECK(!std::memcmp(call.z_out + i * little_dim, &tokens.z[from * little_dim],
                         little_dim * sizeof(float)));
      const double s = static_cast<double>(n) * scores[from];
      if (i < k) CHECK(std::abs(tokens.gate[i] - 2 * s / (1 + s)) < 5e-5);
    }
    CHECK(std::all_of(tokens.x_out.begin(), tokens.x_out.begin() + static_cast<long>(shift),
                      [](float x) { return x == 0; }));
  }
}

TEST_CASE("counts that cannot be are refused before anything is written") {
  Tokens tokens(17, 9, 32, 16);
  const auto change = [&](size_t bve_tokens::* field, size_t value) {
    bve_tokens call = tokens.call();
    call.*field = value;
    return refuse(call);
  };
  CHECK(change(&bve_tokens::count, 0) == "0 tokens to dispatch, expected 1 to 2147483647");
  CHECK(change(&bve_tokens::count, size_t{1} << 31) ==
        "2147483648 tokens to dispatch, expected 1 to 2147483647");
  CHECK(change(&bve_tokens::selected, 0) == "0 tokens selected, expected 1 to 17, which there are");
  CHECK(change(&bve_tokens::selected, 18) ==
        "18 tokens selected, expected 1 to 17, which there are");
  CHECK(change(&bve_tokens::dim, 31) == "tokens of 31 and 16 floats, expected at least 32 and 1");
  CHECK(change(&bve_tokens::little_dim, 0) ==
        "tokens of 32 and 0 floats, expected at least 32 and 1");
  CHECK(tokens.order == std::vector<int32_t>(17));
  CHECK(tokens.x_out == std::vector<float>(17 * 32));
}

TEST_CASE("of tokens that are no numbers as many are selected, each once") {
  Tokens tokens(17, 9, 32, 16);
  for (size_t i = 0; i < 5 * 16; i++) tokens.z[i] = NAN;
  const bve_tokens call = tokens.call();
  CHECK(bve_dispatch(&call, nullptr) == 0);
  std::vector<int32_t> order = tokens.order;
  CHECK(order[0] == 0);
  std::sort(order.begin(), order.end());
  for (int32_t i = 0; i < 17; i++) CHECK(order[static_cast<size_t>(i)] == i);
}
