// The door to LiteRT through TensorFlow Lite's C API. $BVE_TINY_TFLITE: what write_tflite.py made
// of valid_tiny.bve; beside it, with .pixels behind the name, the same with uint8 as its input.
#include <array>
#include <atomic>
#include <cstdarg>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bve.h"
#include "bve_litert.h"
#include "doctest.h"
#include "doors/pixels.h"
#include "program_builder.h"
#include "tensorflow/lite/c/c_api.h"

namespace bve::test {
namespace {

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;
using Options = std::vector<std::pair<const char*, const char*>>;

constexpr size_t kClasses = 3;
thread_local std::string refusal;  // what the last delegate was refused with

Bytes read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  return {bytes.data(), bytes.size()};
}

const Bytes& read_pixels_file() {
  static const Bytes bytes =
      read((std::string(std::getenv("BVE_TINY_TFLITE")) + ".pixels").c_str());
  REQUIRE(bytes.count() > 0);
  return bytes;
}

const Bytes& read_file() {
  static const char* const path = std::getenv("BVE_TINY_TFLITE");
  REQUIRE_MESSAGE(path, "set BVE_TINY_TFLITE to what write_tflite.py wrote");
  static const Bytes bytes = read(path);
  REQUIRE(bytes.count() > 0);
  return bytes;
}

// What the core says itself.
std::vector<float> ask_core(const std::vector<float>& image) {
  bve_program* const program =
      bve_open(BVE_SOURCE_DIR "/tests/runtime/corpus/valid_tiny.bve", nullptr);
  bve_session* const session = bve_start(program, 1, nullptr, nullptr);
  std::vector<float> logits(kClasses);
  REQUIRE(bve_run(session, image.data(), kPixels, logits.data(), kClasses, nullptr) == 0);
  bve_stop(session);
  bve_close(program);
  return logits;
}

Owned<TfLiteDelegate> make_delegate(const Options& options = {}) {
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : options) keys.push_back(key), values.push_back(value);
  refusal.clear();
  const auto report = [](const char* text) { refusal = text; };
  return {tflite_plugin_create_delegate(keys.data(), values.data(), options.size(), report),
          tflite_plugin_destroy_delegate};
}

// An interpreter with a delegate of its own, on bytes that outlive it.
struct Runtime {
  std::string text;  // what the runtime reported
  Owned<TfLiteDelegate> delegate;
  Owned<TfLiteModel> model;
  Owned<TfLiteInterpreter> interpreter{nullptr, TfLiteInterpreterDelete};

  explicit Runtime(const Bytes& bytes, const Options& options = {}, int threads = 0)
      : delegate(make_delegate(options)),
        model(TfLiteModelCreate(const_cast<Bytes&>(bytes).data(), bytes.count()),
              TfLiteModelDelete) {
    REQUIRE_MESSAGE(delegate, refusal);
    REQUIRE(model);
    const Owned<TfLiteInterpreterOptions> given(TfLiteInterpreterOptionsCreate(),
                                                TfLiteInterpreterOptionsDelete);
    TfLiteInterpreterOptionsAddDelegate(given.get(), delegate.get());
    if (threads) TfLiteInterpreterOptionsSetNumThreads(given.get(), threads);
    const auto report = [](void* to, const char* format, va_list arguments) {
      char line[1024];
      std::vsnprintf(line, sizeof line, format, arguments);
      *static_cast<std::string*>(to) += line;
    };
    TfLiteInterpreterOptionsSetErrorReporter(given.get(), report, &text);
    interpreter.reset(TfLiteInterpreterCreate(model.get(), given.get()));
  }
  TfLiteStatus allocate() { return TfLiteInterpreterAllocateTensors(interpreter.get()); }
  TfLiteStatus resize(const std::vector<int>& shape) {
    return TfLiteInterpreterResizeInputTensor(interpreter.get(), 0, shape.data(), shape.size());
  }
  std::vector<float> run(const std::vector<float>& image) {
    return run(image.data(), kPixels * sizeof(float));
  }
  std::vector<float> run(const void* image, size_t bytes) {
    std::vector<float> logits(kClasses, -1);
    TfLiteTensorCopyFromBuffer(TfLiteInterpreterGetInputTensor(interpreter.get(), 0), image, bytes);
    if (TfLiteInterpreterInvoke(interpreter.get()) != kTfLiteOk) return {};
    TfLiteTensorCopyToBuffer(TfLiteInterpreterGetOutputTensor(interpreter.get(), 0), logits.data(),
                             kClasses * sizeof(float));
    return logits;
  }
};

