// A .bve file in memory, validated: what core.h says of one holds for what a Program returns, and
// who executes it checks nothing again. The weights' own bytes are not read until they are used, so
// that opening costs no more than the tables: damaged ones (infinities, int8 of -128, sums that are
// not their panel's) give wrong numbers and never anything else. verify() reads and checks them.
//
// What an executor may rely on, for each op of an entry, beyond the shapes that core.h gives:
// - Indices are in range, and of the type and shape asked for; optional ones may be kNone.
// - All counts are 1 or more, unless said otherwise, and all sizes fit: those of an entry's buffers
//   together into kMaxArenaBytes, those of the weights into the file.
// - What an op reads, ops before it have written: a row list wholly, others in part at least.
//   Ops in the other lane of its stage neither write what it reads or writes, nor read what it
//   writes.
// - Row lists: numbers in one are distinct, and below the rows of the buffer it is used on.
// - What an op writes is none of what it reads, but where it accumulates and but for kMlp's data.
//   Nothing writes buffer 0, the image; something writes buffer 1, the logits.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "core.h"
#include "error.h"

namespace bve {

inline constexpr uint64_t kMaxArenaBytes = uint64_t{1} << 30;

// Records that lie side by side in the file.
template <typename Record>
struct Records {
  const Record* first;
  uint32_t count;

  const Record* begin() const { return first; }
  const Record* end() const { return first + count; }
  const Record& operator[](uint32_t index) const { return first[index]; }
};

// An op's arguments by name, in the order of core.h.
struct PatchesArgs {
  uint32_t image, dst, patch;
};
struct ListArgs {
  uint32_t dst, value;  // value may be 0
};
struct FillArgs {
  uint32_t matrix, dst;
};
struct LinearArgs {
  uint32_t src, src_rows, rows, before, gain, offset, linear, first_column, columns;
  uint32_t dst, dst_first_row, dst_first_column, dst_rows, gate, accumulate;
};  // first_column, dst_first_row (0 with dst_rows) and dst_first_column may be 0
struct AttentionArgs {
  uint32_t qkv, queries, heads, dst, type;
};
struct RouteArgs {
  uint32_t src, gain, offset, weight, bias, k, selected, skipped, gate;
};
struct MlpArgs {
  uint32_t data, list, rows, gain, offset, fc1, fc2, gate;
};

// get<LinearArgs>(op), where op.kind is kLinear.
template <typename Args>
Args get(const Op& op) {
  Args args;
  static_assert(sizeof args <= sizeof op.args);
  std::memcpy(&args, op.args, sizeof args);
  return args;
}

class Program {
 public:
  // Maps a file, which must not be changed in place while it is open. Throws Error, as the next.
  static std::unique_ptr<Program> open(const char* path);
  // Bytes that stay valid and unchanged as long as the Program lives; copied unless 64-byte
  // aligned.
  static std::unique_ptr<Program> open(const void* bytes, size_t count);

  const Header& header() const { return *reinterpret_cast<const Header*>(bytes_.get()); }
  Records<Entry> entries() const { return table<Entry>(header().entries); }
  Records<Weight> weights() const { return table<Weight>(header().weights); }
  Records<Buffer> buffers(const Entry& entry) const {
    return {table<Buffer>(header().buffers).first + entry.first_buffer, entry.buffers};
  }
  Records<Op> ops(const Entry& entry) const {
    return {table<Op>(header().ops).first + entry.first_op, entry.ops};
  }
  std::string_view text(Text text) const {
    return {table<char>(header().strings).first + text.offset, text.bytes};
  }
  std::string_view metadata() const {
    return {table<char>(header().metadata).first, header().metadata.count};
  }

  // 64-byte aligned, weights()[weight].bytes of them.
  const std::byte* weight_data(uint32_t weight) const {
    return bytes_.get() + header().weights_offset + weights()[weight].offset;
  }

  // Reads all weights; throws Error on the first that its checksum does not fit.
  void verify() const;

  // The entry of that keep ratio, or the first for 0. Throws Error, which lists those there are.
  const Entry& find(float keep) const;

  // {"name", "precision", "packing": [...], "file_bytes", "weights_bytes", "entries": [{"name",
  // "keep", "image_size", "classes", "macs", "ops", "buffers"}, ...], "metadata": {...}}. name is
  // the file's, "" for bytes; packing as of bve_packing, those in use.
  std::string describe() const;

 private:
  Program(std::shared_ptr<const std::byte> bytes, size_t count, std::string name);

  template <typename Record>
  Records<Record> table(const Table& table) const {
    return {reinterpret_cast<const Record*>(bytes_.get() + table.offset), table.count};
  }

  std::shared_ptr<const std::byte> bytes_;  // mapped, copied or the caller's: its deleter knows
  std::string name_;
};

// Whether that is UTF-8 without control characters, so that it can be printed and quoted.
bool is_text(std::string_view text);

// The heart of open: throws Error unless these bytes, 8-byte aligned, are a valid .bve file. name
// stands before what the error says.
void validate(const std::byte* bytes, size_t count, const std::string& name);

// CRC-32 as of zlib; of what follows bytes whose checksum is `before`.
uint32_t compute_checksum(const std::byte* bytes, size_t count, uint32_t before = 0);

// The checksum that a header and what stands between it and the weights should have.
uint32_t compute_tables_checksum(const std::byte* bytes, size_t weights_offset);

}  // namespace bve
