// A delegate's call: its tensors are the ports of a program's entry, in their order. Where the
// entry takes one image alone, pixels or a frame may stand for it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bve.h"

namespace bve {

enum class Element { kFloat, kByte, kOther };

// A tensor as its runtime has it.
struct Argument {
  Element type = Element::kOther;
  const int32_t* sides = nullptr;
  size_t rank = 0;
  void* data = nullptr;
  const char* flaw = "";  // why what is there cannot be used, to be read behind its shape
};

class PortCall {
 public:
  explicit PortCall(bve_session* session);  // which outlives it

  // Inputs first. Whoever runs the call fills them in.
  Argument& operator[](size_t number) { return arguments_[number]; }
  size_t count() const { return ports_.size(); }
  size_t inputs() const { return inputs_; }
  const char* name(size_t number) const { return ports_[number].name; }

  // Each 0, or a status with what is wrong in `error`: of the number of tensors, or of one of them.
  int check_counts(size_t inputs, size_t outputs, bve_error* error) const;
  int check(size_t number, bve_error* error) const;
  // Of checked tensors; a frame, if not null, goes before the first. Allocates nothing.
  int run(const bve_frame* frame, bve_error* error);

 private:
  bool takes_image() const;
  std::string describe_port(size_t number) const;

  bve_session* session_;
  std::vector<bve_port> ports_;
  std::vector<Argument> arguments_;
  std::vector<bve_array> arrays_;
  size_t inputs_;
};

}  // namespace bve
