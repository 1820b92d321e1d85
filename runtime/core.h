// The lowered program and its file, .bve. All numbers are little-endian; offsets count from the
// start of the file unless said otherwise; every table and array starts on a multiple of 8.
//
//  1. header (struct Header, 144 bytes): magic "BVE1", version, size of the file, the checksum
//     (CRC-32, as of zlib) of all bytes before the weights, the header's own with the checksum as
//     0, and where each table lies and how many records it has. A reader takes every version up to
//     its own: 10 says what was different.
//  2. strings: UTF-8 bytes; a Text names a piece of them.
//  3. weights table (struct Weight): what each tensor is, and where in 9.
//  4. entries (struct Entry): one for each keep ratio, the same weights in all; largest first.
//  5. buffers (struct Buffer): each entry's own, numbered from 0 in it. Where they lie in memory is
//     the reader's business: it plans an arena from what is alive when.
//  6. ops (struct Op): each entry's own, in order. `stage` never falls. Inside a stage the ops of
//     lane 0 (big) and those of lane 1 (LITTLE) are independent of each other; inside a lane each
//     op sees those before it.
//  7. metadata: a JSON object of strings, for people and for whoever opens the file.
//  8. ports (struct Port): what a run of an entry takes, and then what it gives, each a buffer of
//  its
//     own, named and shaped. Then zeros up to a multiple of 4096.
//  9. weights, to the end of the file: each on a multiple of 64, counted from their own start.
//     They are packed as kernels_arm/kernels.h says under 1, so a mapped file is used as it is. On
//     a CPU whose kernels want the other packing of int8 (kr 4 or 8) a reader repacks them, and
//     says so.
// 10. version 1: the header has 128 bytes and no table of ports; an entry has image_size and
// classes
//     in their place, which are the ports "image" [1, 3, image_size, image_size], of buffer 0
//     [3 * image_size, image_size], and "logits" [1, classes], of buffer 1. Ops, arguments and
//     weight types that ops.inc and WeightType say came later are not in it.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace bve {

inline constexpr char kMagic[4] = {'B', 'V', 'E', '1'};
inline constexpr uint32_t kVersion = 2;          // the newest; a writer writes this one
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
  Table strings, weights, entries, buffers, ops, metadata, ports;  // 16 bytes each
};
static_assert(sizeof(Header) == 144);

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
  kRows = 6,  // a row list, since version 2: int32 [columns], from 0 on; rows is 1
};

inline bool is_packed(WeightType type) {
  return type >= WeightType::kF32 && type <= WeightType::kQc8x8;
}

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
  uint32_t first_port, ports;
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

inline constexpr uint8_t kInput = 0, kOutput = 1;  // of a port

// A buffer of floats that is the caller's, as he sees it. Nothing writes one that is taken;
// something writes each that is given.
struct Port {
  Text name;  // 'image'; no other of the entry's is called so
  uint32_t buffer;
  uint8_t direction;  // kInput: taken, kOutput: given
  uint8_t rank;       // 1 to 6
  uint16_t reserved;
  uint32_t sides[6];  // together as many elements as the buffer has; 0 behind the last
};
static_assert(sizeof(Port) == 40);

// What an op does: ops.inc has the list, and what each argument of one means.
enum class OpKind : uint32_t {
#define BVE_OP(number, name, ...) k##name = number,
#include "ops.inc"
};

struct Op {
  OpKind kind;
  uint16_t stage;
  uint8_t lane;  // 0 big, 1 LITTLE
  uint8_t reserved;
  Text name;          // 'layers.0.p.mlp'
  uint32_t args[16];  // kNone where there is no such buffer or weight; 0 behind the kind's last
};
static_assert(sizeof(Op) == 80);

// An op's arguments by name: LinearArgs of kLinear, and so on.
#define A(role, name) uint32_t name;
#define O(role, name) uint32_t name;
#define E(name, since, older) float name = older;
#define BVE_OP(number, name, since, arguments) \
  struct name##Args {                          \
    arguments                                  \
  };
#include "ops.inc"

}  // namespace bve
