// What the tests of kernels share: numbers, buffers that notice writes beyond their ends, loops in
// double precision to compare with.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "half.h"
#include "kernels.h"
#include "select.h"

#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

struct Random {
  uint64_t state;
  explicit Random(uint64_t seed) : state(seed * 2862933555777941757u + 3037000493u) {}
  uint32_t bits() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 33);
  }
  float uniform(float low, float high) { return low + (high - low) * (bits() / 2147483648.0f); }
  int below(int n) { return static_cast<int>(bits() % static_cast<uint32_t>(n)); }
};

// On a multiple of 64 bytes, between guards, which AddressSanitizer guards against reading too;
// what it holds at first is no number.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) {
    const size_t bytes = (kGuard + count * sizeof(T) + kGuard + 63) / 64 * 64;
    memory_ = static_cast<unsigned char*>(std::aligned_alloc(64, bytes));
    std::memset(memory_, 0xff, bytes);
    ASAN_POISON_MEMORY_REGION(memory_, kGuard);
    ASAN_POISON_MEMORY_REGION(end(), kGuard);
  }
  ~Buffer() {
    unpoison();
    std::free(memory_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return reinterpret_cast<T*>(memory_ + kGuard); }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data()[i]; }
  void fill(T x) { std::fill(data(), data() + count_, x); }
  bool guards_hold() {
    unpoison();
    for (size_t i = 0; i < kGuard; i++)
      if (memory_[i] != 0xff || end()[i] != 0xff) return false;
    return true;
  }

 private:
  static constexpr size_t kGuard = 128;
  unsigned char* end() { return memory_ + kGuard + count_ * sizeof(T); }
  void unpoison() {
    ASAN_UNPOISON_MEMORY_REGION(memory_, kGuard);
    ASAN_UNPOISON_MEMORY_REGION(end(), kGuard);
  }
  size_t count_;
  unsigned char* memory_;
};

// False, aloud, for a kernel of instructions that this CPU lacks.
template <typename Row>
bool can_run(const Row& row) {
  const uint32_t missing = row.isa & ~bve_detect_isa();
  if (!missing) return true;
  char text[64];
  bve_name_isa(missing, text, sizeof text);
  MESSAGE("skipped ", std::string(row.name), ": this CPU has no ", std::string(text));
  return false;
}

// What a quantised row or column must not hide: NaN of either sign, with and without a payload, and
// infinities.
inline std::vector<float> not_finite() {
  float payload;
  std::memset(&payload, 0xff, sizeof payload);
  return {NAN, -NAN, payload, INFINITY, -INFINITY};
}

// The worst error so far. What is not a number is worse than any.
inline void raise(double& worst, double error) {
  if (!(error <= worst)) worst = std::isnan(error) ? INFINITY : error;
}

inline size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

// Element [i, j] of a packed left side of k columns.
template <typename T>
T lhs_at(const void* packed, bve_lhs lhs, size_t k, size_t i, size_t j) {
  const char* panel = static_cast<const char*>(packed) + i / lhs.mr * bve_lhs_stride_bytes(lhs, k);
  const size_t at = j / lhs.kr * lhs.mr * lhs.kr + i % lhs.mr * lhs.kr + j % lhs.kr;
  return reinterpret_cast<const T*>(panel)[at];
}

// Row r of column j of a packed right side of k rows, as stored.
inline float rhs_at(const void* packed, bve_packing packing, size_t k, size_t r, size_t j) {
  const char* panel = static_cast<const char*>(packed) + j / 16 * bve_rhs_stride_bytes(packing, k);
  if (packing == bve_f32p) return reinterpret_cast<const float*>(panel)[16 + r * 16 + j % 16];
  if (packing == bve_f16p)
    return bve_from_half(reinterpret_cast<const uint16_t*>(panel)[32 + r * 16 + j % 16]);
  const size_t kr = bve_rhs_kr(packing);
  return reinterpret_cast<const int8_t*>(panel)[192 + (r / kr * 16 + j % 16) * kr + r % kr];
}

// What stands in a panel's head for column j: 0 scale and 1 bias of qc8p; 0 bias of the others.
inline float head_at(const void* packed, bve_packing packing, size_t k, int which, size_t j) {
  const char* panel = static_cast<const char*>(packed) + j / 16 * bve_rhs_stride_bytes(packing, k);
  return reinterpret_cast<const float*>(panel)[which * 16 + j % 16];
}
inline int32_t sum_at(const void* packed, bve_packing packing, size_t k, size_t j) {
  const char* panel = static_cast<const char*>(packed) + j / 16 * bve_rhs_stride_bytes(packing, k);
  return reinterpret_cast<const int32_t*>(panel)[32 + j % 16];
}
