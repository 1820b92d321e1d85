#include "program.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <new>

#include "json.h"

namespace bve {
namespace {

constexpr size_t kAlign = 64;

constexpr std::array<uint32_t, 256> make_checksum_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xedb88320 : 0);
    table[byte] = value;
  }
  return table;
}

struct Descriptor {
  const int number;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

std::shared_ptr<const std::byte> map(int descriptor, size_t bytes, const char* path) {
  void* const data = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (data == MAP_FAILED) {
    fail("%s: its %zu bytes cannot be mapped: %s; free memory, or copy it to a local disk", path,
         bytes, std::strerror(errno));
  }
  return {static_cast<const std::byte*>(data),
          [bytes](const std::byte* mapped) { munmap(const_cast<std::byte*>(mapped), bytes); }};
}

std::shared_ptr<const std::byte> copy(const void* bytes, size_t count) {
  void* const data = ::operator new(count, std::align_val_t{kAlign});
  std::memcpy(data, bytes, count);
  return {static_cast<const std::byte*>(data), [](const std::byte* copied) {
            ::operator delete(const_cast<std::byte*>(copied), std::align_val_t{kAlign});
          }};
}

// Shortest text that reads back as the same number, whatever the locale.
std::string print(float number) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, number).ptr};
}

}  // namespace

uint32_t compute_checksum(const std::byte* bytes, size_t count, uint32_t before) {
  static constexpr auto kTable = make_checksum_table();
  uint32_t value = ~before;
  for (size_t i = 0; i < count; ++i) {
    value = value >> 8 ^ kTable[(value ^ std::to_integer<uint32_t>(bytes[i])) & 0xff];
  }
  return ~value;
}

uint32_t compute_tables_checksum(const std::byte* bytes, size_t weights_offset) {
  Header header;
  std::memcpy(&header, bytes, sizeof header);
  header.checksum = 0;
  const uint32_t before =
      compute_checksum(reinterpret_cast<const std::byte*>(&header), sizeof header);
  return compute_checksum(bytes + sizeof header, weights_offset - sizeof header, before);
}

std::unique_ptr<Program> Program::open(const char* path) {
  // without O_NONBLOCK a named pipe would wait for its writer, for ever
  const Descriptor file{::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat status;
  if (file.number < 0 || fstat(file.number, &status) != 0) {
    fail("%s: cannot be opened: %s; give the path of a readable .bve file", path,
         std::strerror(errno));
  }
  if (!S_ISREG(status.st_mode)) fail("%s: is not a file; give the path of a .bve file", path);
  const size_t count = static_cast<size_t>(status.st_size);
  if (count < sizeof(Header)) {
    fail("%s: has %zu bytes, expected at least the header's %zu; copy or export it again", path,
         count, sizeof(Header));
  }
  const std::string_view name = path;
  return std::unique_ptr<Program>(new Program(map(file.number, count, path), count,
                                              std::string(name.substr(name.rfind('/') + 1))));
}

std::unique_ptr<Program> Program::open(const void* bytes, size_t count) {
  if (bytes == nullptr || count < sizeof(Header)) {
    fail("a program of %zu bytes, expected at least the header's %zu; give a whole .bve file",
         bytes == nullptr ? 0 : count, sizeof(Header));
  }
  const bool is_aligned = reinterpret_cast<uintptr_t>(bytes) % kAlign == 0;
  std::shared_ptr<const std::byte> borrowed(static_cast<const std::byte*>(bytes),
                                            [](const std::byte*) {});
  return std::unique_ptr<Program>(
      new Program(is_aligned ? std::move(borrowed) : copy(bytes, count), count, ""));
}

Program::Program(std::shared_ptr<const std::byte> bytes, size_t count, std::string name)
    : bytes_(std::move(bytes)), name_(std::move(name)) {
  validate(bytes_.get(), count, name_);
}

void Program::verify() const {
  for (uint32_t i = 0; i < weights().count; ++i) {
    const Weight& weight = weights()[i];
    const uint32_t checksum = compute_checksum(weight_data(i), weight.bytes);
    if (checksum == weight.checksum) continue;
    throw Error((name_.empty() ? "" : name_ + ": ") + "weight " + std::string(text(weight.name)) +
                " at offset " + std::to_string(header().weights_offset + weight.offset) +
                " has the checksum " + std::to_string(checksum) + ", expected " +
                std::to_string(weight.checksum) + "; the file is damaged: copy or export it again");
  }
}

const Entry& Program::find(float keep) const {
  std::string known;
  for (const Entry& entry : entries()) {
    if (keep == 0 || entry.keep == keep) return entry;
    known += (known.empty() ? "" : ", ") + print(entry.keep);
  }
  for (const Entry& entry : entries()) {  // a third, from who wrote six digits of it
    if (std::fabs(entry.keep - keep) < 1e-6f) return entry;
  }
  if (entries()[0].keep == 0) {
    fail("keep ratio %s of a program that has none; ask for 0", print(keep).c_str());
  }
  fail(
      "keep ratio %s is not in the program; ask for one of %s, or 0 for the first, or export with "
      "it",
      print(keep).c_str(), known.c_str());
}

std::string Program::describe() const {
  static constexpr const char* kPrecisions[] = {"fp32", "fp16", "int8"};
  static constexpr const char* kPackings[] = {"f32p", "f16p", "qc8p4", "qc8p8"};
  static constexpr uint32_t kFirstPacked = static_cast<uint32_t>(WeightType::kF32);
  bool used[std::size(kPackings)] = {};
  for (const Weight& weight : weights()) {
    const uint32_t type = static_cast<uint32_t>(weight.type);
    if (type >= kFirstPacked) used[type - kFirstPacked] = true;
  }
  std::vector<std::string> packings, described;
  for (size_t i = 0; i < std::size(used); ++i) {
    if (used[i]) packings.push_back(json::quote(kPackings[i]));
  }
  for (const Entry& entry : entries()) {
    described.push_back(json::object({{"name", json::quote(text(entry.name))},
                                      {"keep", print(entry.keep)},
                                      {"image_size", json::print_whole(entry.image_size)},
                                      {"classes", json::print_whole(entry.classes)},
                                      {"macs", json::print_whole(entry.macs)},
                                      {"ops", json::print_whole(entry.ops)},
                                      {"buffers", json::print_whole(entry.buffers)}}));
  }
  const uint64_t file_bytes = header().file_bytes;
  return json::object({{"name", json::quote(is_text(name_) ? name_ : "")},
                       {"precision", json::quote(kPrecisions[header().precision])},
                       {"packing", json::list(packings, ", ")},
                       {"file_bytes", json::print_whole(file_bytes)},
                       {"weights_bytes", json::print_whole(file_bytes - header().weights_offset)},
                       {"entries", json::list(described, ", ")},
                       {"metadata", std::string(metadata())}});
}

}  // namespace bve
