// The contract of every micro-kernel, and the layouts of the operands they share.
//
// A kernel is stateless: no malloc, no thread, no global. It computes any part of its output: who
// wants a part passes pointers to it and its size. Sizes are in elements, strides in bytes.
//
// The matrix product is  dst[i, j] (+)= gate[i] * (sum_k lhs[i, k] * rhs[k, j] + bias[j]),
// with lhs [m, k] the activations and rhs [k, n] the weights, or the keys and values of attention.
//
// 1. The right side is packed in panels of 16 columns, whatever the tile of the kernel; columns
//    beyond n and rows beyond k are zero. K = k rounded up to a multiple of kr. A panel is
//      f32p   float bias[16], float data[K][16]                                       kr = 1
//      f16p   float bias[16], half data[K][16]                                        kr = 1
//      qc8p   bve_qc8_head, int8 data[K/kr][16][kr]                                   kr = 4 or 8
//    int8 is in -127..127: kernels may add two products in 16 bits. Panels follow one another and
//    start on multiples of 64 bytes.
// 2. The left side is packed in panels of bve_lhs's mr rows: data[K/kr][mr][kr], so that mr = 1 is
//    plain rows. Rows beyond m in the last panel may hold anything; columns beyond k must be zero
//    bytes. A kernel reads the ceil(m / mr) panels and no more, whatever rows its tile has.
//    qd8: each row has a scale and a zero point of its own, chosen at run time (bve_row); stored as
//    int8, or as uint8 (value and zero point 128 higher) where the instruction set wants that.
// 3. sum_k in qd8 x qc8 is row.scale * scale[j] * (sum_k q[i, k] * data[k, j] - row.zero * sum[j]).
#pragma once

#include <stddef.h>
#include <stdint.h>

// Instruction sets, as bits: what a CPU has, and what a kernel needs.
enum bve_isa : uint32_t {
  bve_scalar = 0,
  bve_neon = 1 << 0,
  bve_neonfp16 = 1 << 1,
  bve_neondot = 1 << 2,
  bve_neoni8mm = 1 << 3,
  bve_avx2 = 1 << 4,        // with FMA and F16C
  bve_avx512vnni = 1 << 5,  // with AVX-512 F, BW, DQ and VL
};

// The core a kernel is scheduled for. Variants share both packings, so threads on cores of either
// kind work on one operand.
enum bve_core : uint8_t { bve_any_core, bve_a55, bve_a510 };

enum bve_type : uint8_t { bve_f32, bve_f16, bve_qd8 };                    // of the packed left side
enum bve_packing : uint8_t { bve_f32p, bve_f16p, bve_qc8p4, bve_qc8p8 };  // of the right: 4, 8 = kr

enum { BVE_PANEL = 16 };  // columns in a panel of the right side

// What a panel of qc8p starts with.
struct bve_qc8_head {
  float scale[BVE_PANEL], bias[BVE_PANEL];
  int32_t sum[BVE_PANEL];  // of the column's data over k
};

// x = scale * (q - zero)
struct bve_row {
  float scale;
  int32_t zero;
};

// How a kernel wants its left side.
struct bve_lhs {
  bve_type type;
  uint8_t mr;
  uint8_t kr;
  bool is_unsigned;  // of qd8
};

// Bytes from one panel of mr rows to the next. A multiple of 16.
static inline size_t bve_lhs_stride_bytes(bve_lhs lhs, size_t k) {
  const size_t width = lhs.type == bve_f32 ? 4 : lhs.type == bve_f16 ? 2 : 1;
  const size_t padded = (k + lhs.kr - 1) / lhs.kr * lhs.kr;
  return (padded * lhs.mr * width + 15) / 16 * 16;
}

static inline size_t bve_rhs_kr(bve_packing packing) {
  return packing == bve_qc8p4 ? 4 : packing == bve_qc8p8 ? 8 : 1;
}

