// Makes .bve programs in memory, valid ones unless told otherwise, for tests of what reads them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "program.h"
#include "select.h"

namespace bve::test {

// Bytes on a multiple of 64.
class Bytes {
 public:
  explicit Bytes(size_t count) : blocks_((count + 63) / 64), count_(count) {}
  Bytes(const void* data, size_t count) : Bytes(count) {
    if (count > 0) std::memcpy(blocks_.data(), data, count);
  }
  std::byte* data() { return reinterpret_cast<std::byte*>(blocks_.data()); }
  size_t count() const { return count_; }
  Header& header() { return *reinterpret_cast<Header*>(data()); }

  // A record of a table, to break it: at<Op>(&Header::ops, 3).
  template <typename Record>
  Record& at(Table Header::* table, uint32_t index) {
    return reinterpret_cast<Record*>(data() + (header().*table).offset)[index];
  }
  // Makes the checksum that of the bytes, after one was changed.
  void seal() {
    Header& to = header();
    to.checksum = compute_tables_checksum(data(), to.weights_offset);
  }

 private:
  struct alignas(64) Block {
    std::byte bytes[64]{};
  };
  std::vector<Block> blocks_;
  size_t count_;
};

// Which kind of op takes those arguments.
constexpr OpKind kind_of(PatchesArgs) { return OpKind::kPatches; }
constexpr OpKind kind_of(ListArgs) { return OpKind::kList; }
constexpr OpKind kind_of(FillArgs) { return OpKind::kFill; }
constexpr OpKind kind_of(LinearArgs) { return OpKind::kLinear; }
constexpr OpKind kind_of(AttentionArgs) { return OpKind::kAttention; }
constexpr OpKind kind_of(RouteArgs) { return OpKind::kRoute; }
constexpr OpKind kind_of(MlpArgs) { return OpKind::kMlp; }

template <typename Args>
Op make_op(const Args& args) {
  Op op{};
  op.kind = kind_of(args);
  std::memcpy(op.args, &args, sizeof args);
  return op;
}

class ProgramBuilder {
 public:
  std::string metadata = "{}";
  uint32_t precision = 0;

  // Each add returns the index that ops name it by.
  uint32_t add_vector(const std::string& name, const std::vector<float>& values) {
    return add_weight(name, WeightType::kVector, 1, values.size(), values.data(),
                      values.size() * sizeof(float));
  }
  uint32_t add_matrix(const std::string& name, size_t rows, size_t columns,
                      const std::vector<float>& values) {
    return add_weight(name, WeightType::kMatrix, rows, columns, values.data(),
                      rows * columns * sizeof(float));
  }
  // weights [n, k] and bias [n], or empty; qc8p rounds each row to 127 steps of its largest value.
  uint32_t add_linear(const std::string& name, bve_packing packing, size_t n, size_t k,
                      const std::vector<float>& weights, const std::vector<float>& bias) {
    const size_t panels = (n + BVE_PANEL - 1) / BVE_PANEL;
    Bytes packed(panels * bve_rhs_stride_bytes(packing, k));
    const float* const biases = bias.empty() ? nullptr : bias.data();
    if (packing == bve_f32p || packing == bve_f16p) {
      bve_pack_weights_f32(packing, n, k, weights.data(), biases, packed.data());
    } else {
      std::vector<int8_t> quantised(n * k);
      std::vector<float> scales(n);
      for (size_t i = 0; i < n; ++i) {
        const float* const row = weights.data() + i * k;
        float largest = 0;
        for (size_t j = 0; j < k; ++j) largest = std::max(largest, std::abs(row[j]));
        scales[i] = largest > 0 ? largest / 127 : 1;
        for (size_t j = 0; j < k; ++j) {
          quantised[i * k + j] = static_cast<int8_t>(std::lround(row[j] / scales[i]));
        }
      }
      bve_pack_weights_qc8(packing, n, k, quantised.data(), scales.data(), biases, packed.data());
    }
    const auto type = static_cast<WeightType>(static_cast<uint32_t>(WeightType::kF32) + packing);
    return add_weight(name, type, n, k, packed.data(), packed.count());
  }

