// validate(): the header, the tables and what they say of each other. Ops are in op_validation.cc.
#include "validation.h"

#include <algorithm>

namespace bve {
namespace {

constexpr uint32_t kMaxTextBytes = 255;  // so that a hostile file's names take no time to check

// How many bytes UTF-8's sequence at the start of text has; 0 where it is not one.
size_t measure_sequence(std::string_view text) {
  const auto at = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < bytes) return 0;
  // Overlong forms, surrogates and what lies beyond U+10FFFF differ in the second byte.
  const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (at(1) < low || at(1) > high) return 0;
  for (size_t i = 2; i < bytes; ++i) {
    if (at(i) < 0x80 || at(i) > 0xbf) return 0;
  }
  return bytes;
}

// Reads a JSON object of strings; done() is how far it got.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool read_object() {
    if (!eat('{')) return false;
    if (!eat('}')) {
      do {
        if (!read_string() || !eat(':') || !read_string()) return false;
      } while (eat(','));
      if (!eat('}')) return false;
    }
    skip();
    return done_ == text_.size();
  }
  size_t done() const { return done_; }

 private:
  char peek() const { return done_ < text_.size() ? text_[done_] : '\0'; }
  void skip() {
    while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') ++done_;
  }
  bool eat(char letter) {
    skip();
    if (peek() != letter) return false;
    ++done_;
    return true;
  }
  bool read_string() {
    if (!eat('"')) return false;
    const size_t start = done_;
    for (; peek() != '"'; ++done_) {
      if (done_ == text_.size() || (peek() == '\\' && !read_escape())) return false;
    }
    return is_text(text_.substr(start, done_++ - start));
  }
  // Leaves done_ on its last letter.
  bool read_escape() {
    ++done_;
    if (peek() != 'u') return is_one_of("\"\\/bfnrt");
    for (int i = 0; i < 4; ++i) {
      ++done_;
      if (!is_one_of("0123456789abcdefABCDEF")) return false;
    }
    return true;
  }
  bool is_one_of(std::string_view letters) const { return letters.find(peek()) != letters.npos; }

  std::string_view text_;
  size_t done_ = 0;
};

void validate_table(const Subject& subject, const Table& table, const char* name, size_t bytes) {
  const uint64_t end = subject.header().weights_offset;
  const auto path = [name](const char* field) { return std::string(name) + "." + field; };
  if (table.offset % 8 != 0) subject.refuse(table.offset, path("offset"), "a multiple of 8");
  if (table.offset < sizeof(Header) || table.offset > end) {
    subject.refuse(table.offset, path("offset"),
                   std::to_string(sizeof(Header)) + " to weights_offset, " + std::to_string(end));
  }
  const uint64_t most = (end - table.offset) / bytes;
  if (table.count > most) {
    subject.refuse(table.count, path("count"),
                   "at most " + std::to_string(most) + ": they end where the weights start");
  }
  if (table.reserved != 0) subject.refuse(table.reserved, path("reserved"), "0");
}

void validate_header(const Subject& subject) {
  const Header& header = subject.header();
  const std::string prefix = subject.prefix();
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) {
    throw Error(prefix +
                "magic at offset 0 is not 'BVE1': this is no .bve program; give one that " +
                "'bigvit-edge export --format bve' has written");
  }
  if (header.version != kVersion) {
    throw Error(prefix + "version at offset 4 is " + std::to_string(header.version) +
                ", this library reads " + std::to_string(kVersion) +
                (header.version > kVersion ? ": update bigvit-edge" : ": export it again"));
  }
  if (header.file_bytes != subject.count) {
    throw Error(prefix + "has " + std::to_string(subject.count) + " bytes, expected " +
                std::to_string(header.file_bytes) + " (file_bytes at offset 8): it is " +
                (header.file_bytes > subject.count ? "truncated" : "longer than it says") +
                ", copy or export it again");
  }
  if (header.weights_offset % kWeightsAlign != 0 || header.weights_offset < sizeof(Header) ||
      header.weights_offset > subject.count) {
    subject.refuse(header.weights_offset, "weights_offset",
                   "a multiple of " + std::to_string(kWeightsAlign) + ", at most " +
                       std::to_string(subject.count) + ", the file's size");
  }
  if (header.precision > 2) subject.refuse(header.precision, "precision", "0, 1 or 2");
  const uint32_t checksum = compute_tables_checksum(subject.bytes, header.weights_offset);
  if (checksum != header.checksum) {
    subject.refuse(header.checksum, "checksum", std::to_string(checksum) + " for these bytes");
  }
  validate_table(subject, header.strings, "strings", 1);
  validate_table(subject, header.weights, "weights", sizeof(Weight));
  validate_table(subject, header.entries, "entries", sizeof(Entry));
  validate_table(subject, header.buffers, "buffers", sizeof(Buffer));
  validate_table(subject, header.ops, "ops", sizeof(Op));
  validate_table(subject, header.metadata, "metadata", 1);
  const auto metadata = subject.table<char>(header.metadata);
  Scanner scanner({metadata.first, metadata.count});
  if (!scanner.read_object()) {
    throw Error(prefix + "metadata is no JSON object of strings at offset " +
                std::to_string(header.metadata.offset + scanner.done()) +
                "; the file is damaged or was made by another program: export it again");
  }
}

