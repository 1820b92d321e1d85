// What ops.inc says of an op's arguments: their roles, and which of them are buffers.
#pragma once

#include <string>

#include "program.h"

namespace bve {

constexpr uint32_t kMostArguments = sizeof Op::args / sizeof(uint32_t);

// As ops.inc explains them. The order tells what an argument numbers.
enum class Role : uint8_t {
  kNumber,
  kCount,
  kFlag,
  kAccumulate,
  kEpsilon,
  kVector,  // from here on weights
  kMatrix,
  kPacked,
  kRows,
  kRead,  // from here on buffers
  kWrite,
  kModify,
  kReadList,
  kWriteList,
};

struct Parameter {
  const char* name;  // null: the op has none there
  Role role;
  bool is_optional;
  uint32_t since;  // the first version of the format whose ops of this kind have it
  float older;     // kEpsilon: what they have it as before
};

struct Signature {
  const char* name;  // 'Linear'
  uint32_t since;    // the first version of the format that has it
  Parameter parameters[kMostArguments + 1];
};

constexpr uint32_t kOpKinds = 0
#define BVE_OP(...) +1
#include "ops.inc"
    ;

const Signature& signature_of(OpKind kind);

// Those that files of a version may have: the first so many.
uint32_t count_kinds(uint32_t version);

// 'linear'
std::string name_kind(OpKind kind);

// A buffer that an op names, and what it does with it.
struct Operand {
  uint32_t argument;  // its number
  uint32_t buffer;
  bool reads, writes;
};

struct Operands {
  Operand all[kMostArguments];
  size_t count = 0;
  const Operand* begin() const { return all; }
  const Operand* end() const { return all + count; }
};

// In the order of its arguments.
Operands list_operands(const Op& op);

}  // namespace bve
