// From a camera's frame to what a model sees: YUV to RGB, resize, crop and rotation in one pass
// over the rows, of which no more are kept than one row of the result is made of.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bve.h"
#include "frame_axis.h"
#include "frame_format.h"
#include "metadata.h"
#include "operands.h"

namespace bve {

class FrameReader {
 public:
  // isa: bve_isa bits that it may use. All of them give the same bits.
  FrameReader(const Preprocessing& how, uint32_t isa);

  uint32_t size() const { return how_.size; }
  // pixels: RGB, [size, size, 3], upright. Throws Error, before it writes any, on a frame that
  // cannot be read. Allocates where the frame's size, format or rotation is another than before.
  void read(const bve_frame& frame, uint8_t* pixels);

 private:
  void plan(const bve_frame& frame);
  void read_down_first(const bve_frame& frame, const FrameFormat& format, uint8_t* pixels);
  void read_across_first(const bve_frame& frame, const FrameFormat& format, uint8_t* pixels);
  template <typename Keep, typename Sum>
  void each_pixel_down(Keep keep, Sum sum);
  void convert(const bve_frame& frame, const FrameFormat& format, uint32_t pair, uint8_t* planes);
  void sum_across(uint8_t* dst, ptrdiff_t stride, ptrdiff_t channel);
  int16_t* sums(size_t c) const { return reinterpret_cast<int16_t*>(sums_.get()) + c * sum_count_; }

  Preprocessing how_;
  const bve_kernel_row<bve_yuv_fn>& yuv_;
  const bve_kernel_row<bve_rgb_fn>& rgb_;
  const bve_kernel_row<bve_down_fn>& down_kernel_;
  const bve_kernel_row<bve_across_fn>& across_kernel_;

  bve_frame planned_{};  // whose size, format and rotation the rest is for
  FrameAxis across_, down_;
  int fraction_bits_ = 0;  // of a level after the first pass
  bool is_across_first_ = false;
  uint32_t slots_ = 0;                       // pairs of rows that are kept
  size_t slot_bytes_ = 0, plane_bytes_ = 0;  // of a pair as it is kept, of one of its three planes
  size_t sum_count_ = 0;                     // of a plane of a row of sums
  Memory kept_, pair_, sums_;
  std::vector<uint8_t> chroma_;          // of a row, where U and V are neither alone nor in turns
  std::vector<const uint8_t*> sources_;  // of a product, pair by pair
};

// All for one frame; count: of pixels, size * size * 3.
void read_frame(const Metadata& metadata, const bve_frame* frame, uint8_t* pixels, size_t count);

}  // namespace bve