// Bytes of one panel of 16 columns. A multiple of 64 for any k but f16p's odd ones, which round up.
static inline size_t bve_rhs_stride_bytes(bve_packing packing, size_t k) {
  const size_t kr = bve_rhs_kr(packing), padded = (k + kr - 1) / kr * kr;
  const size_t width = packing == bve_f32p ? 4 : packing == bve_f16p ? 2 : 1;
  const size_t head = width == 1 ? sizeof(struct bve_qc8_head) : BVE_PANEL * sizeof(float);
  return (head + padded * BVE_PANEL * width + 63) / 64 * 64;
}

// ---- the matrix product -----------------------------------------------------------------------

struct bve_gemm {
  size_t m, n, k;   // k is 1 at least
  const void* lhs;  // panels of the mr rows that the kernel's bve_lhs says; 16-byte aligned
  size_t lhs_stride_bytes;
  const bve_row* rows;  // [m]; qd8 only
  const void* rhs;      // panels of 16 columns; 64-byte aligned
  size_t rhs_stride_bytes;
  float* dst;
  size_t dst_stride_bytes;
  const int32_t* dst_rows;  // [m]: the row of dst that row i goes to; null: i
  const float* gate;        // [m], or null: 1
  bool accumulate;          // += instead of =
};
typedef void bve_gemm_fn(const bve_gemm* args);

// ---- rows: what happens before a product, on the way into its left side -------------------------

enum bve_before : uint8_t { bve_as_is, bve_layernorm, bve_gelu };

// Takes m rows through an index list, normalises or activates them, and packs them.
// layernorm: (x - mean) / sqrt(variance + epsilon) * gain + offset.
// gelu: x * Phi(x), as with erf, to 2e-6; to 1e-4 on the way to qd8, whose steps are far coarser.
// qd8: scale = (max - min) / 255 over the row's values and zero; an all-zero row has scale 1 / 255.
// A row with NaN or an infinity in it has scale NaN, so that all that comes of it is NaN.
struct bve_pack {
  size_t m, k;
  const float* src;
  size_t src_stride_bytes;
  const int32_t* src_rows;  // [m]: the row of src that row i is; null: i
  bve_before before;
  const float *gain, *offset;  // [k], of layernorm
  float epsilon;
  float* scratch;  // [k rounded up to 16], 64-byte aligned
  void* dst;       // panels; row 0 is the first row of the first
  bve_lhs lhs;
  bve_row* rows;  // [m]; qd8 only
};
typedef void bve_pack_fn(const bve_pack* args);

// Softmax over each of m rows of n scores, packed as the left side [m, n] of the product with the
// values. qd8: q = round(255 * exp(score - largest)), and 1 / (255 * sum) is the row's scale.
// A row with NaN or +Inf among its scores is all NaN, in qd8 by its scale.
struct bve_softmax {
  size_t m, n;
  float* scores;               // overwritten
  size_t scores_stride_bytes;  // a multiple of 64, with room for n rounded up to 16 in each row
  void* dst;
  bve_lhs lhs;
  bve_row* rows;
};
typedef void bve_softmax_fn(const bve_softmax* args);

// Packs n rows of d floats as a right side: as keys (n columns of d) or as values (d columns of n),
// quantised per column in qc8p, where the scale of a column with NaN or an infinity in it is NaN.
// Biases are zero.
struct bve_pack_rhs {
  size_t n, d;
  const float* src;
  size_t src_stride_bytes;
  void* dst;  // 64-byte aligned panels
  bve_packing packing;
};
typedef void bve_pack_rhs_fn(const bve_pack_rhs* args);

// ---- the router ---------------------------------------------------------------------------------

// score = softmax over n tokens of dot(layernorm(z[i]), weight) + bias; the k best tokens, token 0
// always first among them and the others in rising order, to `selected`; all others, in rising
// order, to `skipped`. Of equal scores the earlier token wins. gate[i] = 2 s / (1 + s) with
// s = n * score of selected[i].
struct bve_route {
  size_t n, c, k;
  const float* src;
  size_t src_stride_bytes;
  const float *gain, *offset, *weight;  // [c]
  float bias, epsilon;
  float* scratch;     // [n rounded up to 16], 64-byte aligned: the scores afterwards
  int32_t* selected;  // [k]
  int32_t* skipped;   // [n - k]
  float* gate;        // [k]
};
typedef void bve_route_fn(const bve_route* args);

