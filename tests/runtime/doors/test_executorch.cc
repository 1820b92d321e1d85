// The door to ExecuTorch in ExecuTorch's own runtime. $BVE_TINY_PTE: what write_pte.py made of
// valid_tiny.bve.
#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/executor/program.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "bve.h"
#include "bve_executorch.h"
#include "doctest.h"
#include "program_builder.h"

namespace bve::test {
namespace {

using namespace executorch::runtime;
using executorch::aten::ScalarType;
using executorch::aten::TensorImpl;
using executorch::runtime::Error;  // not the core's
using executorch::runtime::Program;

constexpr char kBackend[] = "libbve_executorch";
constexpr size_t kPixels = 3 * 4 * 4, kClasses = 3;

Bytes read_file() {
  const char* const path = std::getenv("BVE_TINY_PTE");
  REQUIRE_MESSAGE(path, "set BVE_TINY_PTE to what write_pte.py wrote");
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  return {bytes.data(), bytes.size()};
}

// Where the .bve lies in the file.
size_t find_program(Bytes& bytes) {
  const std::string text(reinterpret_cast<char*>(bytes.data()), bytes.count());
  const size_t start = text.find("BVE1");
  REQUIRE(start % 64 == 0);
  return start;
}

std::vector<float> draw_image(uint32_t seed = 7) { return Noise(seed).take(kPixels); }

// What the core says itself, of the bytes that are in the file.
std::vector<float> ask_core(const std::vector<float>& image, float keep) {
  Bytes file = read_file();
  const size_t start = find_program(file);
  bve_program* const program = bve_open_bytes(file.data() + start, file.count() - start, nullptr);
  bve_session* const session = bve_start(program, keep, nullptr, nullptr);
  std::vector<float> logits(kClasses);
  REQUIRE(bve_run(session, image.data(), kPixels, logits.data(), kClasses, nullptr) == 0);
  bve_stop(session);
  bve_close(program);
  return logits;
}

std::string take_error() {
  const char* const text = bve_executorch_error();
  return text ? text : "";
}

// A file in memory. Its segments are copied to so many bytes behind a multiple of 64.
class Loader final : public DataLoader {
 public:
  Loader(Bytes bytes, size_t behind) : bytes_(std::move(bytes)), behind_(behind) {}

  Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo&) const override {
    if (offset + size > bytes_.count()) return Error::InvalidProgram;
    char* const block = new (std::align_val_t(64)) char[behind_ + size];
    std::memcpy(block + behind_, bytes_.data() + offset, size);
    held_++;
    const auto release = [](void* loader, void* data, size_t) {
      const auto* const self = static_cast<const Loader*>(loader);
      operator delete[](static_cast<char*>(data) - self->behind_, std::align_val_t(64));
      self->held_--;
    };
    return FreeableBuffer(block + behind_, size, release, const_cast<Loader*>(this));
  }
  Result<size_t> size() const override { return bytes_.count(); }
  int held() const { return held_; }  // segments that nobody gave back yet

 private:
  mutable Bytes bytes_;
  size_t behind_;
  mutable std::atomic<int> held_{0};
};

// A method and its memory; the program and what it is loaded from outlive it.
struct Loaded {
  std::vector<uint8_t> heap, plan;
  MemoryAllocator allocator;
  Span<uint8_t> span;
  HierarchicalAllocator planned{{&span, 1}};
  MemoryManager memory{&allocator, &planned};
  Result<Method> method;

  Loaded(const Program& program, const char* name, const LoadBackendOptionsMap* options = nullptr)
      : heap(1 << 16),
        plan(program.method_meta(name)->memory_planned_buffer_size(0).get()),
        allocator(heap.size(), heap.data()),
        span(plan.data(), plan.size()),
        method(program.load_method(name, &memory, nullptr, nullptr, options)) {}