bool has(const std::string& text, const char* part) { return text.find(part) != text.npos; }

TEST_CASE("the runtime says what the core says") {
  Runtime runtime(read_file());
  REQUIRE_MESSAGE(runtime.interpreter, runtime.text);
  REQUIRE(runtime.allocate() == kTfLiteOk);
  for (uint32_t seed : {7, 8}) CHECK(runtime.run(draw_image(seed)) == ask_core(draw_image(seed)));
}

TEST_CASE("options are checked when the delegate is made") {
  CHECK(make_delegate({{"threads", "1"}, {"little_threads", "0"}, {"pin", "0"}}));
  CHECK(!make_delegate({{"thread", "1"}}));
  CHECK(refusal ==
        "libbve_litert: unknown option thread, expected threads, little_threads, pin, spin_us or "
        "choose");
  for (const char* value : {"two", "0", "-1", "1.5", "", "99999999999"}) {
    CHECK(!make_delegate({{"threads", value}}));
    CHECK(has(refusal, "expected a whole number from 1"));
  }
  for (const Options& options : {Options{{nullptr, "1"}}, Options{{"threads", nullptr}}}) {
    CHECK(!make_delegate(options));
    CHECK(refusal == "libbve_litert: an option that is null, expected text");
  }
  const char *key = "no", *value = "";
  CHECK(!tflite_plugin_create_delegate(&key, &value, 1, nullptr));
}

TEST_CASE("threads are the option's, refused where there are fewer cores; else the interpreter's") {
  Runtime asked(read_file(), {{"threads", "65000"}}, 1);
  REQUIRE(asked.interpreter);
  CHECK(asked.allocate() == kTfLiteDelegateError);
  CHECK(has(asked.text, "libbve_litert: 65000 threads, expected 1 to "));
  for (const Options& options : {Options{{"threads", "1"}}, Options{}}) {
    Runtime runtime(read_file(), options, 65000);
    REQUIRE(runtime.interpreter);
    CHECK(runtime.allocate() == kTfLiteOk);
  }
}

TEST_CASE("another shape is refused, and the first still runs afterwards") {
  Runtime runtime(read_file());
  for (const std::vector<int>& shape : {std::vector<int>{1, 4, 4, 3}, {2, 3, 4, 4}, {48}}) {
    runtime.text.clear();
    REQUIRE(runtime.resize(shape) == kTfLiteOk);
    CHECK(runtime.allocate() != kTfLiteOk);
    CHECK(has(runtime.text,
              ", expected float32 [1, 3, 4, 4] or uint8 [1, 4, 4, 3] or uint8 [1, 3, 4, 4]"));
  }
  CHECK(has(runtime.text, "libbve_litert: image is float32 [48], "));
  REQUIRE(runtime.resize({1, 3, 4, 4}) == kTfLiteOk);
  REQUIRE(runtime.allocate() == kTfLiteOk);
  CHECK(runtime.run(draw_image()) == ask_core(draw_image()));
}

// Where the program starts in a file.
size_t find_program(Bytes& bytes) {
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.count());
  const size_t start = text.find("BVE1");
  REQUIRE(start % 64 == 0);
  return start;
}