// ---- frames: 8-bit pixels, resized
// ---------------------------------------------------------------

// Rows of a frame lie in pairs: [BVE_COLUMNS * blocks][2], the levels of one column in the first
// row and in the second, so that a product sums both. What is between n and the next multiple of
// BVE_COLUMNS may hold anything; sources are not read beyond n pixels.
enum { BVE_COLUMNS = 32 };

// What two signed bytes can hold, the lower one rounding the upper: 127 * 256 + 127.
enum { BVE_MOST_WEIGHT = 32639 };

// Two rows of YUV that share their chroma to red, green and blue. With >> 15 rounded to nearest:
//   y = (luma << 7) * gain >> 15, u = (u - 128) * 256, v likewise
//   red = y + (v * red_v >> 15) + offset >> 6, blue = y + (u * blue_u >> 15) + offset >> 6
//   green = y + (u * green_u >> 15) + (v * green_v >> 15) + offset >> 6
// each in saturated 16 bits, >> 6 rounded down, and then kept to 0..255.
struct bve_yuv {
  size_t n;             // columns
  const uint8_t* y[2];  // [n] each
  // [n / 2 rounded up], uv_step bytes from one to the next: 1, or 2 where u and v take turns, one
  // of them a byte behind the other.
  const uint8_t *u, *v;
  size_t uv_step;
  int16_t gain, red_v, green_u, green_v, blue_u, offset;
  uint8_t* dst[3];  // pairs of red, green, blue
};
typedef void bve_yuv_fn(const bve_yuv* args);

// Two rows of pixels, sorted into planes.
struct bve_rgb {
  size_t n;
  const uint8_t* rows[2];  // [n][bytes] each
  uint8_t bytes;           // of a pixel: 3 or 4
  uint8_t red;             // where: 0 or 2; green is at 1, blue at 2 - red
  uint8_t* dst[3];
};
typedef void bve_rgb_fn(const bve_rgb* args);

// dst[x] = sum over pairs of weights[p][0] * src[p][x][0] + weights[p][1] * src[p][x][1], rounded
// to nearest >> shift and kept to 0..most. The sums fit into 32 bits.
struct bve_down {
  size_t n;                   // columns
  size_t pairs;               // 1 or more
  const uint8_t* const* src;  // [pairs]: pairs of rows; 64-byte aligned, as dst
  const int16_t* weights;     // [pairs][2], at most BVE_MOST_WEIGHT
  uint8_t shift;              // 1 or more
  int16_t most;
  int16_t* dst;  // [n rounded up to BVE_COLUMNS]
};
typedef void bve_down_fn(const bve_down* args);

// dst[i, c] = sum over depth of weights[i][j] * src[c][starts[i] + j], rounded to nearest >> shift
// and kept to 0..255. The sums fit into 32 bits.
struct bve_across {
  size_t n;                // pixels
  size_t depth;            // a multiple of 8
  const uint32_t* starts;  // [n]
  const int16_t* weights;  // [n][depth]
  const int16_t* src[3];   // planes of red, green, blue, as far as starts and depth reach
  uint8_t shift;           // 1 or more
  uint8_t* dst;            // red of pixel 0
  ptrdiff_t dst_stride_bytes, dst_channel_bytes;  // to the next pixel's, to green
};
typedef void bve_across_fn(const bve_across* args);

// ---- every kernel of the list -------------------------------------------------------------------

#define BVE_GEMM(name, ...) bve_gemm_fn name;
#define BVE_PACK(name, ...) bve_pack_fn name;
#define BVE_SOFTMAX(name, ...) bve_softmax_fn name;
#define BVE_KEYS(name, ...) bve_pack_rhs_fn name;
#define BVE_VALUES(name, ...) bve_pack_rhs_fn name;
#define BVE_ROUTE(name, ...) bve_route_fn name;
#define BVE_YUV(name, ...) bve_yuv_fn name;
#define BVE_RGB(name, ...) bve_rgb_fn name;
#define BVE_DOWN(name, ...) bve_down_fn name;
#define BVE_ACROSS(name, ...) bve_across_fn name;
#include "kernels.inc"
