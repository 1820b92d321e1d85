// What the door to LiteRT hands its runtime, and what it takes, by a context of our own.
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "bve_litert.h"
#include "doctest.h"
#include "tensorflow/lite/c/common.h"
#include "tiny_program.h"

namespace bve {

// TfLiteDelegate and TfLiteRegistration as LiteRT 2.3 has them.
struct GrownDelegate {
  TfLiteDelegate delegate;
  void* opaque_delegate_builder;
};
struct GrownRegistration {
  TfLiteRegistration registration;
  void* tail[2];
  uint64_t flags;
};

namespace test {
namespace {

using Delegate = std::unique_ptr<TfLiteDelegate, decltype(&tflite_plugin_destroy_delegate)>;

TfLiteDelegate* make_delegate() {
  return tflite_plugin_create_delegate(nullptr, nullptr, 0, nullptr);
}

// ------------------------------------------------------------------

struct FakeContext {
  TfLiteContext base{};
  Bytes program = make_tiny_program({bve_f32p});
  TfLiteRegistration registration{};
  TfLiteNode node{};
  TfLiteTensor tensors[3]{};
  int lists[3][3] = {{2, 0, 1}, {1, 2}, {1, 0}};  // inputs, outputs, plan: a count, then numbers
  float keep = 1;
  std::vector<GrownRegistration> taken;
  std::string text;
};
FakeContext* fake = nullptr;

void report(TfLiteContext*, const char* format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  fake->text += line;
}

TfLiteStatus take(TfLiteContext*, GrownRegistration grown, const TfLiteIntArray* nodes,
                  TfLiteDelegate*) {
  CHECK(nodes->size == 1);
  CHECK(nodes->data[0] == 0);
  fake->taken.push_back(grown);
  return kTfLiteOk;
}

void fill(FakeContext& context) {
  fake = &context;
  const auto list = [&](int i) { return reinterpret_cast<TfLiteIntArray*>(context.lists[i]); };
  context.registration.custom_name = "libbve_litert";
  context.node.inputs = list(0);
  context.node.outputs = list(1);
  context.node.custom_initial_data = context.program.data();
  context.node.custom_initial_data_size = static_cast<int>(context.program.count());
  context.tensors[1].type = kTfLiteFloat32;
  context.tensors[1].allocation_type = kTfLiteMmapRo;
  context.tensors[1].bytes = sizeof(float);
  context.tensors[1].data.f = &context.keep;
  context.base.tensors = context.tensors;
  context.base.GetExecutionPlan = [](TfLiteContext*, TfLiteIntArray** plan) {
    *plan = reinterpret_cast<TfLiteIntArray*>(fake->lists[2]);
    return kTfLiteOk;
  };
  context.base.GetNodeAndRegistration = [](TfLiteContext*, int, TfLiteNode** node,
                                           TfLiteRegistration** registration) {
    *node = &fake->node;
    *registration = &fake->registration;
    return kTfLiteOk;
  };
  context.base.ReportError = report;
  context.base.ReplaceNodeSubsetsWithDelegateKernels =
      reinterpret_cast<decltype(context.base.ReplaceNodeSubsetsWithDelegateKernels)>(
          reinterpret_cast<void (*)()>(take));
}

// What a runtime does with a registration that it was handed for the op.
void* init_kernel(FakeContext& context, const TfLiteRegistration& kernel,
                  TfLiteDelegate* delegate) {
  TfLiteDelegateParams given{};
  given.delegate = delegate;
  given.nodes_to_replace = reinterpret_cast<TfLiteIntArray*>(context.lists[2]);
  return kernel.init(&context.base, reinterpret_cast<const char*>(&given), sizeof given);
}

TEST_CASE("a registration ends in zeros where newer runtimes look") {
  FakeContext context;
  fill(context);
  const Delegate delegate(make_delegate(), tflite_plugin_destroy_delegate);
  CHECK((delegate->flags & kTfLiteDelegateFlagsAllowDynamicTensors) != 0);
  REQUIRE(delegate->Prepare(&context.base, delegate.get()) == kTfLiteOk);
  REQUIRE(context.taken.size() == 1);
  const GrownRegistration& grown = context.taken[0];
  CHECK(bool(grown.registration.init));
  CHECK(grown.registration.version == 1);
  CHECK(!grown.tail[0]);
  CHECK(!grown.tail[1]);
  CHECK(grown.flags == 0);
}

TEST_CASE("a delegate ends in a null pointer where newer runtimes look") {
  const char *key = "threads", *value = "1";
  const Delegate delegate(tflite_plugin_create_delegate(&key, &value, 1, nullptr),
                          tflite_plugin_destroy_delegate);
  REQUIRE(delegate);
  CHECK(!reinterpret_cast<const GrownDelegate*>(delegate.get())->opaque_delegate_builder);
}

TEST_CASE("an op that the runtime does not hand over is told when it is prepared") {
  FakeContext context;
  fill(context);
  const Delegate delegate(make_delegate(), tflite_plugin_destroy_delegate);
  REQUIRE(delegate->Prepare(&context.base, delegate.get()) == kTfLiteOk);
  const TfLiteRegistration& kernel = context.taken.at(0).registration;
  context.base.GetNodeAndRegistration = [](TfLiteContext*, int, TfLiteNode**,
                                           TfLiteRegistration**) { return kTfLiteError; };
  TfLiteNode node{};
  node.user_data = init_kernel(context, kernel, delegate.get());
  CHECK(!node.user_data);
  CHECK(kernel.prepare(&context.base, &node) == kTfLiteDelegateError);
  CHECK(context.text ==
        "libbve_litert: no kernel: out of memory, or the runtime did not hand over the op\n");
  kernel.free(&context.base, node.user_data);
}

TEST_CASE("an op without a program is refused") {
  for (const bool null : {true, false}) {
    FakeContext context;
    fill(context);
    const Delegate delegate(make_delegate(), tflite_plugin_destroy_delegate);
    if (null) context.node.custom_initial_data = nullptr;
    context.node.custom_initial_data_size = 0;
    CHECK(delegate->Prepare(&context.base, delegate.get()) == kTfLiteDelegateError);
    CHECK(context.text ==
          "libbve_litert: an op without options, expected a program; export the model again\n");
    CHECK(context.taken.empty());
  }
}

TEST_CASE("ops of others are left alone, and ours with other tensors refused") {
  FakeContext context;
  fill(context);
  const Delegate delegate(make_delegate(), tflite_plugin_destroy_delegate);
  for (const char* name : {"another", static_cast<const char*>(nullptr)}) {
    context.registration.custom_name = name;
    CHECK(delegate->Prepare(&context.base, delegate.get()) == kTfLiteOk);
  }
  context.registration.custom_name = "libbve_litert";
  context.tensors[1].allocation_type = kTfLiteArenaRw;  // a ratio that is not known beforehand
  CHECK(delegate->Prepare(&context.base, delegate.get()) == kTfLiteDelegateError);
  CHECK(context.text ==
        "libbve_litert: an op without inputs [image, constant float32 keep], output logits\n");
  context.tensors[1].allocation_type = kTfLiteMmapRo;
  context.lists[1][1] = -1;  // an output that is left out
  CHECK(delegate->Prepare(&context.base, delegate.get()) == kTfLiteDelegateError);
  context.lists[1][1] = 2;
  context.lists[0][0] = 1;
  CHECK(delegate->Prepare(&context.base, delegate.get()) == kTfLiteDelegateError);
  CHECK(context.taken.empty());
  context.lists[0][0] = 2;
  CHECK(delegate->Prepare(&context.base, delegate.get()) == kTfLiteOk);
}

TEST_CASE("logits that nothing reads are refused when the op is prepared") {
  FakeContext context;
  fill(context);
  const Delegate delegate(make_delegate(), tflite_plugin_destroy_delegate);
  REQUIRE(delegate->Prepare(&context.base, delegate.get()) == kTfLiteOk);
  const TfLiteRegistration& kernel = context.taken.at(0).registration;
  int none[] = {0};
  TfLiteNode node{};
  node.user_data = init_kernel(context, kernel, delegate.get());
  REQUIRE(node.user_data);
  node.outputs = reinterpret_cast<TfLiteIntArray*>(none);
  CHECK(kernel.prepare(&context.base, &node) == kTfLiteDelegateError);
  CHECK(context.text ==
        "libbve_litert: logits that nothing reads, expected an output of the graph\n");
  kernel.free(&context.base, node.user_data);
}

}  // namespace
}  // namespace test
}  // namespace bve