  Error execute(void* image, ScalarType type = ScalarType::Float, int columns = 4) {
    TensorImpl::SizesType sizes[]{1, 3, 4, columns};
    TensorImpl::DimOrderType order[]{0, 1, 2, 3};
    TensorImpl input(type, 4, sizes, image, order);
    const Error error = method->set_input(executorch::aten::Tensor(&input), 0);
    return error == Error::Ok ? method->execute() : error;
  }
  std::vector<float> run(std::vector<float> image) {
    if (execute(image.data()) != Error::Ok) return {};
    const auto& logits = method->get_output(0).toTensor();
    return {logits.const_data_ptr<float>(), logits.const_data_ptr<float>() + logits.numel()};
  }
};

struct Opened {
  Loader loader;
  Result<Program> program;
  explicit Opened(Bytes bytes, size_t behind = 0)
      : loader(std::move(bytes), behind), program(Program::load(&loader)) {}
  Error load(const char* name, const LoadBackendOptionsMap* options = nullptr) {
    return Loaded(*program, name, options).method.error();
  }
};

BackendOption make_option(const char* key, OptionValue value) {
  BackendOption option{{}, value};
  std::strcpy(option.key, key);
  return option;
}

bool has(const std::string& text, const char* part) { return text.find(part) != text.npos; }

TEST_CASE("the runtime says what the core says, of one copy of the program") {
  for (size_t behind : {0, 16, 48}) {
    Opened opened(read_file(), behind);
    REQUIRE(opened.program.ok());
    const int before = opened.loader.held();
    {
      Loaded first(*opened.program, "keep_1"), second(*opened.program, "keep_0_5");
      REQUIRE((first.method.ok() && second.method.ok()));
      CHECK(opened.loader.held() - before == (behind == 0));  // used where it lies, or copied
      for (uint32_t seed : {7, 8}) {
        CHECK(first.run(draw_image(seed)) == ask_core(draw_image(seed), 1));
        CHECK(second.run(draw_image(seed)) == ask_core(draw_image(seed), 0.5f));
      }
      CHECK(first.run(draw_image()) != second.run(draw_image()));
    }
    CHECK(opened.loader.held() == before);
  }
  CHECK(take_error().empty());
}

TEST_CASE("another version, damage, a missing part: the core's text, once, and an error code") {
  Bytes bytes = read_file();
  const size_t start = find_program(bytes);
  for (const auto& [offset, fault] : {std::pair{4, "version at offset 4 is "}, {100, "checksum"}}) {
    bytes.data()[start + offset] ^= std::byte{8};
    CHECK(Opened(bytes).load("keep_1") == Error::DelegateInvalidCompatibility);
    const std::string told = take_error();
    CHECK_MESSAGE(has(told, fault), told);
    CHECK(take_error().empty());
    bytes.data()[start + offset] ^= std::byte{8};
  }
  const std::string text(reinterpret_cast<char*>(bytes.data()), start);
  bytes.data()[text.find("bve.") + 10] ^= std::byte{1};
  CHECK(Opened(bytes).load("keep_1") == Error::NotFound);
  CHECK(has(take_error(), "no data named bve."));
}

TEST_CASE("threads are the program's, else the process's option, and others are refused") {
  Opened opened(read_file());
  const auto load = [&](BackendOption option) {
    LoadBackendOptionsMap options;
    REQUIRE(options.set_options(kBackend, {&option, 1}) == Error::Ok);
    return opened.load("keep_1", &options);
  };
  const auto set = [](BackendOption option) { return set_option(kBackend, {&option, 1}); };
  CHECK(load(make_option("threads", 1)) == Error::Ok);
  CHECK(load(make_option("threads", 65000)) == Error::InvalidArgument);
  CHECK(has(take_error(), "65000 threads, expected 1 to "));
  for (const OptionValue& value : {OptionValue(0), OptionValue(-1), OptionValue(true)}) {
    CHECK(load(make_option("threads", value)) == Error::InvalidArgument);
    CHECK(set(make_option("threads", value)) == Error::InvalidArgument);
    CHECK(take_error() == "option threads of another value, expected an int of 1 or more");
  }
  CHECK(set(make_option("thread", 1)) == Error::InvalidArgument);
  CHECK(take_error() == "unknown option thread, expected threads");
  CHECK(set(make_option("threads", 65000)) == Error::Ok);
  CHECK(opened.load("keep_1") == Error::InvalidArgument);
  CHECK(load(make_option("threads", 1)) == Error::Ok);
  CHECK(set(make_option("threads", 1)) == Error::Ok);
  CHECK(opened.load("keep_1") == Error::Ok);
  using Text = std::array<char, kMaxOptionValueLength>;
  BackendOption told[]{make_option("threads", 0), make_option("version", Text{})};
  REQUIRE(get_option(kBackend, {told, 2}) == Error::Ok);
  CHECK(std::get<int>(told[0].value) == 1);
  CHECK(std::string(std::get<Text>(told[1].value).data()) == bve_executorch_version());
  BackendOption other = make_option("pin", 0);
  CHECK(get_option(kBackend, {&other, 1}) == Error::InvalidArgument);
}

TEST_CASE("tensors that are not the program's are refused") {
  Opened opened(read_file());
  double image[3 * 4 * 5]{};
  const auto ask = [&](const char* name, ScalarType type, int columns) {
    Loaded loaded(*opened.program, name);
    REQUIRE(loaded.method.ok());
    CHECK(loaded.execute(image, type, columns) == Error::InvalidArgument);
    return take_error();
  };
  const char others[] = "other tensors, expected float image and logits, packed";
  CHECK(ask("double", ScalarType::Double, 4) == others);
  CHECK(ask("channels_last", ScalarType::Float, 4) == others);
  CHECK(has(ask("wide", ScalarType::Float, 5), "60 floats"));
}

TEST_CASE("eight methods in each of eight threads run while others come and go") {
  Opened opened(read_file());
  const auto image = draw_image(), expected = ask_core(image, 0.5f);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; i++) {
    threads.emplace_back([&] {
      std::vector<std::unique_ptr<Loaded>> methods(8);
      for (int round = 0; round < 40; round++) {
        auto& replaced = methods[round % methods.size()];
        replaced = std::make_unique<Loaded>(*opened.program, "keep_0_5");
        for (const auto& loaded : methods) wrong += loaded && loaded->run(image) != expected;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace bve::test
