// A .tflite in memory, and an interpreter of it, through TensorFlow Lite's C API.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bve_litert.h"
#include "doctest.h"
#include "program_builder.h"
#include "tensorflow/lite/c/c_api.h"

namespace bve::test {

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;
using Options = std::vector<std::pair<const char*, const char*>>;

inline thread_local std::string refusal;  // what the last delegate was refused with

// The file that the environment names by that word, with those letters behind its name.
inline Bytes read_file_of(const char* word, const std::string& behind = "") {
  const char* const path = std::getenv(word);
  REQUIRE_MESSAGE(path, "set ", word, " to what write_tflite.py wrote");
  std::ifstream file(path + behind, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  REQUIRE(!bytes.empty());
  return {bytes.data(), bytes.size()};
}

inline Owned<TfLiteDelegate> make_delegate(const Options& options = {}) {
  std::vector<const char*> keys, values;
  for (const auto& [key, value] : options) keys.push_back(key), values.push_back(value);
  refusal.clear();
  const auto report = [](const char* text) { refusal = text; };
  return {tflite_plugin_create_delegate(keys.data(), values.data(), options.size(), report),
          tflite_plugin_destroy_delegate};
}

// An interpreter with a delegate of its own, on bytes that outlive it.
struct Interpreter {
  std::string text;  // what the runtime reported
  Owned<TfLiteDelegate> delegate;
  Owned<TfLiteModel> model;
  Owned<TfLiteInterpreter> interpreter{nullptr, TfLiteInterpreterDelete};

  explicit Interpreter(const Bytes& bytes, const Options& options = {}, int threads = 0)
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
};

inline bool has(const std::string& text, const char* part) { return text.find(part) != text.npos; }

}  // namespace bve::test
