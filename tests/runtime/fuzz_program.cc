// libFuzzer on what opens a .bve: any bytes are refused with a text, or all that a session would
// rely on holds, and small entries run. Each input runs as it is, and again with a header that gets
// it past the checks of magic, version, size and checksum.
#include <cstdio>
#include <cstdlib>
#include <initializer_list>

#include "arena.h"
#include "metadata.h"
#include "program_builder.h"
#include "serial_run.h"

using namespace bve;
using namespace bve::test;

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

void require(bool holds, const char* otherwise) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", otherwise);
  std::abort();
}

volatile unsigned sink;

void touch(const void* data, uint64_t bytes) {
  if (bytes == 0) return;
  sink = static_cast<const unsigned char*>(data)[0];
  sink = static_cast<const unsigned char*>(data)[bytes - 1];
}

// Runs an entry on buffers of which only the rows' count and, of row lists, the numbers exist.
class Walk {
 public:
  Walk(const Program& program, const Entry& entry)
      : program_(program), buffers_(program.buffers(entry)), lists_(entry.buffers) {}

  void run(const Op& op) {
    switch (op.kind) {
      case OpKind::kPatches: {
        const auto args = get<PatchesArgs>(op);
        const uint64_t side = at(args.image).columns / args.patch;
        write(args.dst, side * side - 1, uint64_t{3} * args.patch * args.patch);
        return;
      }
      case OpKind::kList: {
        const auto args = get<ListArgs>(op);
        list(args.dst) = {args.value};
        return;
      }
      case OpKind::kFill: {
        const auto args = get<FillArgs>(op);
        const Weight& matrix = program_.weights()[args.matrix];
        require(matrix.bytes >= uint64_t{at(args.dst).rows} * at(args.dst).columns * 4,
                "a matrix is too small");
        return;
      }
      case OpKind::kLinear: {
        const auto args = get<LinearArgs>(op);
        const uint32_t k = at(args.src).columns;
        need_panels(args.linear, args.first_column + uint64_t{args.columns}, k);
        if (args.before == bve_layernorm) need_vectors({args.gain, args.offset}, k);
        need_gate(args.gate, args.rows);
        for (uint32_t i = 0; i < args.rows; ++i) {
          write(args.src, row(args.src_rows, i), k);
          write(args.dst, args.dst_first_row + row(args.dst_rows, i),
                args.dst_first_column + uint64_t{args.columns});
        }
        return;
      }
      case OpKind::kAttention: {
        const auto args = get<AttentionArgs>(op);
        const uint32_t dim = at(args.dst).columns;
        require(dim % args.heads == 0 && at(args.qkv).columns == 3 * dim, "heads do not divide");
        write(args.qkv, args.queries - 1, 3 * dim);
        write(args.dst, args.queries - 1, dim);
        return;
      }
      case OpKind::kRoute: {
        const auto args = get<RouteArgs>(op);
        const uint32_t tokens = at(args.src).rows, c = at(args.src).columns;
        need_vectors({args.gain, args.offset, args.weight}, c);
        need_vectors({args.bias}, 1);
        need_gate(args.gate, args.k);
        fill(args.selected, args.k, tokens);
        if (args.k < tokens) fill(args.skipped, tokens - args.k, tokens);
        return;
      }
      case OpKind::kMlp: {
        const auto args = get<MlpArgs>(op);
        const uint32_t width = at(args.data).columns;
        const uint32_t hidden = program_.weights()[args.fc1].rows;
        need_vectors({args.gain, args.offset}, width);
        need_panels(args.fc1, hidden, width);
        need_panels(args.fc2, width, hidden);
        need_gate(args.gate, args.rows);
        for (uint32_t i = 0; i < args.rows; ++i) write(args.data, row(args.list, i), width);
        return;
      }
    }
    require(false, "its op's kind is none");
  }

 private:
  const Buffer& at(uint32_t buffer) const {
    require(buffer < buffers_.count, "a buffer is out of range");
    return buffers_[buffer];
  }
  std::vector<uint32_t>& list(uint32_t buffer) {
    require(at(buffer).type == BufferType::kI32, "a row list is not of integers");
    return lists_[buffer];
  }
  uint32_t row(uint32_t rows, uint32_t i) {
    if (rows == kNone) return i;
    require(i < list(rows).size(), "a row list is too short, or not written");
    return list(rows)[i];
  }
  // The last numbers that may be in it.
  void fill(uint32_t buffer, uint32_t count, uint32_t end) {
    require(at(buffer).columns == count && count <= end, "a row list has another length");
    list(buffer).resize(count);
    for (uint32_t i = 0; i < count; ++i) list(buffer)[i] = end - 1 - i;
  }
  void write(uint32_t buffer, uint64_t row, uint64_t columns) const {
    require(at(buffer).type == BufferType::kF32, "floats go to integers");
    require(row < at(buffer).rows && columns <= at(buffer).columns, "it reaches beyond a buffer");
  }
  void need_gate(uint32_t gate, uint32_t rows) const {
    if (gate != kNone) write(gate, 0, rows);
  }
  void need_vectors(std::initializer_list<uint32_t> weights, uint32_t columns) const {
    for (const uint32_t weight : weights) {
      require(weight < program_.weights().count, "a weight is out of range");
      require(program_.weights()[weight].bytes >= uint64_t{4} * columns, "a vector is too short");
    }
  }
  void need_panels(uint32_t index, uint64_t n, uint64_t k) const {
    require(index < program_.weights().count, "a weight is out of range");
    const Weight& weight = program_.weights()[index];
    const uint64_t least = weight.type == WeightType::kF32   ? 4
                           : weight.type == WeightType::kF16 ? 2
                                                             : 1;
    require(weight.bytes >= n * (k * least + 4), "a weight is too small");
  }