uint64_t measure_weight(const Weight& weight) {
  const uint64_t rows = weight.rows, columns = weight.columns;
  if (weight.type <= WeightType::kMatrix) return rows * columns * sizeof(float);
  const auto packing = static_cast<bve_packing>(static_cast<uint32_t>(weight.type) -
                                                static_cast<uint32_t>(WeightType::kF32));
  return (rows + BVE_PANEL - 1) / BVE_PANEL * bve_rhs_stride_bytes(packing, columns);
}

void validate_dim(const Subject& subject, const uint32_t& dim, const char* table, uint32_t index,
                  const char* field) {
  if (dim < 1 || dim > kMaxDim) {
    subject.refuse(dim, path_of(table, index, field), "1 to " + std::to_string(kMaxDim));
  }
}

void validate_weight(const Subject& subject, uint32_t index) {
  const Weight& weight = subject.table<Weight>(subject.header().weights)[index];
  const auto path = [index](const char* field) { return path_of("weights", index, field); };
  subject.check_name(weight.name, "weights", index);
  if (weight.type > WeightType::kQc8x8) subject.refuse(weight.type, path("type"), "0 to 5");
  validate_dim(subject, weight.rows, "weights", index, "rows");
  validate_dim(subject, weight.columns, "weights", index, "columns");
  if (weight.type == WeightType::kVector && weight.rows != 1) {
    subject.refuse(weight.rows, path("rows"), "1 in a vector");
  }
  const uint64_t there = subject.count - subject.header().weights_offset;
  if (weight.offset % 64 != 0 || weight.offset > there) {
    subject.refuse(weight.offset, path("offset"),
                   "a multiple of 64, at most " + std::to_string(there) + ", the weights' bytes");
  }
  const uint64_t bytes = measure_weight(weight);
  if (weight.bytes != bytes) {
    subject.refuse(weight.bytes, path("bytes"), std::to_string(bytes) + " for its type and shape");
  }
  if (bytes > there - weight.offset) {
    subject.refuse(weight.bytes, path("bytes"),
                   "at most " + std::to_string(there - weight.offset) + ", up to the file's end");
  }
}

void validate_buffers(const Subject& subject, const Entry& entry) {
  const auto buffers = subject.table<Buffer>(subject.header().buffers);
  uint64_t bytes = 0;
  for (uint32_t i = entry.first_buffer; i < entry.first_buffer + entry.buffers; ++i) {
    const Buffer& buffer = buffers[i];
    if (buffer.type > BufferType::kI32) {
      subject.refuse(buffer.type, path_of("buffers", i, "type"), "0 or 1");
    }
    validate_dim(subject, buffer.rows, "buffers", i, "rows");
    validate_dim(subject, buffer.columns, "buffers", i, "columns");
    if (buffer.reserved != 0) {
      subject.refuse(buffer.reserved, path_of("buffers", i, "reserved"), "0");
    }
    bytes += uint64_t{buffer.rows} * buffer.columns * sizeof(float);
    if (bytes > kMaxArenaBytes) {
      subject.refuse(
          buffer.rows, path_of("buffers", i, "rows"),
          "fewer: its entry's buffers have more than " + std::to_string(kMaxArenaBytes) + " bytes");
    }
  }
  const auto expect = [&](uint32_t i, uint32_t rows, uint32_t columns, const char* what) {
    const Buffer& buffer = buffers[entry.first_buffer + i];
    if (buffer.type == BufferType::kF32 && buffer.rows == rows && buffer.columns == columns) return;
    subject.refuse(buffer.type, path_of("buffers", entry.first_buffer + i, "type"),
                   std::string(what) + ": type 0, " + std::to_string(rows) + " rows, " +
                       std::to_string(columns) + " columns");
  };
  expect(0, 3 * entry.image_size, entry.image_size, "the image");
  expect(1, 1, entry.classes, "the logits");
}

