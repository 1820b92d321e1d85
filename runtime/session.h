// One entry of a program, ready to run: memory planned and allocated, kernels chosen, threads made.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "arena.h"
#include "bve.h"
#include "cores.h"
#include "execution.h"
#include "pool.h"

namespace bve {

class Session {
 public:
  // Throws Error on options that cannot be kept to, or without memory. program and weights outlive
  // it.
  Session(const Program& program, Weights& weights, float keep, const bve_options& options);

  // image [3, size, size] -> logits [classes]; throws Error on other counts. Allocates nothing.
  void run(const float* image, size_t image_count, float* logits, size_t logits_count);

  const Entry& entry() const { return entry_; }
  void trace(bool on);
  Records<Op> ops() const { return program_.ops(entry_); }
  // Of the last run; 0 unless it was traced.
  uint64_t nanoseconds(size_t op) const { return times_[op]; }
  const char* op_name(size_t op) const { return names_[op].c_str(); }
  // As bve_inspect says.
  std::string describe() const;

 private:
  // The threads of one lane, or all of them when the lanes are not apart.
  struct Lane {
    size_t first_thread, threads;
    Kernels kernels;
    std::unique_ptr<Barrier> barrier;
  };

  void walk(size_t thread);
  bool apart() const { return lanes_.size() > 1; }

  const Program& program_;
  const Entry& entry_;
  const Weights& weights_;
  uint32_t isa_;
  std::vector<Lane> lanes_;
  Frame frame_;
  size_t arena_bytes_, scratch_bytes_;  // scratch: of one thread
  Memory arena_;
  std::vector<Memory> scratches_;  // by thread
  std::unique_ptr<Barrier> everyone_;
  std::unique_ptr<Pool, EndPool> pool_;
  bool traced_ = false;
  std::vector<uint64_t> times_;
  std::vector<std::string> names_;
};

}  // namespace bve
