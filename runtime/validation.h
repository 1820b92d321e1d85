// What the parts of validate() share: the bytes, and how they are refused.
#pragma once

#include <type_traits>

#include "program.h"

namespace bve {

inline constexpr size_t kFormerHeaderBytes = 128;  // in version 1

inline constexpr char kDamaged[] =
    "the file is damaged or was made by another program: export it again";

// 'ops[7].lane'
std::string path_of(const char* table, uint32_t index, const std::string& field);

struct Subject {
  const std::byte *file, *tables;  // tables: header to metadata, the file's own or translated ones
  size_t count;                    // bytes of the file
  uint32_t version;                // of the file
  const std::string& name;

  const Header& header() const { return *reinterpret_cast<const Header*>(tables); }

  template <typename Record>
  Records<Record> table(const Table& table) const {
    return {reinterpret_cast<const Record*>(tables + table.offset), table.count};
  }
  const std::byte* weight_data(const Weight& weight) const {
    return file + header().weights_offset + weight.offset;
  }
  std::string text(Text text) const {
    return {table<char>(header().strings).first + text.offset, text.bytes};
  }

  // 'blvit.bve: ', or nothing for bytes.
  std::string prefix() const { return name.empty() ? "" : name + ": "; }

  // Throws Error: this field, which lies in the tables, is what it is.
  template <typename Field>
  [[noreturn]] void refuse(const Field& field, const std::string& path,
                           const std::string& expected) const {
    std::string value;
    if constexpr (std::is_enum_v<Field>) {
      value = std::to_string(static_cast<std::underlying_type_t<Field>>(field));
    } else {
      value = std::to_string(field);
    }
    const auto offset = offset_of(reinterpret_cast<const std::byte*>(&field) - tables);
    throw Error(prefix() + path + " at offset " + std::to_string(offset) + " is " + value, expected,
                kDamaged);
  }

  // Where in the file it is what lies so far behind the tables' start.
  ptrdiff_t offset_of(ptrdiff_t offset) const {
    const bool is_moved = tables != file && offset >= ptrdiff_t{kFormerHeaderBytes};
    return is_moved ? offset - ptrdiff_t{sizeof(Header) - kFormerHeaderBytes} : offset;
  }

  // Throws Error unless the name of a table's record is text inside strings.
  void check_name(const Text& text, const char* table_name, uint32_t index) const;
};

// The tables of a file of version 1 as they would be of the newest, each as far behind the header
// as in the file, and the ports behind all. Its header is known to be good, and nothing else;
// throws Error on what only version 1 has. In the tables offsets count from their start, but that
// of the weights, which counts from the file's.
std::shared_ptr<const std::byte> translate(const Subject& former);

// The ports of entries()[index], whose buffers and ports are known to be there.
void validate_ports(const Subject& subject, uint32_t index);

// The ops of entries()[index], whose ranges are known to be good.
void validate_ops(const Subject& subject, uint32_t index);

}  // namespace bve
