// The door to LiteRT: runs the custom op "libbve_litert" of a .tflite, whose options are a .bve.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "bve.h"
#include "bve_litert.h"
#include "litert_growth.h"
#include "shared_programs.h"
#include "tensorflow/lite/c/common.h"

namespace bve {
namespace {

constexpr char kName[] = "libbve_litert";

using Program = std::shared_ptr<bve_program>;
using Session = std::unique_ptr<bve_session, decltype(&bve_stop)>;

struct Delegate {
  GrownDelegate base{};
  bve_options options{
      BVE_ABI_VERSION, 0, 0, 0, 0, 0, 0};  // threads 0: as many as the interpreter's

  void set_frame(const bve_frame* next) {
    const std::lock_guard<std::mutex> lock(mutex_);
    frame_ = next ? std::optional(*next) : std::nullopt;
  }
  std::optional<bve_frame> take_frame() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(frame_, std::nullopt);
  }

 private:
  std::mutex mutex_;
  std::optional<bve_frame> frame_;
};

// A custom op and what runs it. Tensors by their number, for they move.
struct Kernel {
  Delegate& delegate;
  Program program;
  float keep;
  int image, logits;
  Session session{nullptr, bve_stop};
};

// Allocates nothing: it also tells that memory ran out.
TfLiteStatus refuse(TfLiteContext* context, const char* text) {
  context->ReportError(context, "%s: %s\n", kName, text);
  return kTfLiteDelegateError;
}

Program open_program(const TfLiteNode& node, bve_error* error) {
  static auto& programs = *new SharedPrograms;  // threads may be in a run when the process exits
  const void* const data = node.custom_initial_data;
  const auto bytes = static_cast<size_t>(node.custom_initial_data_size);
  return programs.find_or_open({data, std::to_string(bytes)}, [&]() -> Program {
    bve_program* const program = bve_open_bytes(data, bytes, error);
    return program ? Program(program, bve_close) : nullptr;
  });
}

struct Kind {
  TfLiteType type;
  std::vector<size_t> shape;