void validate_entry(const Subject& subject, uint32_t index) {
  const auto entries = subject.table<Entry>(subject.header().entries);
  const Entry& entry = entries[index];
  const auto path = [index](const char* field) { return path_of("entries", index, field); };
  const auto validate_range = [&](const uint32_t& first, const char* first_name,
                                  const uint32_t& count, const char* count_name, uint32_t least,
                                  uint32_t start, uint32_t end) {
    if (first != start) {
      subject.refuse(first, path(first_name),
                     std::to_string(start) + ", where those of the entry before it end");
    }
    const bool is_last = index + 1 == entries.count;
    if (count < least || count > end - start || (is_last && count != end - start)) {
      subject.refuse(count, path(count_name),
                     is_last ? std::to_string(end - start) + ", all that are left"
                             : std::to_string(least) + " to " + std::to_string(end - start));
    }
  };
  subject.check_name(entry.name, "entries", index);
  const bool has_keeps = entries.count > 1;
  const float most = index == 0 ? 1 : entries[index - 1].keep;
  if (!(entry.keep >= 0 && entry.keep <= most) || (has_keeps && entry.keep == 0) ||
      (index > 0 && entry.keep == most)) {
    subject.refuse(entry.keep, path("keep"),
                   index > 0   ? "more than 0, less than the entry's before it"
                   : has_keeps ? "more than 0, at most 1"
                               : "0 to 1");
  }
  const Entry zero{};
  const Entry& before = index == 0 ? zero : entries[index - 1];
  validate_range(entry.first_buffer, "first_buffer", entry.buffers, "buffers", 2,
                 before.first_buffer + before.buffers, subject.header().buffers.count);
  validate_range(entry.first_op, "first_op", entry.ops, "ops", 1, before.first_op + before.ops,
                 subject.header().ops.count);
  validate_dim(subject, entry.image_size, "entries", index, "image_size");
  validate_dim(subject, entry.classes, "entries", index, "classes");
  if (entry.reserved != 0) subject.refuse(entry.reserved, path("reserved"), "0");
  validate_buffers(subject, entry);
}

}  // namespace

std::string path_of(const char* table, uint32_t index, const std::string& field) {
  return std::string(table) + "[" + std::to_string(index) + "]." + field;
}

bool is_text(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = measure_sequence(text);
    const auto first = static_cast<unsigned char>(text[0]);
    if (bytes == 0 || first < 0x20 || first == 0x7f) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

void Subject::check_name(const Text& text, const char* table_name, uint32_t index) const {
  const auto strings = table<char>(header().strings);
  if (text.offset > strings.count) {
    refuse(text.offset, path_of(table_name, index, "name.offset"),
           "at most " + std::to_string(strings.count));
  }
  const uint32_t most = std::min(kMaxTextBytes, strings.count - text.offset);
  if (text.bytes > most) {
    refuse(text.bytes, path_of(table_name, index, "name.bytes"), "at most " + std::to_string(most));
  }
  if (!is_text({strings.first + text.offset, text.bytes})) {
    refuse(text.offset, path_of(table_name, index, "name.offset"),
           "that of UTF-8 without control characters");
  }
}

void validate(const std::byte* bytes, size_t count, const std::string& name) {
  const Subject subject{bytes, count, name};
  validate_header(subject);
  const Header& header = subject.header();
  for (uint32_t i = 0; i < header.weights.count; ++i) validate_weight(subject, i);
  if (header.entries.count == 0) subject.refuse(header.entries.count, "entries.count", "1 or more");
  for (uint32_t i = 0; i < header.entries.count; ++i) validate_entry(subject, i);
  for (uint32_t i = 0; i < header.entries.count; ++i) validate_ops(subject, i);
}

}  // namespace bve
