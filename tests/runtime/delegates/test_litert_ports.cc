// A delegate of several inputs and outputs through TensorFlow Lite's C API. $BVE_PORTS_TFLITE: what
// write_tflite.py made of the program of ports_program.h; beside it, with .fewer behind the name,
// one whose op gives the first output alone.
#include <string>
#include <vector>

#include "bve.h"
#include "delegates/litert_file.h"
#include "doctest.h"
#include "ports_program.h"

namespace bve::test {
namespace {

std::vector<float> read_output(const Interpreter& runtime, int number) {
  const TfLiteTensor* const tensor =
      TfLiteInterpreterGetOutputTensor(runtime.interpreter.get(), number);
  std::vector<float> values(TfLiteTensorByteSize(tensor) / sizeof(float));
  TfLiteTensorCopyToBuffer(tensor, values.data(), values.size() * sizeof(float));
  return values;
}

void set_input(const Interpreter& runtime, int number, const std::vector<float>& values) {
  TfLiteTensor* const tensor = TfLiteInterpreterGetInputTensor(runtime.interpreter.get(), number);
  REQUIRE(TfLiteTensorCopyFromBuffer(tensor, values.data(), values.size() * sizeof(float)) ==
          kTfLiteOk);
}

TEST_CASE("every output of every input is what a step of the core says, and a loop") {
  const Bytes bytes = read_file_of("BVE_PORTS_TFLITE");
  Interpreter runtime(bytes);
  REQUIRE_MESSAGE(runtime.interpreter, runtime.text);
  REQUIRE_MESSAGE(runtime.allocate() == kTfLiteOk, runtime.text);
  for (const float first : {0.0f, 5.0f}) {
    const PortsCase given(first);
    set_input(runtime, 0, given.left);
    set_input(runtime, 1, given.right);
    REQUIRE_MESSAGE(TfLiteInterpreterInvoke(runtime.interpreter.get()) == kTfLiteOk, runtime.text);
    CHECK(read_output(runtime, 0) == given.turned);
    CHECK(read_output(runtime, 0) == ask_step(given, 2));
    CHECK(read_output(runtime, 1) == given.doubled);
    CHECK(read_output(runtime, 1) == ask_step(given, 3));
  }
}

TEST_CASE("other shapes are refused with the port's name, and the first still runs afterwards") {
  const Bytes bytes = read_file_of("BVE_PORTS_TFLITE");
  Interpreter runtime(bytes);
  REQUIRE_MESSAGE(runtime.interpreter, runtime.text);
  REQUIRE(runtime.resize({1, 8}) == kTfLiteOk);
  CHECK(runtime.allocate() != kTfLiteOk);
  CHECK_MESSAGE(has(runtime.text,
                    "libbve_litert: left of float32 [1, 8], expected float32 [1, 2, 4], packed; "
                    "give it as the model has its input"),
                runtime.text);
  REQUIRE(runtime.resize({1, 2, 4}) == kTfLiteOk);
  REQUIRE(runtime.allocate() == kTfLiteOk);
  const PortsCase given;
  set_input(runtime, 0, given.left);
  set_input(runtime, 1, given.right);
  REQUIRE(TfLiteInterpreterInvoke(runtime.interpreter.get()) == kTfLiteOk);
  CHECK(read_output(runtime, 0) == given.turned);
}

TEST_CASE("an op of fewer outputs than the program is refused") {
  const Bytes bytes = read_file_of("BVE_PORTS_TFLITE", ".fewer");
  Interpreter runtime(bytes);
  REQUIRE_MESSAGE(runtime.interpreter, runtime.text);
  CHECK(runtime.allocate() != kTfLiteOk);
  CHECK_MESSAGE(has(runtime.text,
                    "libbve_litert: 2 tensors in and 1 out, expected as many as the program's "
                    "left, right -> turned, doubled; export the model again"),
                runtime.text);
}

}  // namespace
}  // namespace bve::test
