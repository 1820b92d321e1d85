// validate(): what the ops of an entry read and write, and whether their shapes agree.
#include "op_validation.h"

#include <cctype>
#include <cmath>
#include <cstdarg>

#include "ops/ops.h"

namespace bve {

void OpValidator::validate() {
  subject_.check_name(op_.name, "ops", index_);
  if (const uint32_t known = count_kinds(subject_.version); op_.kind >= OpKind{known}) {
    subject_.refuse(op_.kind, path_of("ops", index_, "kind"), "0 to " + std::to_string(known - 1));
  }
  if (op_.lane > 1) subject_.refuse(op_.lane, path_of("ops", index_, "lane"), "0 or 1");
  if (op_.reserved != 0) subject_.refuse(op_.reserved, path_of("ops", index_, "reserved"), "0");
  for (const uint32_t& argument : op_.args) validate_argument(argument);
  const Operands operands = list_operands(op_);
  for (const Operand& operand : operands) validate_access(operand, operands);
  functions_of(op_.kind).check(*this, op_);
  for (const Operand& operand : operands) {
    if (operand.writes) states_[operand.buffer].is_written = true;
  }
}

void OpValidator::need(bool holds, const uint32_t& argument, const char* format, ...) const {
  if (holds) return;
  char expected[256];
  va_list values;
  va_start(values, format);
  std::vsnprintf(expected, sizeof expected, format, values);
  va_end(values);
  std::string kind = signature_of(op_.kind).name;
  for (char& letter : kind) letter = static_cast<char>(std::toupper(letter));
  const char* const name = parameter(argument).name;
  const std::string place =
      "args[" + std::to_string(&argument - op_.args) + "], " + kind + "'s " + (name ? name : "end");
  subject_.refuse(argument, path_of("ops", index_, place), expected);
}

void OpValidator::validate_argument(const uint32_t& argument) const {
  const Parameter& expected = parameter(argument);
  if (expected.name == nullptr) return need(argument == 0, argument, "0");
  if (expected.is_optional && argument == kNone) return;
  const Role role = expected.role;
  if (role == Role::kCount) need(argument >= 1, argument, "at least 1");
  if (role == Role::kFlag || role == Role::kAccumulate) need(argument <= 1, argument, "0 or 1");
  if (role == Role::kEpsilon) {
    float value;
    std::memcpy(&value, &argument, sizeof value);
    return need(value >= 0 && std::isfinite(value), argument, "the bits of a float, 0 or more");
  }
  if (role < Role::kVector) return need(argument <= kMaxDim, argument, "at most %u", kMaxDim);
  if (role < Role::kRead) {
    need(argument < weights_.count, argument, "a weight, of which there are %u", weights_.count);
    const WeightType type = weight(argument).type;
    if (role == Role::kVector)
      need(type == WeightType::kVector, argument, "a weight of type vector");
    if (role == Role::kMatrix)
      need(type == WeightType::kMatrix, argument, "a weight of type matrix");
    if (role == Role::kPacked) need(is_packed(type), argument, "a weight of a packed type");
    if (role == Role::kRows) need(type == WeightType::kRows, argument, "a weight of type rows");
    return;
  }
  need(argument < buffer_count_, argument, "a buffer, of which there are %u", buffer_count_);
  const bool is_list = role == Role::kReadList || role == Role::kWriteList;
  const Buffer& found = buffer(argument);
  need(is_list == (found.type == BufferType::kI32), argument, "a buffer of type %u", is_list);
  need(!is_list || found.rows == 1, argument, "a row list, of one row");
}

// That what it reads is there, and that neither this op nor the other lane gets in the way.
void OpValidator::validate_access(const Operand& operand, const Operands& all) {
  const uint32_t& argument = op_.args[operand.argument];
  BufferState& state = states_[argument];
  const uint32_t now = op_.stage + 1u, other = 1u - op_.lane;
  if (operand.reads) {
    need(state.is_written, argument, "a buffer that an op before it has written");
    state.read_in[op_.lane] = now;
  }
  if (operand.writes) {
    need(!state.is_input, argument, "another than buffer %u, an input, which stays as it is",
         argument);
    for (const Operand& another : all) {
      need(another.argument == operand.argument || another.buffer != argument, argument,
           "a buffer that is none of its other arguments");
    }
    need(state.read_in[other] != now, argument, "a buffer that lane %u of stage %u does not read",
         other, op_.stage);
    state.written_in[op_.lane] = now;
  }
  need(state.written_in[other] != now, argument, "a buffer that lane %u of stage %u does not write",
       other, op_.stage);
}

void OpValidator::need_shape(const uint32_t& argument, uint32_t rows, uint32_t columns) const {
  const Buffer& found = buffer(argument);
  need(found.rows == rows && found.columns == columns, argument,
       "a buffer [%u, %u], and it is [%u, %u]", rows, columns, found.rows, found.columns);
}

void OpValidator::need_vector(const uint32_t& argument, uint32_t columns) const {
  need(weight(argument).columns == columns, argument, "a vector of %u, and it is one of %u",
       columns, weight(argument).columns);
}

void OpValidator::need_rows(const uint32_t& rows, const uint32_t& list, const uint32_t& data,
                            uint32_t first) const {
  const uint32_t there = buffer(data).rows;
  if (list == kNone) {
    return need(first + rows <= there, rows, "at most %u, of its %s's rows from %u on",
                there > first ? there - first : 0, parameter(data).name, first);
  }
  need(rows <= buffer(list).columns, rows, "at most %u, as its %s has", buffer(list).columns,
       parameter(list).name);
  need(states_[list].bound <= there, list, "a row list below %u, its %s's rows, and it is below %u",
       there, parameter(data).name, states_[list].bound);
}

void OpValidator::need_distinct_rows(const uint32_t& rows, const uint32_t& list,
                                     const uint32_t& data, uint32_t first) const {
  need_rows(rows, list, data, first);
  need(list == kNone || states_[list].is_distinct, list,
       "a row list with no number twice, since rows are written");
}

void OpValidator::need_gate(const uint32_t& gate, uint32_t rows) const {
  if (gate == kNone) return;
  const Buffer& found = buffer(gate);
  need(found.rows == 1 && found.columns >= rows, gate,
       "a buffer [1, %u or more], and it is [%u, %u]", rows, found.rows, found.columns);
}

void validate_ops(const Subject& subject, uint32_t index) {
  const Entry& entry = subject.table<Entry>(subject.header().entries)[index];
  const auto ops = subject.table<Op>(subject.header().ops);
  const Records<Port> ports{subject.table<Port>(subject.header().ports).first + entry.first_port,
                            entry.ports};
  std::vector<BufferState> states(entry.buffers);
  for (const Port& port : ports) {
    if (port.direction == kInput)
      states[port.buffer].is_written = states[port.buffer].is_input = true;
  }
  uint32_t stage = 0;
  for (uint32_t i = entry.first_op; i < entry.first_op + entry.ops; ++i) {
    if (ops[i].stage < stage) {
      subject.refuse(ops[i].stage, path_of("ops", i, "stage"),
                     "at least " + std::to_string(stage) + ", the stage of the op before it");
    }
    stage = ops[i].stage;
    OpValidator(subject, entry, states, i).validate();
  }
  for (const Port& port : ports) {
    if (states[port.buffer].is_written) continue;
    subject.refuse(entry.ops, path_of("entries", index, "ops"),
                   "ops of which one writes buffer " + std::to_string(port.buffer) + ", " +
                       subject.text(port.name));
  }
}

}  // namespace bve
