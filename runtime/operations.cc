#include "operations.h"

#include <string_view>

namespace bve {
namespace {

constexpr Signature kSignatures[] = {
#define A(role, name) {#name, Role::k##role, false, 0, 0},
#define O(role, name) {#name, Role::k##role, true, 0, 0},
#define E(name, since, older) {#name, Role::kEpsilon, false, since, older},
#define BVE_OP(number, name, since, arguments) {#name, since, {arguments}},
#include "ops.inc"
};

static_assert(sizeof kSignatures == kOpKinds * sizeof(Signature));
// By their numbers.
#define BVE_OP(number, kind, ...) \
  static_assert(std::string_view(kSignatures[number].name) == std::string_view(#kind));
#include "ops.inc"

}  // namespace

std::string name_kind(OpKind kind) {
  std::string name = signature_of(kind).name;
  name[0] = static_cast<char>(name[0] - 'A' + 'a');
  return name;
}

const Signature& signature_of(OpKind kind) { return kSignatures[static_cast<uint32_t>(kind)]; }

uint32_t count_kinds(uint32_t version) {
  uint32_t count = 0;
  while (count < kOpKinds && kSignatures[count].since <= version) ++count;
  return count;
}

Operands list_operands(const Op& op) {
  const Parameter* const parameters = signature_of(op.kind).parameters;
  bool accumulates = false;
  for (uint32_t i = 0; parameters[i].name != nullptr; ++i)
    accumulates |= parameters[i].role == Role::kAccumulate && op.args[i] == 1;
  Operands operands;
  for (uint32_t i = 0; parameters[i].name != nullptr; ++i) {
    const Role role = parameters[i].role;
    if (role < Role::kRead || op.args[i] == kNone) continue;
    const bool only_writes = role == Role::kWrite || role == Role::kWriteList;
    const bool only_reads = role == Role::kRead || role == Role::kReadList;
    operands.all[operands.count++] = {i, op.args[i], !only_writes || accumulates, !only_reads};
  }
  return operands;
}

}  // namespace bve
