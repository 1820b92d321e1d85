// Every kernel of frames against the scalar one, to the bit, and that one against known levels.
#include <array>

#include "kit.h"

namespace {

const size_t kWidths[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 97};

size_t pad(size_t n) { return round_up(n, BVE_COLUMNS); }

void draw(Random& random, Buffer<uint8_t>& to) {
  for (size_t i = 0; i < to.size(); i++) to[i] = static_cast<uint8_t>(random.bits());
}

struct Planes {
  Buffer<uint8_t> red, green, blue;
  explicit Planes(size_t n) : red(2 * pad(n)), green(2 * pad(n)), blue(2 * pad(n)) {}
  Buffer<uint8_t>& operator[](size_t c) { return c == 0 ? red : c == 1 ? green : blue; }
};

template <typename Args>
void compare_planes(const bve_kernel_row<void(const Args*)>& row, void scalar(const Args*),
                    Args a) {
  Planes got(a.n), expected(a.n);
  for (size_t c = 0; c < 3; c++) a.dst[c] = got[c].data();
  row.run(&a);
  for (size_t c = 0; c < 3; c++) a.dst[c] = expected[c].data();
  scalar(&a);
  for (size_t c = 0; c < 3; c++) {
    CHECK(std::memcmp(got[c].data(), expected[c].data(), 2 * a.n) == 0);
    CHECK(got[c].guards_hold());
  }
}

}  // namespace

TEST_CASE("yuv: the scalar kernel's bits, in turns and in planes, and no byte behind the rows") {
  // Factors as of BT.709 from 16 to 235, the largest there are, and as of BT.601 from 0 to 255.
  const std::array<int16_t, 6> matrices[] = {{19077, 14686, -1747, -4366, 17305, -1160},
                                             {16384, 11485, -2819, -5850, 14516, 32}};
  for (const auto& row : bve_list_yuvs()) {
    if (!can_run(row)) continue;
    CAPTURE(std::string(row.name));
    for (size_t n : kWidths) {
      CAPTURE(n);
      Random random(n);
      const size_t half = (n + 1) / 2;
      Buffer<uint8_t> y0(n), y1(n), u(half), v(half), uv(half * 2);
      for (auto* plane : {&y0, &y1, &u, &v, &uv}) draw(random, *plane);
      if (n > 2) y0[0] = u[0] = uv[0] = 255, y0[1] = v[0] = uv[1] = 0;
      for (const auto& f : matrices) {
        bve_yuv a = {
            n, {y0.data(), y1.data()}, u.data(), v.data(), 1, f[0], f[1], f[2], f[3], f[4], f[5],
            {}};
        compare_planes(row, bve_select_yuv(bve_scalar)->run, a);
        a.uv_step = 2;
        a.u = uv.data(), a.v = uv.data() + 1;
        compare_planes(row, bve_select_yuv(bve_scalar)->run, a);
        std::swap(a.u, a.v);
        compare_planes(row, bve_select_yuv(bve_scalar)->run, a);
      }
    }
  }
}

TEST_CASE("yuv: no level is further from the matrix in double precision than rounding") {
  const double red_v = 1.402, green_u = -0.344136, green_v = -0.714136, blue_u = 1.772;
  Buffer<uint8_t> y(256);
  for (size_t i = 0; i < 256; i++) y[i] = static_cast<uint8_t>(i);
  double worst = 0;
  size_t unequal = 0, levels = 0;
  for (int u = 0; u < 256; u += 5) {
    for (int v = 0; v < 256; v += 5) {
      const std::vector<uint8_t> us(128, static_cast<uint8_t>(u)), vs(128, static_cast<uint8_t>(v));
      Planes got(256);
      const bve_yuv a = {256,       {y.data(), y.data()},
                         us.data(), vs.data(),
                         1,         16384,
                         11485,     -2819,
                         -5850,     14516,
                         32,        {got[0].data(), got[1].data(), got[2].data()}};
      bve_select_yuv(bve_detect_isa())->run(&a);
      for (size_t i = 0; i < 256; i++) {
        const double exact[3] = {i + red_v * (v - 128),
                                 i + green_u * (u - 128) + green_v * (v - 128),
                                 i + blue_u * (u - 128)};
        for (size_t c = 0; c < 3; c++) {
          const double kept = std::min(std::max(exact[c], 0.0), 255.0);
          worst = std::max(worst, std::abs(got[c][i * 2] - kept));
          unequal += got[c][i * 2] != std::floor(kept + 0.5);
          levels++;
        }
      }
    }
  }
  CHECK(worst < 0.5 + 1.0 / 32);
  CHECK(unequal < levels / 50);
}

