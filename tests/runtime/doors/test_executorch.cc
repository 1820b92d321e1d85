// The door to ExecuTorch in ExecuTorch's own runtime. $BVE_TINY_PTE: what write_pte.py made of
// valid_tiny.bve.
#include <executorch/runtime/backend/interface.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bve.h"
#include "bve_executorch.h"
#include "doctest.h"
#include "doors/executorch_file.h"
#include "doors/pixels.h"
#include "program_builder.h"

namespace bve::test {
namespace {

using namespace executorch::runtime;
using executorch::aten::ScalarType;
using executorch::aten::TensorImpl;
using executorch::runtime::Error;  // not the core's
using executorch::runtime::Program;

constexpr char kBackend[] = "libbve_executorch";
constexpr size_t kClasses = 3;

Bytes read_file() { return read_file_of("BVE_TINY_PTE"); }

// Where the .bve lies in the file.
size_t find_program(Bytes& bytes) {
  const std::string text(reinterpret_cast<char*>(bytes.data()), bytes.count());
  const size_t start = text.find("BVE1");
  REQUIRE(start % 64 == 0);
  return start;
}

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

// A method [image] -> [logits].
struct Classifier : Loaded {
  using Loaded::Loaded;

  Error execute(void* image, ScalarType type = ScalarType::Float, int columns = 4) {
    return execute(image, type, {1, 3, 4, columns});
  }
  Error execute(void* image, ScalarType type, std::array<TensorImpl::SizesType, 4> shape) {
    TensorImpl::SizesType sizes[]{shape[0], shape[1], shape[2], shape[3]};
    TensorImpl::DimOrderType order[]{0, 1, 2, 3};
    TensorImpl input(type, 4, sizes, image, order);
    const Error error = method->set_input(executorch::aten::Tensor(&input), 0);
    return error == Error::Ok ? method->execute() : error;
  }
  std::vector<float> run(std::vector<float> image) {
    return execute(image.data()) == Error::Ok ? read_output(0) : std::vector<float>{};
  }
};

BackendOption make_option(const char* key, OptionValue value) {
  BackendOption option{{}, value};
  std::strcpy(option.key, key);
  return option;
}

TEST_CASE("the runtime says what the core says, of one copy of the program") {
  for (size_t behind : {0, 16, 48}) {
    Opened opened(read_file(), behind);
    REQUIRE(opened.program.ok());
    const int before = opened.loader.held();
    {
      Classifier first(*opened.program, "keep_1"), second(*opened.program, "keep_0_5");
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

TEST_CASE("a delegate that says other things than ours is refused") {
  Bytes bytes = read_file();
  const std::string text(reinterpret_cast<char*>(bytes.data()), find_program(bytes));
  const std::string key("\4\0\0\0keep\0", 9);  // the compile spec's, as a flatbuffer has it
  size_t found = 0;
  for (size_t at = text.find(key); at != text.npos; at = text.find(key, at + 1), found++)
    bytes.data()[at + 4] = std::byte{'d'};
  REQUIRE(found > 0);
  CHECK(Opened(bytes).load("keep_1") == Error::DelegateInvalidCompatibility);
  const std::string told = take_error();
  CHECK_MESSAGE(has(told, "a delegate of another layout, expected version "), told);
  CHECK(has(told, "export the model again"));
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
    Classifier loaded(*opened.program, name);
    REQUIRE(loaded.method.ok());
    CHECK(loaded.execute(image, type, columns) == Error::InvalidArgument);
    return take_error();
  };
  const std::string expected =
      ", expected float32 [1, 3, 4, 4], or uint8 [1, 4, 4, 3] or [1, 3, 4, 4], packed; give it as "
      "the method's metadata has its input";
  CHECK(ask("double", ScalarType::Double, 4) == "an image of another type [1, 3, 4, 4]" + expected);
  CHECK(ask("channels_last", ScalarType::Float, 4) ==
        "an image of float32 [1, 3, 4, 4] of another order in memory" + expected);
  CHECK(ask("wide", ScalarType::Float, 5) == "an image of float32 [1, 3, 4, 5]" + expected);
  Classifier turned(*opened.program, "packed_floats");
  REQUIRE(turned.method.ok());
  REQUIRE(turned.execute(image, ScalarType::Float, {1, 4, 4, 3}) == Error::InvalidArgument);
  CHECK(take_error() == "an image of float32 [1, 4, 4, 3]" + expected);
}

TEST_CASE("pixels are taken where they are the method's input") {
  Opened opened(read_file());
  Pixels pixels(3);
  Classifier packed(*opened.program, "pixels"), planar(*opened.program, "planar_pixels");
  REQUIRE((packed.method.ok() && planar.method.ok()));
  REQUIRE(packed.execute(pixels.packed.data(), ScalarType::Byte, {1, 4, 4, 3}) == Error::Ok);
  CHECK(packed.read_output(0) == ask_core(pixels.image, 1));
  REQUIRE(planar.execute(pixels.planar.data(), ScalarType::Byte) == Error::Ok);
  CHECK(planar.read_output(0) == ask_core(pixels.image, 1));
  Classifier few(*opened.program, "few_pixels");
  REQUIRE(few.method.ok());
  CHECK(few.execute(pixels.packed.data(), ScalarType::Byte, {1, 4, 3, 3}) ==
        Error::InvalidArgument);
  CHECK(has(take_error(), "an image of uint8 [1, 4, 3, 3], expected "));
}

TEST_CASE("a frame is taken once, by the next delegate that its thread executes") {
  Opened opened(read_file());
  Classifier first(*opened.program, "keep_1"), second(*opened.program, "keep_0_5");
  Pixels pixels(3), others(4);
  const auto image = draw_image();
  bve_frame frame = pixels.describe();
  bve_executorch_set_frame(&frame);
  frame = others.describe();  // it was copied
  CHECK(first.run(image) == ask_core(pixels.image, 1));
  CHECK(first.run(image) == ask_core(image, 1));
  bve_executorch_set_frame(&frame);
  CHECK(second.run(image) == ask_core(others.image, 0.5f));
  CHECK(first.run(image) == ask_core(image, 1));
  bve_executorch_set_frame(&frame);
  bve_executorch_set_frame(nullptr);
  CHECK(first.run(image) == ask_core(image, 1));

  double other[kPixels]{};  // the tensor is not looked at
  Classifier wide(*opened.program, "double");
  bve_executorch_set_frame(&frame);
  REQUIRE(wide.execute(other, ScalarType::Double) == Error::Ok);
  CHECK(wide.read_output(0) == ask_core(others.image, 1));
  CHECK(take_error().empty());
}

TEST_CASE("a frame that cannot be is told when it is used, and is gone then") {
  Opened opened(read_file());
  Classifier loaded(*opened.program, "keep_1");
  const Pixels pixels(3);
  const auto image = draw_image();
  bve_frame frame = pixels.describe();
  frame.rotation = 45;
  bve_executorch_set_frame(&frame);
  CHECK(loaded.run(image).empty());
  CHECK(has(take_error(), "45"));
  CHECK(loaded.run(image) == ask_core(image, 1));
}

TEST_CASE("frames of eight threads do not meet") {
  Opened opened(read_file());
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 8; i++) {
    threads.emplace_back([&, i] {
      const Pixels pixels(i + 1);
      const auto expected = ask_core(pixels.image, 0.5f);
      Classifier loaded(*opened.program, "keep_0_5");
      const auto image = draw_image();
      for (int round = 0; round < 40; round++) {
        const bve_frame frame = pixels.describe();
        bve_executorch_set_frame(&frame);
        wrong += loaded.run(image) != expected;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("eight methods in each of eight threads run while others come and go") {
  Opened opened(read_file());
  const auto image = draw_image(), expected = ask_core(image, 0.5f);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; i++) {
    threads.emplace_back([&] {
      std::vector<std::unique_ptr<Classifier>> methods(8);
      for (int round = 0; round < 40; round++) {
        auto& replaced = methods[round % methods.size()];
        replaced = std::make_unique<Classifier>(*opened.program, "keep_0_5");
        for (const auto& loaded : methods) wrong += loaded && loaded->run(image) != expected;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace bve::test