  const Program& program_;
  const Records<Buffer> buffers_;
  std::vector<std::vector<uint32_t>> lists_;
};

// About how many numbers an op reads, multiplies or writes.
uint64_t measure(const Program& program, const Entry& entry) {
  const auto buffers = program.buffers(entry);
  const auto area = [&](uint32_t b) { return uint64_t{buffers[b].rows} * buffers[b].columns; };
  const auto macs = [&](uint32_t w) {
    return uint64_t{program.weights()[w].rows} * program.weights()[w].columns;
  };
  uint64_t sum = 0;
  for (uint32_t i = 0; i < buffers.count; ++i) sum += area(i);
  for (const Op& op : program.ops(entry)) {
    const Operands operands = list_operands(op);
    for (size_t i = 0; i < operands.count; ++i) sum += area(operands.buffers[i]);
    if (op.kind == OpKind::kLinear) {
      const auto args = get<LinearArgs>(op);
      sum += (args.rows + uint64_t{1}) * macs(args.linear);
    } else if (op.kind == OpKind::kMlp) {
      const auto args = get<MlpArgs>(op);
      sum += (args.rows + uint64_t{1}) * (macs(args.fc1) + macs(args.fc2));
    } else if (op.kind == OpKind::kAttention) {
      const auto args = get<AttentionArgs>(op);
      sum += area(args.qkv) * (args.queries + uint64_t{args.heads});
    }
  }
  return sum;
}

// Whatever the weights hold. The checksum decides how, so that an input runs the same again.
void run_small(const Program& program, const Entry& entry) {
  constexpr uint64_t kMost = 1 << 17;
  uint64_t weights = 0;
  for (const Weight& weight : program.weights()) weights += weight.bytes;
  if (weights > kMost || measure(program, entry) > kMost) return;
  plan_arena(program, entry);
  const uint32_t choice = program.header().checksum, all = bve_detect_isa();
  const uint32_t isas[] = {all, all & (~all + 1), 0};  // the second: what every such CPU has
  run_serially(program, entry, isas[choice % 3], choice / 4 % 3,
               Noise(1).take(size_t{3} * entry.image_size * entry.image_size));
}

void open(const uint8_t* data, size_t size) try {
  const auto program = Program::open(data, size);
  for (uint32_t i = 0; i < program->weights().count; ++i) {
    const Weight& weight = program->weights()[i];
    touch(program->weight_data(i), weight.bytes);
    touch(program->text(weight.name).data(), weight.name.bytes);
  }
  for (const Entry& entry : program->entries()) {
    require(&program->find(entry.keep) == &entry, "two entries have one keep ratio");
    Walk walk(*program, entry);
    for (const Op& op : program->ops(entry)) {
      touch(program->text(op.name).data(), op.name.bytes);
      walk.run(op);
    }
    run_small(*program, entry);
  }
  require(is_text(read_metadata(program->metadata()).fault), "a fault cannot be printed");
  std::string described = program->describe();
  for (char& letter : described)
    letter = letter == '\n' || letter == '\r' || letter == '\t' ? ' ' : letter;
  require(is_text(described), "its description cannot be printed");
} catch (const Error& error) {
  require(is_text(error.what()) && error.what()[0] != '\0', "its error cannot be printed");
}

// Gets bytes past what the header's own fields decide.
void repair(uint8_t* data, size_t size) {
  Header header;
  if (size < sizeof header) return;
  std::memcpy(&header, data, sizeof header);
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.file_bytes = size;
  if (header.weights_offset < sizeof header || header.weights_offset > size) return;
  std::memcpy(data, &header, sizeof header);
  header.checksum =
      compute_tables_checksum(reinterpret_cast<const std::byte*>(data), header.weights_offset);
  std::memcpy(data, &header, sizeof header);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  open(data, size);
  // Exactly as many bytes, so that the address sanitizer sees one read beyond them.
  void* repaired = nullptr;
  require(posix_memalign(&repaired, 64, std::max<size_t>(size, 1)) == 0, "memory ran out");
  std::memcpy(repaired, data, size);
  repair(static_cast<uint8_t*>(repaired), size);
  open(static_cast<uint8_t*>(repaired), size);
  std::free(repaired);
  return 0;
}

// Half of the time, one field becomes another one's value or one beside its own: what lies in
// tables are mostly indices and sizes, and bytes at random seldom make a valid one.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  Header header;
  if (size < sizeof header || seed % 2 == 0) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(&header, data, sizeof header);
  const uint64_t end = std::min<uint64_t>(size, std::max<uint64_t>(header.weights_offset, 128));
  const auto pick = [&seed](uint64_t count) {
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % count;
  };
  for (uint64_t changes = 1 + pick(3); changes > 0; --changes) {
    uint32_t value, other;
    uint8_t* const field = data + pick(end / 4) * 4;
    std::memcpy(&value, field, sizeof value);
    std::memcpy(&other, data + pick(end / 4) * 4, sizeof other);
    const uint32_t values[] = {other, value + 1, value - 1, 0, 1, 2, kNone, kMaxDim, value * 2};
    value = values[pick(std::size(values))];
    std::memcpy(field, &value, sizeof value);
  }
  return size;
}
