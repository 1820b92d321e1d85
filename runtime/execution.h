// Ops, carried out: the arithmetic of a program between its kernels.
#pragma once

#include <cstddef>
#include <vector>

#include "operands.h"

namespace bve {

struct Range {
  size_t begin, end;
  size_t size() const { return end - begin; }
};

// What all ops of a run share.
struct Frame {
  const Program& program;
  const Weights& weights;
  Records<Buffer> shapes;
  size_t tile_rows;                 // of a tile, whoever computes it: choose_tile_rows
  std::vector<std::byte*> buffers;  // by number

  float* floats(uint32_t buffer) const { return reinterpret_cast<float*>(buffers[buffer]); }
  int32_t* list(uint32_t buffer) const {
    return buffer == kNone ? nullptr : reinterpret_cast<int32_t*>(buffers[buffer]);
  }
  size_t columns(uint32_t buffer) const { return shapes[buffer].columns; }
};

// What of an op is done at once: attention packs each head's keys and values before it attends,
// so that threads can share a head; one thread alone does a head after the other.
enum class Phase : uint8_t { kWhole, kPack, kAttend };

// How a phase is cut in tiles. Any thread may compute any of them, in any order, and all answer the
// same bits.
struct Cut {
  size_t tiles;
  size_t rows;    // of a tile: tile i reads and writes the op's rows from i * rows on; 0: otherwise
  uint64_t work;  // of a tile, in multiply-accumulates or what takes as long
};

// A multiple of the rows that each of these kernels' products take at once.
size_t choose_tile_rows(const Kernels* kernels, size_t count);

Cut cut(const Frame& frame, const Op& op, Phase phase);

// Some tiles of a phase. scratch: measure_scratch's bytes, the thread's own; packed:
// measure_packed's, from kPack to kAttend.
void execute(const Frame& frame, const Op& op, Phase phase, Range tiles, const Kernels& kernels,
             std::byte* scratch, std::byte* packed);

// Bytes that a thread needs for an op, and that all need together, in any phase.
size_t measure_scratch(const Frame& frame, const Op& op, const Kernels& kernels);
size_t measure_packed(const Frame& frame, const Op& op, const Kernels& kernels);

const char* name_kind(OpKind kind);

}  // namespace bve
