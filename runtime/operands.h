// What an op works with: kernels for one kind of core, weights in the packing those want, memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "program.h"
#include "select.h"

namespace bve {

struct Free {
  void operator()(void* memory) const;
};
using Memory = std::unique_ptr<std::byte, Free>;

// Zeroed, on a multiple of 64. Throws Error when there is none.
Memory allocate(size_t bytes);

// The kernels that a core of one kind runs.
struct Kernels {
  const bve_gemm_row* gemms[4];                 // by bve_packing
  const bve_kernel_row<bve_pack_fn>* packs[3];  // by bve_type, as the next
  const bve_kernel_row<bve_softmax_fn>* softmaxes[3];
  const bve_kernel_row<bve_pack_rhs_fn>*keys, *values;
  const bve_kernel_row<bve_route_fn>* route;
  bve_packing int8;  // what this CPU wants of int8

  Kernels(uint32_t isa, bve_core core);
  // The product that attention uses to compute in a type.
  const bve_gemm_row& gemm(bve_type type) const;
};

// A program's weights in the packing that a CPU wants: mapped where the file has it so, else packed
// anew once and shared by all sessions.
class Weights {
 public:
  explicit Weights(const Program& program)
      : program_(program), repacked_(program.weights().count) {}

  // Makes them ready; throws Error without memory. May be called by several threads.
  void prepare(bve_packing int8);

  // Ready ones: panels of a Linear, or plain floats.
  const void* data(uint32_t weight, bve_packing int8) const;
  const float* floats(uint32_t weight) const {
    return reinterpret_cast<const float*>(program_.weight_data(weight));
  }
  size_t repacked_bytes() const { return repacked_bytes_; }

 private:
  const Program& program_;
  std::mutex mutex_;
  std::vector<Memory> repacked_;
  std::atomic<size_t> repacked_bytes_{0};
};

// The packing of a Linear's weight; int8 in the one that the CPU wants.
bve_packing packing_of(const Weight& weight, bve_packing int8);

// Hands out pieces of a block of memory, each on a multiple of 64; without a block, only counts.
class Bump {
 public:
  explicit Bump(std::byte* base) : base_(reinterpret_cast<uintptr_t>(base)) {}
  template <typename T>
  T* take(size_t count) {
    T* piece = reinterpret_cast<T*>(base_ + used_);
    used_ += (count * sizeof(T) + 63) / 64 * 64;
    return piece;
  }
  size_t used() const { return used_; }

 private:
  uintptr_t base_;
  size_t used_ = 0;
};

}  // namespace bve