  bool operator==(const Kind& other) const { return type == other.type && shape == other.shape; }
};

Kind get_kind(const TfLiteTensor& tensor) {
  return {tensor.type, {tensor.dims->data, tensor.dims->data + tensor.dims->size}};
}

std::string print(const Kind& kind) {
  std::string text;
  for (const size_t size : kind.shape) text += (text.empty() ? "[" : ", ") + std::to_string(size);
  return (kind.type == kTfLiteFloat32 ? "float32 "
          : kind.type == kTfLiteUInt8 ? "uint8 "
                                      : "of another type, ") +
         text + "]";
}

TfLiteStatus check_tensor(TfLiteContext* context, const char* name, int number,
                          const std::vector<Kind>& possible) {
  const Kind found = get_kind(context->tensors[number]);
  std::string expected;
  for (const Kind& kind : possible) {
    if (kind == found) return kTfLiteOk;
    expected += (expected.empty() ? "" : " or ") + print(kind);
  }
  return refuse(context, (name + (" is " + print(found)) + ", expected " + expected).c_str());
}

// ---- the kernel ---------------------------------------------------------------------------------

// `parameters`: TfLiteDelegateParams. Null, which prepare reports, where it failed.
void* init(TfLiteContext* context, const char* parameters, size_t) try {
  const auto* const given = reinterpret_cast<const TfLiteDelegateParams*>(parameters);
  TfLiteNode* node = nullptr;
  TfLiteRegistration* registration = nullptr;
  const int index = given->nodes_to_replace->data[0];
  if (context->GetNodeAndRegistration(context, index, &node, &registration)) return nullptr;
  auto& delegate = *static_cast<Delegate*>(given->delegate->data_);
  const float keep = *context->tensors[node->inputs->data[1]].data.f;
  return new Kernel{delegate, open_program(*node, nullptr), keep, node->inputs->data[0],
                    node->outputs->data[0]};
} catch (const std::bad_alloc&) {
  return nullptr;
}

void release(TfLiteContext*, void* kernel) { delete static_cast<Kernel*>(kernel); }

TfLiteStatus prepare(TfLiteContext* context, TfLiteNode* node) try {
  auto* const kernel = static_cast<Kernel*>(node->user_data);
  if (!kernel || !kernel->program) {
    return refuse(context, "no kernel: out of memory, or the runtime did not hand over the op");
  }
  if (!kernel->session) {
    bve_options options = kernel->delegate.options;
    const auto recommended = static_cast<uint32_t>(std::max(1, context->recommended_num_threads));
    if (!options.threads) options.threads = std::min(recommended, bve_count_cores());
    bve_error error{};
    kernel->session.reset(bve_start(kernel->program.get(), kernel->keep, &options, &error));
    if (!kernel->session) return refuse(context, error.text);
  }
  const int* const outputs = node->outputs->data;
  if (std::count(outputs, outputs + node->outputs->size, kernel->logits) != 1) {
    // the runtime gives them no memory then
    return refuse(context, "logits that nothing reads, expected an output of the graph");
  }
  const size_t pixels = bve_image_count(kernel->session.get());
  const auto size = static_cast<size_t>(std::lround(std::sqrt(pixels / 3)));
  const auto status = check_tensor(context, "image", kernel->image,
                                   {{kTfLiteFloat32, {1, 3, size, size}},
                                    {kTfLiteUInt8, {1, size, size, 3}},
                                    {kTfLiteUInt8, {1, 3, size, size}}});
  if (status != kTfLiteOk) return status;
  const size_t classes = bve_logits_count(kernel->session.get());
  return check_tensor(context, "logits", kernel->logits, {{kTfLiteFloat32, {1, classes}}});
} catch (const std::bad_alloc&) {
  return refuse(context, "out of memory");
}

TfLiteStatus invoke(TfLiteContext* context, TfLiteNode* node) {
  const auto& kernel = *static_cast<const Kernel*>(node->user_data);
  const TfLiteTensor& image = context->tensors[kernel.image];
  const TfLiteTensor& logits = context->tensors[kernel.logits];
  bve_session* const session = kernel.session.get();
  bve_error error{};
  const auto run = [&](const float* floats, size_t count) {
    return bve_run(session, floats, count, logits.data.f, logits.bytes / sizeof(float), &error);
  };
  int status;
  if (const auto frame = kernel.delegate.take_frame()) {
    status = bve_set_frame(session, &*frame, &error);
    if (!status) status = run(nullptr, 0);
  } else if (image.type == kTfLiteUInt8) {
    const bool is_planar = image.dims->data[3] != 3;
    status = bve_set_pixels(session, image.data.uint8, image.bytes, is_planar, &error);
    if (!status) status = run(nullptr, 0);
  } else {
    status = run(image.data.f, image.bytes / sizeof(float));
  }
  return status ? refuse(context, error.text) : kTfLiteOk;
}

constexpr TfLiteRegistration kRegistration{init, release, prepare, invoke, nullptr, 0, kName, 1};

// ---- the delegate -------------------------------------------------------------------------------

bool has_signature(const TfLiteContext& context, const TfLiteNode& node) {
  const TfLiteIntArray& inputs = *node.inputs;
  if (inputs.size != 2 || inputs.data[0] < 0 || inputs.data[1] < 0) return false;  // -1: left out
  const TfLiteTensor& keep = context.tensors[inputs.data[1]];
  return keep.allocation_type == kTfLiteMmapRo && keep.type == kTfLiteFloat32 &&
         keep.bytes == sizeof(float) && node.outputs->size == 1 && node.outputs->data[0] >= 0;
}

// Every op of ours becomes a kernel of its own. Their programs are opened here, where a failure can
// still be told, and found again by init.
TfLiteStatus take_ops(TfLiteContext* context, TfLiteDelegate* delegate) try {
  TfLiteIntArray* plan = nullptr;
  if (const auto status = context->GetExecutionPlan(context, &plan)) return status;
  const std::vector<int> indices(plan->data, plan->data + plan->size);
  for (const int index : indices) {
    TfLiteNode* node = nullptr;
    TfLiteRegistration* found = nullptr;
    if (const auto status = context->GetNodeAndRegistration(context, index, &node, &found))
      return status;
    if (!found->custom_name || std::strcmp(found->custom_name, kName) != 0) continue;
    if (!has_signature(*context, *node))
      return refuse(context, "an op without inputs [image, constant float32 keep], output logits");
    if (!node->custom_initial_data || node->custom_initial_data_size <= 0)
      return refuse(context, "an op without options, expected a program; export the model again");
    bve_error error{};
    const Program program = open_program(*node, &error);
    if (!program) return refuse(context, error.text);
    if (const auto status = replace_node(context, kRegistration, index, delegate)) return status;
  }
  return kTfLiteOk;
} catch (const std::bad_alloc&) {
  return refuse(context, "out of memory");
}

// What is wrong with an option; '' if nothing is.
std::string set_option(bve_options& options, const std::string& key, const std::string& value) {
  constexpr std::pair<const char*, uint32_t bve_options::*> kOptions[] = {
      {"threads", &bve_options::threads},
      {"little_threads", &bve_options::little_threads},
      {"pin", &bve_options::pin},
      {"spin_us", &bve_options::spin_us},
      {"choose", &bve_options::choose}};
  for (const auto& [name, field] : kOptions) {
    if (key != name) continue;
    const char* const end = value.data() + value.size();
    const auto [rest, fault] = std::from_chars(value.data(), end, options.*field);
    const bool sound = fault == std::errc() && rest == end && (key != "threads" || options.threads);
    const char* const least = key == "threads" ? "1" : "0";
    return sound ? "" : key + "=" + value + ", expected a whole number from " + least;
  }
  return "unknown option " + key + ", expected threads, little_threads, pin, spin_us or choose";
}

}  // namespace
}  // namespace bve

TfLiteDelegate* tflite_plugin_create_delegate(const char* const* options_keys,
                                              const char* const* options_values, size_t num_options,
                                              void (*report_error)(const char*)) try {
  auto delegate = std::make_unique<bve::Delegate>();
  for (size_t i = 0; i < num_options; i++) {
    const char *const key = options_keys[i], *const value = options_values[i];
    const auto fault = key && value ? bve::set_option(delegate->options, key, value)
                                    : std::string("an option that is null, expected text");
    if (fault.empty()) continue;
    if (report_error) report_error((std::string(bve::kName) + ": " + fault).c_str());
    return nullptr;
  }
  TfLiteDelegate& base = delegate->base.delegate;
  base.data_ = delegate.get();
  base.Prepare = bve::take_ops;
  // Runtimes that give a delegate their graph only once all its ops are known, unless it allows
  // tensors whose sizes are not: our op is known to nobody else.
  base.flags = kTfLiteDelegateFlagsAllowDynamicTensors;
  return &delegate.release()->base.delegate;
} catch (const std::bad_alloc&) {
  if (report_error) report_error("libbve_litert: out of memory");
  return nullptr;
}

void bve_litert_set_frame(TfLiteDelegate* delegate, const bve_frame* frame) {
  static_cast<bve::Delegate*>(delegate->data_)->set_frame(frame);
}

void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  if (delegate) delete static_cast<bve::Delegate*>(delegate->data_);
}