TEST_CASE("rgb: sorted into planes, in any order of bytes, and no byte behind the rows") {
  for (const auto& row : bve_list_rgbs()) {
    if (!can_run(row)) continue;
    CAPTURE(std::string(row.name));
    for (size_t n : kWidths) {
      CAPTURE(n);
      Random random(n);
      for (const uint8_t bytes : {3, 4}) {
        Buffer<uint8_t> rows[2] = {Buffer<uint8_t>(n * bytes), Buffer<uint8_t>(n * bytes)};
        for (auto& plane : rows) draw(random, plane);
        for (const uint8_t red : {0, 2}) {
          const bve_rgb a = {n, {rows[0].data(), rows[1].data()}, bytes, red, {}};
          compare_planes(row, bve_select_rgb(bve_scalar)->run, a);
        }
      }
    }
  }
}

TEST_CASE("down: the scalar kernel's sums") {
  for (const auto& row : bve_list_downs()) {
    if (!can_run(row)) continue;
    CAPTURE(std::string(row.name));
    for (size_t n : kWidths) {
      for (const size_t pairs : {1, 2, 5, 6, 7}) {
        CAPTURE(n);
        CAPTURE(pairs);
        Random random(n * 100 + pairs);
        Buffer<uint8_t> levels(pairs * 2 * pad(n));
        draw(random, levels);
        std::vector<const uint8_t*> src(pairs);
        for (size_t p = 0; p < pairs; p++) src[p] = levels.data() + p * 2 * pad(n);
        Buffer<int16_t> weights(pairs * 2), got(pad(n)), expected(pad(n));
        for (size_t i = 0; i < weights.size(); i++)
          weights[i] = static_cast<int16_t>(random.below(40640) - 8000);
        weights[0] = BVE_MOST_WEIGHT, weights[1] = INT16_MIN;
        for (const auto& [shift, most] : {std::pair{8, 32640}, {17, 255}, {1, 32640}}) {
          bve_down a = {n,
                        pairs,
                        src.data(),
                        weights.data(),
                        static_cast<uint8_t>(shift),
                        static_cast<int16_t>(most),
                        got.data()};
          row.run(&a);
          a.dst = expected.data();
          bve_select_down(bve_scalar)->run(&a);
          CHECK(std::memcmp(got.data(), expected.data(), n * sizeof(int16_t)) == 0);
          CHECK(got.guards_hold());
        }
      }
    }
  }
}

TEST_CASE("across: the scalar kernel's levels, wherever they go") {
  for (const auto& row : bve_list_acrosses()) {
    if (!can_run(row)) continue;
    CAPTURE(std::string(row.name));
    for (const size_t n : {1, 3, 4, 5, 17}) {
      for (const size_t depth : {8, 16, 24, 40}) {
        CAPTURE(n);
        CAPTURE(depth);
        Random random(n * 100 + depth);
        const size_t columns = 3 * n + depth;
        Buffer<int16_t> red(columns), green(columns), blue(columns), weights(n * depth);
        for (auto* plane : {&red, &green, &blue})
          for (size_t i = 0; i < columns; i++)
            (*plane)[i] = static_cast<int16_t>(random.below(32641));
        for (size_t i = 0; i < weights.size(); i++)
          weights[i] = static_cast<int16_t>(random.below(3000) - 700);
        Buffer<uint32_t> starts(n);
        for (size_t i = 0; i < n; i++) starts[i] = static_cast<uint32_t>(3 * i + i % 3);
        // Along a row, back along it, down a column of 5 pixels, and as pairs of rows.
        const ptrdiff_t ways[][3] = {
            {3, 1, 0}, {-3, 1, 3 * (static_cast<ptrdiff_t>(n) - 1)}, {15, 1, 6}, {6, 2, 1}};
        for (const auto& [stride, channel, first] : ways) {
          Buffer<uint8_t> got(n * 15 + 6), expected(n * 15 + 6);
          bve_across a = {n,
                          depth,
                          starts.data(),
                          weights.data(),
                          {red.data(), green.data(), blue.data()},
                          21,
                          got.data() + first,
                          stride,
                          channel};
          row.run(&a);
          a.dst = expected.data() + first;
          bve_select_across(bve_scalar)->run(&a);
          CHECK(std::memcmp(got.data(), expected.data(), got.size()) == 0);
          CHECK(got.guards_hold());
        }
      }
    }
  }
}