TEST_CASE("a program of another version, or damaged, is refused when the delegate is applied") {
  for (const auto& [offset, fault] : {std::pair{4, "version at offset 4 is "}, {100, "checksum"}}) {
    Bytes bytes = read_file();
    bytes.data()[find_program(bytes) + offset] ^= std::byte{8};
    Runtime runtime(bytes);
    CHECK(!runtime.interpreter);
    CHECK_MESSAGE(has(runtime.text, fault), runtime.text);
    CHECK(runtime.text.rfind("libbve_litert: ", 0) == 0);
  }
}

TEST_CASE("interpreters of the same bytes share one program, which goes with the last of them") {
  Bytes bytes = read_file();
  {
    const Runtime first(bytes);
    bytes.data()[find_program(bytes) + 4] ^= std::byte{8};  // who opens it now is refused
    CHECK(Runtime(bytes).interpreter);
  }
  CHECK(!Runtime(bytes).interpreter);
}

TEST_CASE("pixels are taken where they are the file's input") {
  Runtime runtime(read_pixels_file());
  REQUIRE_MESSAGE(runtime.interpreter, runtime.text);
  const Pixels pixels(3);
  REQUIRE_MESSAGE(runtime.allocate() == kTfLiteOk, runtime.text);
  CHECK(runtime.run(pixels.packed.data(), kPixels) == ask_core(pixels.image));
  REQUIRE(runtime.resize({1, 3, 4, 4}) == kTfLiteOk);
  REQUIRE_MESSAGE(runtime.allocate() == kTfLiteOk, runtime.text);
  CHECK(runtime.run(pixels.planar.data(), kPixels) == ask_core(pixels.image));
  REQUIRE(runtime.resize({1, 4, 3, 3}) == kTfLiteOk);
  CHECK(runtime.allocate() != kTfLiteOk);
  CHECK(has(runtime.text, "libbve_litert: image is uint8 [1, 4, 3, 3], expected float32 "));
}

TEST_CASE("a frame is taken once, by the next run of its delegate") {
  Runtime first(read_file()), second(read_file());
  REQUIRE((first.allocate() == kTfLiteOk && second.allocate() == kTfLiteOk));
  const Pixels pixels(3), others(4);
  const auto image = draw_image();
  bve_frame frame = pixels.describe();
  bve_litert_set_frame(first.delegate.get(), &frame);
  frame = others.describe();  // it was copied
  CHECK(second.run(image) == ask_core(image));
  CHECK(first.run(image) == ask_core(pixels.image));
  CHECK(first.run(image) == ask_core(image));
  bve_litert_set_frame(first.delegate.get(), &frame);
  bve_litert_set_frame(first.delegate.get(), nullptr);
  CHECK(first.run(image) == ask_core(image));

  frame.rotation = 45;  // told when it is used, and gone then
  bve_litert_set_frame(first.delegate.get(), &frame);
  CHECK(first.run(image).empty());
  CHECK_MESSAGE(has(first.text, "libbve_litert: "), first.text);
  CHECK(has(first.text, "45"));
  CHECK(first.run(image) == ask_core(image));
}

TEST_CASE("frames of eight delegates do not meet, and of one each is run once") {
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 8; i++) {
    threads.emplace_back([&, i] {
      const Pixels pixels(i + 1);
      const auto expected = ask_core(pixels.image);
      Runtime runtime(read_file());
      wrong += runtime.allocate() != kTfLiteOk;
      for (int round = 0; round < 40; round++) {
        const bve_frame frame = pixels.describe();
        std::thread([&] { bve_litert_set_frame(runtime.delegate.get(), &frame); }).join();
        wrong += runtime.run(draw_image()) != expected;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("eight interpreters in each of eight threads run while others come and go") {
  const auto image = draw_image(), expected = ask_core(image);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; i++) {
    threads.emplace_back([&] {
      std::vector<std::unique_ptr<Runtime>> runtimes(8);
      for (int round = 0; round < 40; round++) {
        auto& replaced = runtimes[round % runtimes.size()];
        replaced = std::make_unique<Runtime>(read_file());
        wrong += replaced->allocate() != kTfLiteOk;
        for (const auto& runtime : runtimes) wrong += runtime && runtime->run(image) != expected;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace bve::test
