// The tables of version 1 as the newest has them.
#include <vector>

#include "operations.h"
#include "validation.h"

namespace bve {
namespace {

constexpr size_t kShift = sizeof(Header) - kFormerHeaderBytes;
constexpr std::string_view kNames = "imagelogits";  // of the ports, behind the strings
constexpr uint32_t kImageBytes = 5;

// What an entry had in the place of ports.
struct FormerSizes {
  uint32_t image_size, classes;
};

FormerSizes read_sizes(const Subject& former, uint32_t index) {
  const Entry& entry = former.table<Entry>(former.header().entries)[index];
  const auto check = [&](const uint32_t& size, const char* field) {
    if (size >= 1 && size <= kMaxDim) return;
    former.refuse(size, path_of("entries", index, field), "1 to " + std::to_string(kMaxDim));
  };
  check(entry.first_port, "image_size");
  check(entry.ports, "classes");
  return {entry.first_port, entry.ports};
}

// Gives an op the arguments that are newer than it.
void add_arguments(const Subject& former, uint32_t index, Op& op) {
  if (static_cast<uint32_t>(op.kind) >= count_kinds(1)) return;  // refused later
  const Signature& signature = signature_of(op.kind);
  for (uint32_t i = 0; signature.parameters[i].name != nullptr; ++i) {
    const Parameter& parameter = signature.parameters[i];
    if (parameter.since <= 1) continue;
    const uint32_t& given = former.table<Op>(former.header().ops)[index].args[i];
    if (given != 0)
      former.refuse(given, path_of("ops", index, "args[" + std::to_string(i) + "]"), "0");
    std::memcpy(&op.args[i], &parameter.older, sizeof parameter.older);
  }
}

}  // namespace

std::shared_ptr<const std::byte> translate(const Subject& former) {
  const Header& before = former.header();
  const auto align = [](size_t bytes) { return (bytes + 7) / 8 * 8; };
  const size_t strings = before.weights_offset + kShift;
  const size_t ports = align(strings + before.strings.count + kNames.size());
  const size_t bytes = ports + 2 * sizeof(Port) * before.entries.count;
  const auto memory = std::make_shared<std::vector<uint64_t>>(bytes / sizeof(uint64_t));
  auto* const to = reinterpret_cast<std::byte*>(memory->data());
  std::memcpy(to, former.file, kFormerHeaderBytes);
  std::memcpy(to + sizeof(Header), former.file + kFormerHeaderBytes,
              before.weights_offset - kFormerHeaderBytes);

  Header& header = *reinterpret_cast<Header*>(to);
  for (Table* table :
       {&header.weights, &header.entries, &header.buffers, &header.ops, &header.metadata})
    table->offset += kShift;
  header.strings = {strings, before.strings.count + static_cast<uint32_t>(kNames.size()), 0};
  std::memcpy(to + strings, former.file + before.strings.offset, before.strings.count);
  std::memcpy(to + strings + before.strings.count, kNames.data(), kNames.size());
  header.ports = {ports, 2 * before.entries.count, 0};

  const Text image{before.strings.count, kImageBytes};
  const Text logits{image.offset + image.bytes, static_cast<uint32_t>(kNames.size()) - kImageBytes};
  for (uint32_t i = 0; i < before.entries.count; ++i) {
    const FormerSizes sizes = read_sizes(former, i);
    Entry& entry = reinterpret_cast<Entry*>(to + header.entries.offset)[i];
    entry.first_port = 2 * i;
    entry.ports = 2;
    Port* const port = reinterpret_cast<Port*>(to + ports) + 2 * i;
    port[0] = {image, 0, kInput, 4, 0, {1, 3, sizes.image_size, sizes.image_size, 0, 0}};
    port[1] = {logits, 1, kOutput, 2, 0, {1, sizes.classes, 0, 0, 0, 0}};
  }
  for (uint32_t i = 0; i < before.ops.count; ++i)
    add_arguments(former, i, reinterpret_cast<Op*>(to + header.ops.offset)[i]);
  return {memory, to};
}

}  // namespace bve
