// How the ops of an entry are validated, one after the other: what all have in common by their row
// of ops.inc, and what an op's own file checks with the help of OpValidator.
#pragma once

#include <vector>

#include "operations.h"
#include "validation.h"

namespace bve {

// What is known of a buffer after the ops so far.
struct BufferState {
  bool is_written = false;
  uint32_t bound = 0;        // of a row list: its numbers are below
  bool is_distinct = false;  // of a row list: no number is in it twice
  bool is_input = false;     // a port's, which nothing writes
  // Stage + 1 in which a lane last did so; 0: never.
  uint32_t read_in[2] = {0, 0}, written_in[2] = {0, 0};
};

// One op, seen after those before it. Arguments are handed on by reference, as they lie in the
// file, so that an error can say where.
class OpValidator {
 public:
  OpValidator(const Subject& subject, const Entry& entry, std::vector<BufferState>& states,
              uint32_t index)
      : subject_(subject),
        buffers_(subject.table<Buffer>(subject.header().buffers).first + entry.first_buffer),
        buffer_count_(entry.buffers),
        weights_(subject.table<Weight>(subject.header().weights)),
        states_(states),
        index_(index),
        op_(subject.table<Op>(subject.header().ops)[index]) {}

  void validate();

  // What an op's own check asks; all of its arguments are in range by then, and of their type.
  const Buffer& buffer(uint32_t argument) const { return buffers_[argument]; }
  const Weight& weight(uint32_t argument) const { return weights_[argument]; }
  // The numbers of a weight of type rows.
  Records<uint32_t> rows(uint32_t argument) const {
    const std::byte* const data = subject_.weight_data(weights_[argument]);
    return {reinterpret_cast<const uint32_t*>(data), weights_[argument].columns};
  }

  // Throws Error unless it holds; the format is what was expected of the argument.
  [[gnu::format(printf, 4, 5)]] void need(bool holds, const uint32_t& argument, const char* format,
                                          ...) const;
  void need_shape(const uint32_t& argument, uint32_t rows, uint32_t columns) const;
  void need_vector(const uint32_t& argument, uint32_t columns) const;
  // That `rows` rows of a buffer are there: the listed ones, or those from `first` on.
  void need_rows(const uint32_t& rows, const uint32_t& list, const uint32_t& data,
                 uint32_t first = 0) const;
  // Besides, that no two of them are the same: of rows that are written.
  void need_distinct_rows(const uint32_t& rows, const uint32_t& list, const uint32_t& data,
                          uint32_t first = 0) const;
  // That there is a factor for each of so many rows, if there is any.
  void need_gate(const uint32_t& gate, uint32_t rows) const;
  // Says that the numbers of a row list that the op writes are below `bound`.
  void set_bound(uint32_t list, uint32_t bound, bool is_distinct = true) {
    states_[list].bound = bound;
    states_[list].is_distinct = is_distinct;
  }

 private:
  const Parameter& parameter(const uint32_t& argument) const {
    return signature_of(op_.kind).parameters[&argument - op_.args];
  }
  void validate_argument(const uint32_t& argument) const;
  void validate_access(const Operand& operand, const Operands& all);

  const Subject& subject_;
  const Buffer* const buffers_;
  const uint32_t buffer_count_;
  const Records<Weight> weights_;
  std::vector<BufferState>& states_;
  const uint32_t index_;
  const Op& op_;
};

}  // namespace bve