  // Buffers and ops added from here on are that entry's; it has buffers 0 and 1 already.
  void start_entry(const std::string& name, float keep, uint32_t image_size, uint32_t classes,
                   uint64_t macs = 0) {
    Entry entry{};
    entry.name = add_text(name);
    entry.keep = keep;
    entry.first_buffer = static_cast<uint32_t>(buffers_.size());
    entry.first_op = static_cast<uint32_t>(ops_.size());
    entry.image_size = image_size;
    entry.classes = classes;
    entry.macs = macs;
    entries_.push_back(entry);
    add_buffer(3 * image_size, image_size);
    add_buffer(1, classes);
  }
  uint32_t add_buffer(uint32_t rows, uint32_t columns, BufferType type = BufferType::kF32) {
    buffers_.push_back({type, rows, columns, 0});
    return entries_.back().buffers++;
  }
  uint32_t add_list(uint32_t count) { return add_buffer(1, count, BufferType::kI32); }
  template <typename Args>
  void add_op(const std::string& name, uint16_t stage, uint8_t lane, const Args& args) {
    Op op = make_op(args);
    op.stage = stage;
    op.lane = lane;
    op.name = add_text(name);
    ops_.push_back(op);
    ++entries_.back().ops;
  }

  Bytes build() const {
    Header header{};
    std::memcpy(header.magic, kMagic, sizeof kMagic);
    header.version = kVersion;
    header.precision = precision;
    uint64_t end = sizeof header;
    const auto place = [&end](const auto& records) {
      const Table table{end, static_cast<uint32_t>(records.size()), 0};
      end = (end + records.size() * sizeof records[0] + 7) / 8 * 8;
      return table;
    };
    header.strings = place(strings_);
    header.weights = place(weights_);
    header.entries = place(entries_);
    header.buffers = place(buffers_);
    header.ops = place(ops_);
    header.metadata = place(metadata);
    header.weights_offset = (end + kWeightsAlign - 1) / kWeightsAlign * kWeightsAlign;
    header.file_bytes = header.weights_offset + data_.size();
    Bytes bytes(header.file_bytes);
    const auto put = [&bytes](uint64_t offset, const auto& records) {
      if (records.empty()) return;
      std::memcpy(bytes.data() + offset, records.data(), records.size() * sizeof records[0]);
    };
    bytes.header() = header;
    put(header.strings.offset, strings_);
    put(header.weights.offset, weights_);
    put(header.entries.offset, entries_);
    put(header.buffers.offset, buffers_);
    put(header.ops.offset, ops_);
    put(header.metadata.offset, metadata);
    put(header.weights_offset, data_);
    bytes.seal();
    return bytes;
  }

 private:
  Text add_text(const std::string& text) {
    strings_ += text;
    return {static_cast<uint32_t>(strings_.size() - text.size()),
            static_cast<uint32_t>(text.size())};
  }
  uint32_t add_weight(const std::string& name, WeightType type, size_t rows, size_t columns,
                      const void* data, size_t bytes) {
    data_.resize((data_.size() + 63) / 64 * 64);
    const auto* const first = static_cast<const std::byte*>(data);
    weights_.push_back({add_text(name), type, static_cast<uint32_t>(rows),
                        static_cast<uint32_t>(columns), compute_checksum(first, bytes),
                        data_.size(), bytes});
    data_.insert(data_.end(), first, first + bytes);
    return static_cast<uint32_t>(weights_.size() - 1);
  }

  std::string strings_;
  std::vector<Weight> weights_;
  std::vector<Entry> entries_;
  std::vector<Buffer> buffers_;
  std::vector<Op> ops_;
  std::vector<std::byte> data_;
};

// Numbers in [-1, 1) that are the same everywhere.
class Noise {
 public:
  explicit Noise(uint32_t seed) : state_(seed) {}
  float next() {
    state_ = state_ * 1664525 + 1013904223;
    return static_cast<float>(static_cast<int32_t>(state_)) / 2147483648.0f;
  }
  std::vector<float> take(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = next();
    return values;
  }

 private:
  uint32_t state_;
};

}  // namespace bve::test
