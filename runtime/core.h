// The lowered program and its file, .bve. All numbers are little-endian; offsets count from the
// start of the file unless said otherwise; every table and array starts on a multiple of 8.
//
//  1. header (struct Header, 128 bytes): magic "BVE1", version, size of the file, the checksum
//     (CRC-32, as of zlib) of all bytes before the weights, the header's own with the checksum as
//     0, and where each table lies and how many records it has. A reader refuses any version but
//     its own.
//  2. strings: UTF-8 bytes; a Text names a piece of them.
//  3. weights table (struct Weight): what each tensor is, and where in 9.
//  4. entries (struct Entry): one for each keep ratio, the same weights in all; largest first.
//  5. buffers (struct Buffer): each entry's own, numbered from 0 in it. Where they lie in memory is
//     the reader's business: it plans an arena from what is alive when. Buffer 0 is the image
//     [3 * size, size], buffer 1 the logits [1, classes].
//  6. ops (struct Op): each entry's own, in order. `stage` never falls. Inside a stage the ops of
//     lane 0 (big) and those of lane 1 (LITTLE) are independent of each other; inside a lane each
//     op sees those before it.
//  7. metadata: a JSON object of strings, for people and for the door's user.
//  8. zeros up to a multiple of 4096.
//  9. weights, to the end of the file: each on a multiple of 64, counted from their own start.
//     They are packed as kernels_arm/kernels.h says under 1, so a mapped file is used as it is. On
//     a CPU whose kernels want the other packing of int8 (kr 4 or 8) a reader repacks them, and
//     says so.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace bve {

inline constexpr char kMagic[4] = {'B', 'V', 'E', '1'};
inline constexpr uint32_t kVersion = 1;
inline constexpr uint32_t kNone = 0xffffffff;    // no buffer, no weight
inline constexpr uint32_t kWeightsAlign = 4096;  // a page
inline constexpr uint32_t kMaxDim = 1 << 16;     // of any rows, columns or count in a record

struct Table {
  uint64_t offset;
  uint32_t count;  // records; bytes for strings and metadata
  uint32_t reserved;
};

struct Header {
  char magic[4];
  uint32_t version;
  uint64_t file_bytes;
  uint64_t weights_offset;
  uint32_t checksum;
  uint32_t precision;  // 0 fp32, 1 fp16, 2 int8: what most of the arithmetic is in; for people
  Table strings, weights, entries, buffers, ops, metadata;  // 16 bytes each
};
static_assert(sizeof(Header) == 128);

struct Text {
  uint32_t offset, bytes;  // in strings
};

enum class WeightType : uint32_t {
  kVector = 0,  // float [columns]; rows is 1
  kMatrix = 1,  // float [rows, columns], plain
  kF32 = 2,     // packed Linear, rows = outputs n, columns = inputs k: f32p, f16p, qc8p4, qc8p8
  kF16 = 3,
  kQc8x4 = 4,
  kQc8x8 = 5,
};

struct Weight {
  Text name;  // 'layers.0.p.mlp.fc1'
  WeightType type;
  uint32_t rows, columns;
  uint32_t checksum;       // CRC-32 of its bytes; who opens a file need not read them all to check
  uint64_t offset, bytes;  // from weights_offset
};
static_assert(sizeof(Weight) == 40);

struct Entry {
  Text name;   // 'keep_0_5'; 'main' for a model without keep ratios
  float keep;  // 0: the model has none
  uint32_t first_buffer, buffers, first_op, ops;
  uint32_t image_size, classes;
  uint32_t reserved;
  uint64_t macs;  // multiply-accumulates that the ops carry out
};
static_assert(sizeof(Entry) == 48);

enum class BufferType : uint32_t { kF32 = 0, kI32 = 1 };

struct Buffer {
  BufferType type;
  uint32_t rows, columns;
  uint32_t reserved;
};
static_assert(sizeof(Buffer) == 16);

// What an op does, and its arguments. b = buffer, w = weight, n = number; kNone where optional (?).
// A row list is a buffer i32 [1, count]: the rows of src to read or of dst to write, each below
// that buffer's number of rows, which the reader's kernels rely on and ROUTE and LIST keep.
enum class OpKind : uint32_t {
  // b image, b dst [patches, 3 * patch^2], n patch: the image cut in patches, rows in raster order,
  // columns by channel, then row, then column.
  kPatches = 0,
  // b dst i32 [1, 1], n value: a row list of one.
  kList = 1,
  // w matrix, b dst: dst = matrix, of the same shape.
  kFill = 2,
  // b src, b? src_rows, n rows, n before (bve_before), w? gain, w? offset, w linear,
  // n first_column, n columns, b dst, n dst_first_row, n dst_first_column, b? dst_rows, b? gate,
  // n accumulate: columns [first_column, + columns) of linear (first_column a multiple of 16)
  // applied to `rows` rows of src: the listed ones, or the first. They go to rows of dst from
  // dst_first_row on, or to the listed ones. gate: f32 [1, rows].
  kLinear = 3,
  // b qkv [tokens, 3 * dim] (q, k, v side by side), n queries, n heads,
  // b dst [queries or more, dim], n type: the first `queries` rows' queries over all rows' keys and
  // values, computed in that bve_type. Queries are already scaled.
  kAttention = 4,
  // b src [tokens, c], w gain, w offset, w weight (vector c), w bias (vector 1), n k, b selected
  // i32 [1, k], b? skipped i32 [1, tokens - k] (none when k = tokens), b gate f32 [1, k]: see
  // bve_route.
  kRoute = 5,
  // b data, b? rows list, n rows, w gain, w offset, w fc1, w fc2, b? gate: row += gate *
  // fc2(gelu(fc1(layernorm(row)))), for the listed rows or the first `rows`, block by block.
  kMlp = 6,
};

struct Op {
  OpKind kind;
  uint16_t stage;
  uint8_t lane;  // 0 big, 1 LITTLE
  uint8_t reserved;
  Text name;  // 'layers.0.p.mlp'
  uint32_t args[16];
};
static_assert(sizeof(Op) == 80);

inline constexpr float kLayerNormEpsilon = 1e-6f;

}  // namespace bve
