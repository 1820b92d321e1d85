#include "frame_reader.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "error.h"

namespace bve {
namespace {

constexpr int kMostFractionBits = 7;  // that leave a level in 16 bits
constexpr uint32_t kUnit = 8;         // of taps along a row

uint32_t round_up(uint32_t value, uint32_t unit) { return (value + unit - 1) / unit * unit; }

bool is_turned(const bve_frame& frame) { return frame.rotation % 180 != 0; }

bool is_alike(const bve_frame& a, const bve_frame& b) {
  return a.width == b.width && a.height == b.height && a.format == b.format &&
         a.rotation == b.rotation && a.pixel_stride == b.pixel_stride;
}

// ITU-R BT.601 and BT.709, as bve_yuv has them.
void set_matrix(uint32_t matrix, bve_yuv& args) {
  const bool is_709 = matrix == BVE_BT709_FULL || matrix == BVE_BT709;
  const bool is_full = matrix == BVE_BT601_FULL || matrix == BVE_BT709_FULL;
  const double red = is_709 ? 0.2126 : 0.299, blue = is_709 ? 0.0722 : 0.114;
  const double green = 1 - red - blue;
  const double gain = is_full ? 1 : 255.0 / 219, swing = is_full ? 1 : 255.0 / 224;
  const auto fix = [](double factor) { return static_cast<int16_t>(std::lround(factor)); };
  args.gain = fix(gain * (1 << 14));
  args.offset = fix(32 - (is_full ? 0 : 16 * gain * 64));
  args.red_v = fix(2 * (1 - red) * swing * (1 << 13));
  args.blue_u = fix(2 * (1 - blue) * swing * (1 << 13));
  args.green_u = fix(-2 * (1 - blue) * blue / green * swing * (1 << 13));
  args.green_v = fix(-2 * (1 - red) * red / green * swing * (1 << 13));
}

const uint8_t* find_row(const bve_frame& frame, size_t plane, uint32_t row) {
  return static_cast<const uint8_t*>(frame.planes[plane]) + row * frame.stride_bytes[plane];
}

}  // namespace

FrameReader::FrameReader(const Preprocessing& how, uint32_t isa)
    : how_(how),
      yuv_(*bve_select_yuv(isa)),
      rgb_(*bve_select_rgb(isa)),
      down_kernel_(*bve_select_down(isa)),
      across_kernel_(*bve_select_across(isa)) {}

void FrameReader::plan(const bve_frame& frame) {
  planned_ = {};
  const bool turned = is_turned(frame);
  const Ways ways = turned ? find_ways(frame.height, frame.width, how_)
                           : find_ways(frame.width, frame.height, how_);
  down_ = plan_axis(how_.resize, turned ? ways.across : ways.down, frame.height,
                    frame.rotation == 90 || frame.rotation == 180, 2, 2, 255);
  // Pillow keeps sums to 0..255 between its two passes, which matters where they can leave it.
  const bool overshoots = how_.resize == Filter::kBicubic || how_.resize == Filter::kLanczos;
  fraction_bits_ = overshoots ? 0 : kMostFractionBits;
  across_ =
      plan_axis(how_.resize, turned ? ways.down : ways.across, frame.width,
                frame.rotation == 180 || frame.rotation == 270, 1, kUnit, 255 << fraction_bits_);
  is_across_first_ =
      fraction_bits_ == 0 && turned == goes_down_first(ways.across.side, ways.down.side);

  const uint32_t columns = round_up(across_.count, BVE_COLUMNS);
  const uint32_t levels = round_up(static_cast<uint32_t>(3 * across_.pixels()), BVE_COLUMNS);
  plane_bytes_ = size_t{2} * columns;
  slot_bytes_ = is_across_first_ ? size_t{2} * levels : 3 * plane_bytes_;
  slots_ = down_.depth / 2;
  sum_count_ = round_up(columns + across_.depth, BVE_COLUMNS);
  kept_ = allocate(slots_ * slot_bytes_);
  pair_ = allocate(is_across_first_ ? 3 * plane_bytes_ : 0);
  sums_ = allocate(std::max<size_t>(3 * sum_count_, levels) * sizeof(int16_t));
  chroma_.resize(frame.pixel_stride == 2 ? size_t{columns} : 0);
  sources_.resize(slots_);
  planned_ = frame;
}

void FrameReader::convert(const bve_frame& frame, const FrameFormat& format, uint32_t pair,
                          uint8_t* planes) {
  const uint32_t row = down_.first + 2 * pair, below = std::min(row + 1, frame.height - 1);
  const uint32_t first = across_.first, count = across_.count;
  if (format.bytes != 0) {
    bve_rgb args{
        count, {}, static_cast<uint8_t>(format.bytes), static_cast<uint8_t>(format.red), {}};
    args.rows[0] = find_row(frame, 0, row) + size_t{first} * format.bytes;
    args.rows[1] = find_row(frame, 0, below) + size_t{first} * format.bytes;
    for (size_t c = 0; c < 3; ++c) args.dst[c] = planes + c * plane_bytes_;
    return rgb_.run(&args);
  }
  bve_yuv args{};
  set_matrix(frame.matrix, args);
  args.n = count;
  args.y[0] = find_row(frame, 0, row) + first;
  args.y[1] = find_row(frame, 0, below) + first;
  for (size_t c = 0; c < 3; ++c) args.dst[c] = planes + c * plane_bytes_;
  if (format.planes == 2) {
    const uint8_t* const chroma = find_row(frame, 1, row / 2) + first;
    args.u = chroma + (frame.format == BVE_NV21);
    args.v = chroma + (frame.format == BVE_NV12);
    args.uv_step = 2;
    return yuv_.run(&args);
  }
  args.u = find_row(frame, 1, row / 2) + size_t{first} / 2 * frame.pixel_stride;
  args.v = find_row(frame, 2, row / 2) + size_t{first} / 2 * frame.pixel_stride;
  args.uv_step = frame.pixel_stride;
  if (args.uv_step == 2 && args.u != args.v + 1 && args.v != args.u + 1) {
    const size_t half = (size_t{count} + 1) / 2;
    for (size_t i = 0; i < half; ++i) {
      chroma_[i] = args.u[i * 2];
      chroma_[half + i] = args.v[i * 2];
    }
    args.u = chroma_.data();
    args.v = chroma_.data() + half;
    args.uv_step = 1;
  }
  yuv_.run(&args);
}

// Of rows of sums.
void FrameReader::sum_across(uint8_t* dst, ptrdiff_t stride, ptrdiff_t channel) {
  bve_across args{};
  args.n = across_.pixels();
  args.depth = across_.depth;
  args.starts = across_.starts.data();
  args.weights = across_.weights.data();
  for (size_t c = 0; c < 3; ++c) args.src[c] = sums(c);
  args.shift = static_cast<uint8_t>(across_.bits + fraction_bits_);
  args.dst = dst;
  args.dst_stride_bytes = stride;
  args.dst_channel_bytes = channel;
  across_kernel_.run(&args);
}

// keep(pair, slot) of each pair of the frame's rows, in turn; sum(i, pairs, weights) of each of the
// canvas's pixels, once all its pairs are kept: from which slot on, by number, and how many.
template <typename Keep, typename Sum>
void FrameReader::each_pixel_down(Keep keep, Sum sum) {
  uint32_t next = 0;  // pair that is not kept yet
  for (size_t i = 0; i < down_.pixels(); ++i) {
    const uint32_t start = down_.starts[i] / 2, end = start + down_.sizes[i] / 2;
    const auto find_slot = [&](uint32_t pair) {
      return reinterpret_cast<uint8_t*>(kept_.get()) + pair % slots_ * slot_bytes_;
    };
    for (next = std::max(next, start); next < end; ++next) keep(next, find_slot(next));
    for (uint32_t pair = start; pair < end; ++pair) sources_[pair - start] = find_slot(pair);
    bve_down args{};
    args.pairs = end - start;
    args.src = sources_.data();
    args.weights = down_.weights.data() + i * down_.depth;
    sum(i, args);
  }
}

void FrameReader::read_down_first(const bve_frame& frame, const FrameFormat& format,
                                  uint8_t* pixels) {
  const ptrdiff_t row = ptrdiff_t{3} * how_.size;
  const ptrdiff_t along = is_turned(frame) ? row : 3, between = is_turned(frame) ? 3 : row;
  each_pixel_down([&](uint32_t pair, uint8_t* slot) { convert(frame, format, pair, slot); },
                  [&](size_t i, bve_down& args) {
                    args.n = across_.count;
                    args.shift = static_cast<uint8_t>(down_.bits - fraction_bits_);
                    args.most = static_cast<int16_t>(255 << fraction_bits_);
                    for (size_t c = 0; c < 3; ++c) {
                      args.dst = sums(c);
                      down_kernel_.run(&args);
                      for (size_t p = 0; p < args.pairs; ++p) sources_[p] += plane_bytes_;
                    }
                    sum_across(pixels + down_.place_of(i) * between + across_.place_of(0) * along,
                               across_.is_flipped ? -along : along, 1);
                  });
}

// What is kept of a pair of rows is their sums: [pixels][3][2].
void FrameReader::read_across_first(const bve_frame& frame, const FrameFormat& format,
                                    uint8_t* pixels) {
  const ptrdiff_t row = ptrdiff_t{3} * how_.size;
  const ptrdiff_t along = is_turned(frame) ? row : 3, between = is_turned(frame) ? 3 : row;
  auto* const planes = reinterpret_cast<uint8_t*>(pair_.get());
  const auto keep = [&](uint32_t pair, uint8_t* slot) {
    convert(frame, format, pair, planes);
    constexpr int16_t kOne = 1 << 14, kWeights[2][2] = {{kOne, 0}, {0, kOne}};
    for (size_t i = 0; i < 2; ++i) {
      for (size_t c = 0; c < 3; ++c) {
        const uint8_t* const plane = planes + c * plane_bytes_;
        const bve_down args{across_.count,
                            1,
                            &plane,
                            kWeights[i],
                            static_cast<uint8_t>(14 - fraction_bits_),
                            static_cast<int16_t>(255 << fraction_bits_),
                            sums(c)};
        down_kernel_.run(&args);
      }
      sum_across(slot + i, 6, 2);
    }
  };
  each_pixel_down(keep, [&](size_t i, bve_down& args) {
    args.n = 3 * across_.pixels();
    args.shift = static_cast<uint8_t>(down_.bits);
    args.most = 255;
    args.dst = sums(0);
    down_kernel_.run(&args);
    for (size_t x = 0; x < across_.pixels(); ++x) {
      uint8_t* const pixel = pixels + down_.place_of(i) * between + across_.place_of(x) * along;
      for (size_t c = 0; c < 3; ++c) pixel[c] = static_cast<uint8_t>(sums(0)[x * 3 + c]);
    }
  });
}

void FrameReader::read(const bve_frame& frame, uint8_t* pixels) {
  const FrameFormat& format = check_frame(frame);
  if (!is_alike(frame, planned_)) plan(frame);
  const size_t size = how_.size;
  if (across_.pixels() < size || down_.pixels() < size) {
    const std::array<uint8_t, 3> fill = find_fill(how_);
    for (size_t i = 0; i < size * size * 3; ++i) pixels[i] = fill[i % 3];
  }
  if (is_across_first_) {
    read_across_first(frame, format, pixels);
  } else {
    read_down_first(frame, format, pixels);
  }
}

void read_frame(const Metadata& metadata, const bve_frame* frame, uint8_t* pixels, size_t count) {
  const Preprocessing& how = need_preprocessing(metadata);
  if (!frame || !pixels) {
    fail("%s that is null, expected its memory; give it", frame ? "room for pixels" : "a frame");
  }
  const size_t expected = size_t{3} * how.size * how.size;
  if (count != expected) {
    fail("room for %zu bytes of pixels, expected %zu, [%u, %u, 3]; give as many", count, expected,
         how.size, how.size);
  }
  FrameReader(how, bve_detect_isa()).read(*frame, pixels);
}

}  // namespace bve
