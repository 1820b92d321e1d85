#include "main_arrays.h"

#include <algorithm>
#include <cstring>

#include "json.h"
#include "main_picture.h"

namespace bve {
namespace {

using json::list;
using json::object;

std::string print_shape(const bve_port& port, const char* before, const char* after) {
  std::string text;
  for (uint32_t i = 0; i < port.rank; i++) text += (i ? ", " : "") + std::to_string(port.sides[i]);
  return before + text + after;
}

// Where an array's numbers begin in a file: at its start, or behind the header of .npy, which says
// that they are little-endian float32, row by row, of the port's shape. Throws UserError.
size_t find_numbers(const std::string& path, const Bytes& bytes, const bve_port& port) {
  constexpr char kMagic[] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};
  constexpr size_t kFixed = 10;  // magic, version, and the header's length in two bytes
  if (bytes.size() < kFixed || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) return 0;
  const auto at = [&](size_t i) { return size_t{static_cast<uint8_t>(bytes[i])}; };
  const size_t end = kFixed + at(8) + 256 * at(9);
  const std::string shape = print_shape(port, "(", port.rank == 1 ? ",)" : ")");
  const std::string header(reinterpret_cast<const char*>(bytes.data()) + kFixed,
                           std::min(end, bytes.size()) - kFixed);
  const auto says = [&](const std::string& field) { return header.find(field) != header.npos; };
  if (at(6) != 1 || !says("'descr': '<f4'") || !says("'fortran_order': False") ||
      !says("'shape': " + shape)) {
    throw UserError(path + " with the header " + header.substr(0, header.rfind('}') + 1),
                    "float32, row by row, of shape " + shape + ", for " + port.name,
                    "save it so with numpy.save");
  }
  return std::min(end, bytes.size());
}

std::vector<float> read_array(const std::string& path, const bve_port& port) {
  const Bytes bytes = read_bytes(path);
  const size_t start = find_numbers(path, bytes, port), expected = port.count * sizeof(float);
  if (bytes.size() - start != expected) {
    throw UserError(
        path + " with " + std::to_string(bytes.size() - start) + " bytes of numbers",
        std::to_string(expected) + ": float32 " + print_shape(port, "[", "]") + " for " + port.name,
        "give it in that size");
  }
  std::vector<float> values(port.count);
  std::memcpy(values.data(), bytes.data() + start, expected);
  return values;
}

}  // namespace

Arrays::Arrays(const SessionHandle& session)
    : ports_(bve_ports(session.get(), nullptr, 0)), values_(count()), arrays_(count()) {
  bve_ports(session.get(), ports_.data(), count());
  while (!ports_[inputs_].is_output) inputs_++;
  for (size_t i = inputs_; i < count(); i++) values_[i].resize(ports_[i].count);
}

std::string Arrays::describe_inputs() const {
  std::string text;
  for (size_t i = 0; i < inputs_; i++)
    text += (i ? ", " : "") + (ports_[i].name + print_shape(ports_[i], "=FILE [", "]"));
  return text;
}

void Arrays::read(const std::vector<NamedFile>& files) {
  for (const NamedFile& file : files) {
    size_t number = 0;
    while (number < inputs_ && ports_[number].name != file.name) number++;
    if (number == inputs_) {
      throw UserError("an input " + file.name, "of " + describe_inputs(), "give these alone");
    }
    if (!values_[number].empty()) {
      throw UserError(file.name + " twice", "it once", "leave one out");
    }
    values_[number] = read_array(file.path, ports_[number]);
  }
  for (size_t i = 0; i < inputs_; i++) {
    if (values_[i].empty()) {
      throw UserError(std::string("no ") + ports_[i].name, describe_inputs(),
                      "give each input's float32, raw or as .npy");
    }
  }
}

void Arrays::fill() {
  for (size_t i = 0; i < inputs_; i++)
    values_[i] = make_image(ports_[i].count, static_cast<uint32_t>(i + 1));
}

void Arrays::run(const SessionHandle& session) {
  for (size_t i = 0; i < count(); i++) {
    auto& values = values_[i];
    arrays_[i] = {values.empty() ? nullptr : values.data(), values.size()};
  }
  bve_error error{};
  if (bve_run_ports(session.get(), arrays_.data(), count(), &error)) throw UserError(error);
}

std::string Arrays::print_outputs() const {
  std::vector<std::pair<const char*, std::string>> outputs;
  for (size_t i = inputs_; i < count(); i++) {
    std::vector<std::string> values;
    for (const float value : values_[i]) values.push_back(json::print(value, 9));
    outputs.push_back({ports_[i].name, object({{"shape", print_shape(ports_[i], "[", "]")},
                                               {"values", list(values, ", ")}})});
  }
  return object(outputs, ",\n  ");
}

}  // namespace bve
