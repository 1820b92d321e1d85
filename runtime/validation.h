// What the parts of validate() share: the bytes, and how they are refused.
#pragma once

#include <type_traits>

#include "program.h"

namespace bve {

// 'ops[7].lane'
std::string path_of(const char* table, uint32_t index, const std::string& field);

struct Subject {
  const std::byte* bytes;
  size_t count;
  const std::string& name;

  const Header& header() const { return *reinterpret_cast<const Header*>(bytes); }

  template <typename Record>
  Records<Record> table(const Table& table) const {
    return {reinterpret_cast<const Record*>(bytes + table.offset), table.count};
  }

  // 'blvit.bve: ', or nothing for bytes.
  std::string prefix() const { return name.empty() ? "" : name + ": "; }

  // Throws Error: this field, which lies in bytes, is what it is.
  template <typename Field>
  [[noreturn]] void refuse(const Field& field, const std::string& path,
                           const std::string& expected) const {
    std::string value;
    if constexpr (std::is_enum_v<Field>) {
      value = std::to_string(static_cast<std::underlying_type_t<Field>>(field));
    } else {
      value = std::to_string(field);
    }
    const auto offset = reinterpret_cast<const std::byte*>(&field) - bytes;
    throw Error(prefix() + path + " at offset " + std::to_string(offset) + " is " + value +
                ", expected " + expected +
                "; the file is damaged or was made by another program: export it again");
  }

  // Throws Error unless the name of a table's record is text inside strings.
  void check_name(const Text& text, const char* table_name, uint32_t index) const;
};

// The ops of entries()[index], whose ranges are known to be good.
void validate_ops(const Subject& subject, uint32_t index);

}  // namespace bve
