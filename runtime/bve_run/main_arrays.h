// The arrays of an entry, one a port: read from files by the ports' names, run, and printed by
// name.
#pragma once

#include <string>
#include <vector>

#include "main_program.h"

namespace bve {

class Arrays {
 public:
  explicit Arrays(const SessionHandle& session);

  size_t inputs() const { return inputs_; }
  size_t count() const { return ports_.size(); }
  // Each input of the file that goes with its name, float32: raw, or .npy of the port's shape.
  // Throws UserError, naming the ports, unless that is one file for each.
  void read(const std::vector<NamedFile>& files);
  // Each input of numbers in [-1, 1] that are the same everywhere.
  void fill();
  // The one input of an entry that takes one array. Without it: a frame that was set.
  void set(std::vector<float> image) { values_[0] = std::move(image); }

  void run(const SessionHandle& session);

  const std::vector<float>& first_output() const { return values_[inputs_]; }
  // JSON: {"NAME": {"shape": [...], "values": [...]}, ...}
  std::string print_outputs() const;

 private:
  std::string describe_inputs() const;

  std::vector<bve_port> ports_;
  std::vector<std::vector<float>> values_;
  std::vector<bve_array> arrays_;
  size_t inputs_ = 0;
};

}  // namespace bve
