// A .pte in memory, and a method of it, in ExecuTorch's own runtime.
#pragma once

#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/executor/program.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "bve_executorch.h"
#include "doctest.h"
#include "program_builder.h"

namespace bve::test {

// The file that the environment names by that word.
inline Bytes read_file_of(const char* word) {
  const char* const path = std::getenv(word);
  REQUIRE_MESSAGE(path, "set ", word, " to what write_pte.py wrote");
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  return {bytes.data(), bytes.size()};
}

inline std::string take_error() {
  const char* const text = bve_executorch_error();
  return text ? text : "";
}

inline bool has(const std::string& text, const char* part) { return text.find(part) != text.npos; }

// A file in memory. Its segments are copied to so many bytes behind a multiple of 64.
class Loader final : public executorch::runtime::DataLoader {
 public:
  using Buffer = executorch::runtime::FreeableBuffer;

  Loader(Bytes bytes, size_t behind) : bytes_(std::move(bytes)), behind_(behind) {}

  executorch::runtime::Result<Buffer> load(size_t offset, size_t size,
                                           const SegmentInfo&) const override {
    if (offset + size > bytes_.count()) return executorch::runtime::Error::InvalidProgram;
    char* const block = new (std::align_val_t(64)) char[behind_ + size];
    std::memcpy(block + behind_, bytes_.data() + offset, size);
    held_++;
    const auto release = [](void* loader, void* data, size_t) {
      const auto* const self = static_cast<const Loader*>(loader);
      operator delete[](static_cast<char*>(data) - self->behind_, std::align_val_t(64));
      self->held_--;
    };
    return Buffer(block + behind_, size, release, const_cast<Loader*>(this));
  }
  executorch::runtime::Result<size_t> size() const override { return bytes_.count(); }
  int held() const { return held_; }  // segments that nobody gave back yet

 private:
  mutable Bytes bytes_;
  size_t behind_;
  mutable std::atomic<int> held_{0};
};

// A method and its memory; the program and what it is loaded from outlive it.
struct Loaded {
  std::vector<uint8_t> heap, plan;
  executorch::runtime::MemoryAllocator allocator;
  executorch::runtime::Span<uint8_t> span;
  executorch::runtime::HierarchicalAllocator planned{{&span, 1}};
  executorch::runtime::MemoryManager memory{&allocator, &planned};
  executorch::runtime::Result<executorch::runtime::Method> method;

  Loaded(const executorch::runtime::Program& program, const char* name,
         const executorch::runtime::LoadBackendOptionsMap* options = nullptr)
      : heap(1 << 16),
        plan(program.method_meta(name)->memory_planned_buffer_size(0).get()),
        allocator(heap.size(), heap.data()),
        span(plan.data(), plan.size()),
        method(program.load_method(name, &memory, nullptr, nullptr, options)) {}

  template <typename T = float>
  std::vector<T> read_output(size_t number) {
    const auto& tensor = method->get_output(number).toTensor();
    return {tensor.template const_data_ptr<T>(),
            tensor.template const_data_ptr<T>() + tensor.numel()};
  }
};

struct Opened {
  Loader loader;
  executorch::runtime::Result<executorch::runtime::Program> program;
  explicit Opened(Bytes bytes, size_t behind = 0)
      : loader(std::move(bytes), behind), program(executorch::runtime::Program::load(&loader)) {}
  executorch::runtime::Error load(
      const char* name, const executorch::runtime::LoadBackendOptionsMap* options = nullptr) {
    return Loaded(*program, name, options).method.error();
  }
};

}  // namespace bve::test
