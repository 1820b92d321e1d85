#include "resampling.h"

#include <algorithm>
#include <cmath>

namespace bve {
namespace {

constexpr int kBits = 22;  // of a weight behind the point
constexpr int32_t kHalf = 1 << (kBits - 1);

double weigh_linear(double x) {
  x = std::fabs(x);
  return x < 1 ? 1 - x : 0;
}

double weigh_cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

double compute_sinc(double x) {
  if (x == 0) return 1;
  x *= 3.14159265358979323846;
  return std::sin(x) / x;
}

double weigh_lanczos(double x) {
  return -3 <= x && x < 3 ? compute_sinc(x) * compute_sinc(x / 3) : 0;
}

struct Kernel {
  double reach;  // in pixels of a picture that keeps its size
  double (*weigh)(double);
};

Kernel find_kernel(Filter filter) {
  if (filter == Filter::kLanczos) return {3, weigh_lanczos};
  if (filter == Filter::kBicubic) return {2, weigh_cubic};
  return {1, weigh_linear};
}

// A sum of steps and not a product, for it is rounded at each.
Taps find_nearest(const Side& side) {
  Taps taps;
  const double step = static_cast<double>(side.end - side.begin) / side.whole;
  double at = side.begin + step * 0.5;
  for (uint32_t i = 0; i < side.first + side.count; ++i, at += step) {
    if (i < side.first) continue;
    taps.starts.push_back(std::min(static_cast<uint32_t>(at), side.source - 1));
    taps.sizes.push_back(1);
    taps.weights.push_back(1 << kBits);
  }
  return taps;
}

int32_t round_weight(double weight) {
  return static_cast<int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kBits));
}

uint8_t round_sum(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

}  // namespace

Taps compute_taps(Filter filter, const Side& side) {
  if (filter == Filter::kNearest) return find_nearest(side);
  const Kernel kernel = find_kernel(filter);
  const double scale = static_cast<double>(side.end - side.begin) / side.whole;
  const double stretch = std::max(scale, 1.0), reach = kernel.reach * stretch;
  Taps taps;
  taps.most = std::min(static_cast<uint32_t>(std::ceil(reach)) * 2 + 1, side.source);
  taps.weights.resize(size_t{side.count} * taps.most);
  std::vector<double> weights(taps.most);
  for (uint32_t i = 0; i < side.count; ++i) {
    const double center = side.begin + (side.first + i + 0.5) * scale;
    const auto start = static_cast<uint32_t>(std::max(center - reach + 0.5, 0.0));
    const auto end = static_cast<uint32_t>(std::min<double>(center + reach + 0.5, side.source));
    double sum = 0;
    for (uint32_t j = 0; j < end - start; ++j) {
      weights[j] = kernel.weigh((j + start - center + 0.5) * (1 / stretch));
      sum += weights[j];
    }
    for (uint32_t j = 0; j < end - start; ++j) {
      taps.weights[size_t{i} * taps.most + j] =
          round_weight(sum == 0 ? weights[j] : weights[j] / sum);
    }
    taps.starts.push_back(start);
    taps.sizes.push_back(end - start);
  }
  return taps;
}

bool goes_down_first(const Side& across, const Side& down) {
  const auto shrink = [](const Side& side) { return int64_t{side.source} - side.whole; };
  return shrink(down) > 0 && shrink(down) > 2 * shrink(across);
}

void resample(const Taps& across, const Taps& down, bool down_first, uint32_t channels,
              const std::function<void(uint32_t y, uint8_t* row)>& read,
              const std::function<void(uint32_t y, const uint8_t* row)>& take) {
  const size_t columns = across.starts.size();
  const uint32_t origin = across.starts.front();
  const size_t length = across.starts.back() + across.sizes.back() - origin;
  const size_t width = (down_first ? length : columns) * channels;  // of a row that goes down
  std::vector<uint8_t> source(length * channels), kept(down.most * width), sum(width);
  std::vector<uint8_t> result(down_first ? columns * channels : 0);
  std::vector<int32_t> sums(width);

  const auto resample_row = [&](const uint8_t* row, uint8_t* out) {
    for (size_t x = 0; x < columns; ++x) {
      const uint8_t* const pixels = row + (across.starts[x] - origin) * size_t{channels};
      const int32_t* const weights = across.weights.data() + x * across.most;
      for (uint32_t c = 0; c < channels; ++c) {
        int32_t total = kHalf;
        for (uint32_t j = 0; j < across.sizes[x]; ++j) {
          total += pixels[j * channels + c] * weights[j];
        }
        out[x * channels + c] = round_sum(total);
      }
    }
  };

  uint32_t next = 0;  // row of the picture that is not kept yet
  for (uint32_t y = 0; y < down.starts.size(); ++y) {
    const uint32_t start = down.starts[y], end = start + down.sizes[y];
    for (next = std::max(next, start); next < end; ++next) {
      uint8_t* const row = kept.data() + next % down.most * width;
      read(next, down_first ? row : source.data());
      if (!down_first) resample_row(source.data(), row);
    }
    std::fill(sums.begin(), sums.end(), kHalf);
    for (uint32_t row = start; row < end; ++row) {
      const uint8_t* const pixels = kept.data() + row % down.most * width;
      const int32_t weight = down.weights[size_t{y} * down.most + row - start];
      for (size_t i = 0; i < width; ++i) sums[i] += pixels[i] * weight;
    }
    std::transform(sums.begin(), sums.end(), sum.begin(), round_sum);
    if (down_first) resample_row(sum.data(), result.data());
    take(y, down_first ? result.data() : sum.data());
  }
}

}  // namespace bve
