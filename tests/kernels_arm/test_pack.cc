// Weights to panels, one packing of int8 to the other, and halves.
#include "kit.h"

namespace {

const size_t kSizes[][2] = {{1, 1}, {16, 8}, {15, 37}, {17, 4}, {40, 61}, {48, 64}};

std::vector<int8_t> weights_of(size_t n, size_t k) {
  Random random(n + k);
  std::vector<int8_t> weights(n * k);
  for (int8_t& w : weights) w = static_cast<int8_t>(random.below(255) - 127);
  return weights;
}

}  // namespace

TEST_CASE("pack_weights_f32 and _qc8: every element, sums, heads, and zeros around them") {
  for (const auto& size : kSizes) {
    const size_t n = size[0], k = size[1];
    CAPTURE(n);
    CAPTURE(k);
    Random random(n * k);
    std::vector<float> weights(n * k), bias(n), scale(n);
    for (auto* v : {&weights, &bias, &scale})
      for (float& x : *v) x = random.uniform(-2, 2);
    const std::vector<int8_t> small = weights_of(n, k);
    for (bve_packing packing : {bve_f32p, bve_f16p, bve_qc8p4, bve_qc8p8}) {
      CAPTURE(packing);
      const bool is_int8 = packing == bve_qc8p4 || packing == bve_qc8p8;
      Buffer<char> dst((n + 15) / 16 * bve_rhs_stride_bytes(packing, k));
      if (is_int8) {
        bve_pack_weights_qc8(packing, n, k, small.data(), scale.data(), bias.data(), dst.data());
      } else {
        bve_pack_weights_f32(packing, n, k, weights.data(), bias.data(), dst.data());
      }
      CHECK(dst.guards_hold());
      int bad = 0;
      for (size_t j = 0; j < round_up(n, 16); j++) {
        bad += head_at(dst.data(), packing, k, is_int8, j) != (j < n ? bias[j] : 0);
        if (is_int8) bad += head_at(dst.data(), packing, k, 0, j) != (j < n ? scale[j] : 0);
        int sum = 0;
        for (size_t r = 0; r < round_up(k, bve_rhs_kr(packing)); r++) {
          float x = 0;
          if (j < n && r < k) x = is_int8 ? small[j * k + r] : weights[j * k + r];
          sum += is_int8 ? static_cast<int>(x) : 0;
          if (packing == bve_f16p) x = bve_from_half(bve_to_half(x));
          bad += rhs_at(dst.data(), packing, k, r, j) != x;
        }
        if (is_int8) bad += sum_at(dst.data(), packing, k, j) != sum;
      }
      CHECK(bad == 0);
    }
    Buffer<char> plain(2 * bve_rhs_stride_bytes(bve_f32p, k));
    bve_pack_weights_f32(bve_f32p, n > 32 ? 32 : n, k, weights.data(), nullptr, plain.data());
    CHECK(head_at(plain.data(), bve_f32p, k, 0, 0) == 0);
  }
}

TEST_CASE("repack_qc8 gives the bytes that packing at once gives, both ways") {
  for (const auto& size : kSizes) {
    const size_t n = size[0], k = size[1];
    CAPTURE(n);
    CAPTURE(k);
    const std::vector<int8_t> weights = weights_of(n, k);
    const std::vector<float> ones(n, 1);
    const size_t panels = (n + 15) / 16;
    Buffer<char> four(panels * bve_rhs_stride_bytes(bve_qc8p4, k)), to_four(four.size());
    Buffer<char> eight(panels * bve_rhs_stride_bytes(bve_qc8p8, k)), to_eight(eight.size());
    bve_pack_weights_qc8(bve_qc8p4, n, k, weights.data(), ones.data(), ones.data(), four.data());
    bve_pack_weights_qc8(bve_qc8p8, n, k, weights.data(), ones.data(), ones.data(), eight.data());
    bve_repack_qc8(bve_qc8p4, bve_qc8p8, n, k, four.data(), to_eight.data());
    bve_repack_qc8(bve_qc8p8, bve_qc8p4, n, k, eight.data(), to_four.data());
    CHECK(to_four.guards_hold());
    CHECK(to_eight.guards_hold());
    CHECK(std::memcmp(to_four.data(), four.data(), four.size()) == 0);
    CHECK(std::memcmp(to_eight.data(), eight.data(), eight.size()) == 0);
  }
}

TEST_CASE("halves round to nearest even, and back is exact") {
  CHECK(bve_to_half(1) == 0x3c00);
  CHECK(bve_to_half(-2) == 0xc000);
  CHECK(bve_to_half(65504) == 0x7bff);
  CHECK(bve_to_half(65519.996f) == 0x7bff);
  CHECK(bve_to_half(65520) == 0x7c00);
  CHECK(bve_to_half(INFINITY) == 0x7c00);
  CHECK(bve_to_half(1 + 1.0f / 2048) == 0x3c00);
  CHECK(bve_to_half(1 + 3.0f / 2048) == 0x3c02);
  CHECK(bve_to_half(0x1p-24f) == 1);
  CHECK(bve_to_half(0x1p-25f) == 0);
  CHECK(bve_to_half(0x1.8p-24f) == 2);
  CHECK(std::isnan(bve_from_half(bve_to_half(NAN))));
  int wrong = 0;
  for (uint32_t h = 0; h < 0x10000; h++) {
    const uint16_t half = static_cast<uint16_t>(h);
    if ((h & 0x7fff) <= 0x7c00) wrong += bve_to_half(bve_from_half(half)) != half;
  }
  CHECK(wrong == 0);
  CHECK(bve_from_half(0x0001) == 0x1p-24f);
  CHECK(bve_from_half(0x3555) == doctest::Approx(1 / 3.0).epsilon(1e-3));
}
