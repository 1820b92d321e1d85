#include "accesses.h"

#include <algorithm>

#include "operations.h"

namespace bve {

void Accesses::touch_rows(uint32_t buffer, bool writes, uint32_t list, size_t first, size_t count,
                          Range columns) {
  Access access{buffer, writes, {first, first + count}, columns, how_.rows ? count : 0, list};
  if (list != kNone) {
    access.rows = {0, frame_.shapes[buffer].rows};
    touch_whole(list, false);
  }
  all_.push_back(access);
  named_.push_back(buffer);
}

void Accesses::touch(uint32_t buffer, bool writes, Range rows, Range columns) {
  all_.push_back({buffer, writes, rows, columns});
  named_.push_back(buffer);
}

void Accesses::touch_whole(uint32_t buffer, bool writes) {
  const Buffer& shape = frame_.shapes[buffer];
  touch(buffer, writes, {0, shape.rows}, {0, shape.columns});
}

void Accesses::touch_packed(bool writes) { all_.push_back({kPacked, writes, {0, 1}, {0, 1}}); }

void Accesses::touch_rest(const Op& op) {
  const std::vector<uint32_t> named = named_;
  for (const Operand& operand : list_operands(op)) {
    if (std::find(named.begin(), named.end(), operand.buffer) == named.end())
      touch_whole(operand.buffer, operand.writes);
  }
}

}  // namespace bve
