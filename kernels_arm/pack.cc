// Weights to panels, once when a program is written or opened; nothing here is in a hurry.
#include <string.h>

#include "half.h"
#include "select.h"

namespace {

size_t panels_of(size_t n) { return (n + BVE_PANEL - 1) / BVE_PANEL; }

// Where bytes 4 * piece ... of a column are, in qc8p's data.
size_t piece_offset(size_t kr, size_t piece, size_t column) {
  const size_t pieces = kr / 4;
  return (piece / pieces * BVE_PANEL + column) * kr + piece % pieces * 4;
}

}  // namespace

void bve_pack_weights_f32(bve_packing packing, size_t n, size_t k, const float* weights,
                          const float* bias, void* dst) {
  const size_t stride = bve_rhs_stride_bytes(packing, k);
  memset(dst, 0, panels_of(n) * stride);
  for (size_t j = 0; j < n; j++) {
    const size_t column = j % BVE_PANEL;
    float* head = reinterpret_cast<float*>(static_cast<char*>(dst) + j / BVE_PANEL * stride);
    uint16_t* halves = reinterpret_cast<uint16_t*>(head + BVE_PANEL);
    if (bias) head[column] = bias[j];
    for (size_t r = 0; r < k; r++) {
      const float w = weights[j * k + r];
      if (packing == bve_f32p) {
        head[(r + 1) * BVE_PANEL + column] = w;
      } else {
        halves[r * BVE_PANEL + column] = bve_to_half(w);
      }
    }
  }
}

void bve_pack_weights_qc8(bve_packing packing, size_t n, size_t k, const int8_t* weights,
                          const float* scale, const float* bias, void* dst) {
  const size_t stride = bve_rhs_stride_bytes(packing, k), kr = bve_rhs_kr(packing);
  memset(dst, 0, panels_of(n) * stride);
  for (size_t j = 0; j < n; j++) {
    const size_t column = j % BVE_PANEL;
    auto* head = reinterpret_cast<bve_qc8_head*>(static_cast<char*>(dst) + j / BVE_PANEL * stride);
    int8_t* data = reinterpret_cast<int8_t*>(head + 1);
    head->scale[column] = scale[j];
    if (bias) head->bias[column] = bias[j];
    for (size_t r = 0; r < k; r++) {
      const int8_t w = weights[j * k + r];
      data[(r / kr * BVE_PANEL + column) * kr + r % kr] = w;
      head->sum[column] += w;
    }
  }
}

void bve_repack_qc8(bve_packing from, bve_packing to, size_t n, size_t k, const void* src,
                    void* dst) {
  const size_t src_stride = bve_rhs_stride_bytes(from, k), src_kr = bve_rhs_kr(from);
  const size_t dst_stride = bve_rhs_stride_bytes(to, k), dst_kr = bve_rhs_kr(to);
  for (size_t p = 0; p < panels_of(n); p++) {
    const char* old_panel = static_cast<const char*>(src) + p * src_stride;
    char* panel = static_cast<char*>(dst) + p * dst_stride;
    memset(panel, 0, dst_stride);
    memcpy(panel, old_panel, sizeof(bve_qc8_head));
    for (size_t piece = 0; piece < (k + 3) / 4; piece++) {
      for (size_t column = 0; column < BVE_PANEL; column++)
        memcpy(panel + sizeof(bve_qc8_head) + piece_offset(dst_kr, piece, column),
               old_panel + sizeof(bve_qc8_head) + piece_offset(src_kr, piece, column), 4);
    }
  }
}
