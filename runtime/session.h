// One entry of a program, ready to run: memory planned and allocated, kernels chosen, threads made.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arena.h"
#include "bve.h"
#include "cores.h"
#include "frame_input.h"
#include "metadata.h"
#include "pool.h"
#include "progress.h"
#include "trace.h"

namespace bve {

class Session {
 public:
  // Throws Error on options that cannot be kept to, or without memory. program and weights outlive
  // it. cores: what it may run on, fastest first, and how many of them at once.
  Session(const Program& program, Weights& weights, float keep, const bve_options& options,
          const std::vector<Core>& cores, size_t usable);
  Session(const Session&) = delete;
  ~Session();

  // The image of the next run without one. Throws Error, and then nothing has changed.
  void set_frame(const Metadata& metadata, const bve_frame* frame);
  void set_pixels(const Metadata& metadata, const uint8_t* pixels, size_t count, bool is_planar);
  // image [3, size, size] -> logits [classes]; throws Error on other counts. Null, of 0 floats: the
  // frame that was set since the last run. Allocates nothing.
  void run(const float* image, size_t image_count, float* logits, size_t logits_count);

  const Entry& entry() const { return entry_; }
  // Throws without memory for what is to be traced, and then traces nothing.
  void trace(bool on);
  Records<Op> ops() const { return program_.ops(entry_); }
  // What is known of the last run; null unless it was traced.
  const Trace* last() const { return trace_.get(); }
  const char* op_name(size_t op) const { return names_[op].c_str(); }
  uint64_t cpu_ns() const { return pool_->cpu_ns() - tried_ns_; }
  // As bve_inspect says.
  std::string describe() const;
  // What was tried before this way of running was chosen, as JSON: describe tells it, and cpu_ns
  // begins anew.
  void explain(std::string tried) {
    tried_ = std::move(tried);
    tried_ns_ = pool_->cpu_ns();
  }

 private:
  float* begin_input(const Metadata& metadata);
  std::byte* choose_image(const float* image, size_t image_count);
  void walk(size_t thread, uint32_t round);
  template <typename Condition>
  void await(size_t thread, Condition is_true);
  void execute_step(const Step& step, Range tiles, size_t thread);
  bool apart() const { return kernels_.size() > 1; }
  size_t lane_of(size_t thread) const { return apart() && thread >= big_threads_ ? 1 : 0; }

  const Program& program_;
  const Entry& entry_;
  const Weights& weights_;
  uint32_t isa_;
  std::vector<Kernels> kernels_;  // by lane; one where the lanes are not apart
  size_t big_threads_;
  Frame frame_;
  size_t arena_bytes_, scratch_bytes_;  // scratch: of one thread
  Schedule schedule_;
  Memory arena_, packed_;
  std::vector<Memory> scratches_;       // by thread
  std::unique_ptr<Progress> progress_;  // of several threads
  std::unique_ptr<Trace> trace_;        // null: off
  std::unique_ptr<FrameInput> input_;   // null: no frame was ever set
  bool has_frame_ = false;              // since the last run
  bool has_patches_ = false;            // of this run: its first op's work is done
  std::vector<std::string> names_;
  std::string tried_;
  uint64_t tried_ns_ = 0;
  uint32_t round_ = 0;
  std::unique_ptr<Pool, EndPool> pool_;  // the last: its threads use all the others
};

}  // namespace bve
