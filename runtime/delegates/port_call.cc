#include "port_call.h"

#include <algorithm>
#include <array>

#include "error_text.h"

namespace bve {
namespace {

using Image = std::array<uint32_t, 4>;

Image list_packed(const bve_port& image) { return {1, image.sides[2], image.sides[2], 3}; }

template <typename Sides>
bool has_sides(const Argument& given, const Sides* sides, size_t rank) {
  const auto is_same = [](int32_t one, auto other) { return int64_t{one} == int64_t{other}; };
  return given.rank == rank && std::equal(given.sides, given.sides + rank, sides, is_same);
}

template <typename Sides>
std::string print(const Sides* sides, size_t rank) {
  std::string text;
  for (size_t i = 0; i < rank; i++) text += (i ? ", " : "") + std::to_string(sides[i]);
  return "[" + text + "]";
}

std::string print(const Argument& given) {
  constexpr const char* kTypes[] = {"float32", "uint8", "another type"};  // by Element
  return kTypes[static_cast<size_t>(given.type)] + (" " + print(given.sides, given.rank)) +
         given.flaw;
}

}  // namespace

PortCall::PortCall(bve_session* session)
    : session_(session),
      ports_(bve_ports(session, nullptr, 0)),
      arguments_(ports_.size()),
      arrays_(ports_.size()) {
  bve_ports(session, ports_.data(), ports_.size());
  const auto is_output = [](const bve_port& port) { return port.is_output != 0; };
  inputs_ = std::find_if(ports_.begin(), ports_.end(), is_output) - ports_.begin();
}

bool PortCall::takes_image() const {
  const bve_port& port = ports_[0];
  return inputs_ == 1 && port.rank == 4 && port.sides[0] == 1 && port.sides[1] == 3 &&
         port.sides[2] == port.sides[3];
}

std::string PortCall::describe_port(size_t number) const {
  const bve_port& port = ports_[number];
  const std::string shape = print(port.sides, port.rank);
  if (number > 0 || !takes_image()) return "float32 " + shape + ", packed";
  const Image packed = list_packed(port);
  return "float32 " + shape + ", or uint8 " + print(packed.data(), packed.size()) + " or " + shape +
         ", packed";
}

int PortCall::check_counts(size_t inputs, size_t outputs, bve_error* error) const {
  if (inputs == inputs_ && outputs == count() - inputs_) return 0;
  std::string names;
  for (size_t i = 0; i < count(); i++)
    names += (i == 0 ? "" : i == inputs_ ? " -> " : ", ") + std::string(name(i));
  set_error(error, std::to_string(inputs) + " tensors in and " + std::to_string(outputs) + " out",
            "as many as the program's " + names, "export the model again");
  return 1;
}

int PortCall::check(size_t number, bve_error* error) const {
  const bve_port& port = ports_[number];
  const Argument& given = arguments_[number];
  const bool is_shaped = has_sides(given, port.sides, port.rank);
  if (!*given.flaw && given.type == Element::kFloat && is_shaped) return 0;
  if (!*given.flaw && given.type == Element::kByte && number == 0 && takes_image()) {
    const Image packed = list_packed(port);
    if (is_shaped || has_sides(given, packed.data(), packed.size())) return 0;
  }
  set_error(error, std::string(port.name) + " of " + print(given), describe_port(number),
            port.is_output ? "export the model again" : "give it as the model has its input");
  return 1;
}

int PortCall::run(const bve_frame* frame, bve_error* error) {
  for (size_t i = 0; i < count(); i++)
    arrays_[i] = {static_cast<float*>(arguments_[i].data), ports_[i].count};
  const Argument& first = arguments_[0];
  int status = 0;
  if (frame) {
    status = bve_set_frame(session_, frame, error);
  } else if (first.type == Element::kByte) {
    const bool is_planar = first.sides[3] != 3;
    const auto* const pixels = static_cast<const uint8_t*>(first.data);
    status = bve_set_pixels(session_, pixels, ports_[0].count, is_planar, error);
  }
  if (status) return status;
  if (frame || first.type == Element::kByte) arrays_[0] = {nullptr, 0};
  return bve_run_ports(session_, arrays_.data(), arrays_.size(), error);
}

}  // namespace bve
