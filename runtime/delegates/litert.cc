// The delegate for LiteRT: runs the custom op "libbve_litert" of a .tflite, whose options are a
// .bve.

#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "bve.h"
#include "bve_litert.h"
#include "error_text.h"
#include "litert_growth.h"
#include "port_call.h"
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

Argument describe(const TfLiteTensor& tensor) {
  return {tensor.type == kTfLiteFloat32 ? Element::kFloat
          : tensor.type == kTfLiteUInt8 ? Element::kByte
                                        : Element::kOther,
          tensor.dims->data, static_cast<size_t>(tensor.dims->size), tensor.data.data, ""};
}

// A custom op and what runs it. Tensors by their number, for they move.
struct Kernel {
  Delegate& delegate;
  Program program;
  float keep;
  std::vector<int> inputs, outputs;
  Session session{nullptr, bve_stop};
  std::optional<PortCall> call{};

  // Those of now.
  void describe_tensors(const TfLiteContext& context) {
    size_t port = 0;
    for (const auto* const numbers : {&inputs, &outputs}) {
      for (const int number : *numbers) (*call)[port++] = describe(context.tensors[number]);
    }
  }
};

thread_local bve_error failure;
thread_local bool is_told = true;

// From now on this thread's last failure.
void keep(const bve_error& failed) {
  failure = failed;
  is_told = false;
}

TfLiteStatus refuse(TfLiteContext* context, const bve_error& failed) {
  keep(failed);
  context->ReportError(context, "%s: %s\n", kName, failed.text);
  return kTfLiteDelegateError;
}

// Allocates nothing: it also tells that memory ran out.
TfLiteStatus refuse(TfLiteContext* context, std::string_view met, std::string_view expected = "",
                    std::string_view to_do = "") {
  bve_error failed;
  set_error(&failed, met, expected, to_do);
  return refuse(context, failed);
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

// ---- the kernel ---------------------------------------------------------------------------------

// `parameters`: TfLiteDelegateParams. Null, which prepare reports, where it failed.
void* init(TfLiteContext* context, const char* parameters, size_t) try {
  const auto* const given = reinterpret_cast<const TfLiteDelegateParams*>(parameters);
  TfLiteNode* node = nullptr;
  TfLiteRegistration* registration = nullptr;
  const int index = given->nodes_to_replace->data[0];
  if (context->GetNodeAndRegistration(context, index, &node, &registration)) return nullptr;
  auto& delegate = *static_cast<Delegate*>(given->delegate->data_);
  const TfLiteIntArray &inputs = *node->inputs, &outputs = *node->outputs;
  const int* const keep = inputs.data + inputs.size - 1;
  return new Kernel{delegate,
                    open_program(*node, nullptr),
                    *context->tensors[*keep].data.f,
                    {inputs.data, keep},
                    {outputs.data, outputs.data + outputs.size}};
} catch (const std::bad_alloc&) {
  return nullptr;
}

void release(TfLiteContext*, void* kernel) { delete static_cast<Kernel*>(kernel); }

TfLiteStatus prepare(TfLiteContext* context, TfLiteNode* node) try {
  auto* const kernel = static_cast<Kernel*>(node->user_data);
  if (!kernel || !kernel->program) {
    return refuse(context, "no kernel: out of memory, or the runtime did not hand over the op");
  }
  if (!kernel->call) {
    bve_options options = kernel->delegate.options;
    const auto recommended = static_cast<uint32_t>(std::max(1, context->recommended_num_threads));
    if (!options.threads) options.threads = std::min(recommended, bve_count_cores());
    bve_error error{};
    kernel->session.reset(bve_start(kernel->program.get(), kernel->keep, &options, &error));
    if (!kernel->session) return refuse(context, error);
    kernel->call.emplace(kernel->session.get());
  }
  PortCall& call = *kernel->call;
  const std::vector<int>& outputs = kernel->outputs;
  bve_error error{};
  if (call.check_counts(kernel->inputs.size(), outputs.size(), &error))
    return refuse(context, error);
  const int* const there = node->outputs->data;
  for (size_t i = 0; i < outputs.size(); i++) {
    if (std::count(there, there + node->outputs->size, outputs[i]) == 1) continue;
    // the runtime gives it no memory then
    return refuse(context, std::string(call.name(call.inputs() + i)) + " that nothing reads",
                  "an output of the graph, or an op that reads it", "export the model again");
  }
  kernel->describe_tensors(*context);
  for (size_t i = 0; i < call.count(); i++) {
    if (call.check(i, &error)) return refuse(context, error);
  }
  return kTfLiteOk;
} catch (const std::bad_alloc&) {
  return refuse(context, "out of memory");
}

TfLiteStatus invoke(TfLiteContext* context, TfLiteNode* node) {
  auto& kernel = *static_cast<Kernel*>(node->user_data);
  kernel.describe_tensors(*context);
  const auto frame = kernel.delegate.take_frame();
  bve_error error{};
  return kernel.call->run(frame ? &*frame : nullptr, &error) ? refuse(context, error) : kTfLiteOk;
}

constexpr TfLiteRegistration kRegistration{init, release, prepare, invoke, nullptr, 0, kName, 1};

// ---- the delegate -------------------------------------------------------------------------------

// Inputs, a keep ratio that is known beforehand, and outputs; none is left out.
bool has_signature(const TfLiteContext& context, const TfLiteNode& node) {
  for (const auto* const tensors : {node.inputs, node.outputs}) {
    for (int i = 0; i < tensors->size; i++) {
      if (tensors->data[i] < 0) return false;
    }
  }
  if (node.inputs->size < 2 || node.outputs->size < 1) return false;
  const TfLiteTensor& keep = context.tensors[node.inputs->data[node.inputs->size - 1]];
  return keep.allocation_type == kTfLiteMmapRo && keep.type == kTfLiteFloat32 &&
         keep.bytes == sizeof(float);
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
    if (!has_signature(*context, *node)) {
      return refuse(context, "an op of other tensors",
                    "inputs, behind them a constant float32 keep, and outputs",
                    "export the model again");
    }
    if (!node->custom_initial_data || node->custom_initial_data_size <= 0)
      return refuse(context, "an op without options", "a program", "export the model again");
    bve_error error{};
    const Program program = open_program(*node, &error);
    if (!program) return refuse(context, error);
    if (const auto status = replace_node(context, kRegistration, index, delegate)) return status;
  }
  return kTfLiteOk;
} catch (const std::bad_alloc&) {
  return refuse(context, "out of memory");
}

// Whether it is set; what is wrong with it is in `error` if not.
bool set_option(bve_options& options, const std::string& key, const std::string& value,
                bve_error* error) {
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
    if (!sound) set_error(error, key + "=" + value, std::string("a whole number from ") + least);
    return sound;
  }
  set_error(error, "unknown option " + key, "threads, little_threads, pin, spin_us or choose");
  return false;
}

}  // namespace
}  // namespace bve

TfLiteDelegate* tflite_plugin_create_delegate(const char* const* options_keys,
                                              const char* const* options_values, size_t num_options,
                                              void (*report_error)(const char*)) try {
  auto delegate = std::make_unique<bve::Delegate>();
  for (size_t i = 0; i < num_options; i++) {
    const char *const key = options_keys[i], *const value = options_values[i];
    bve_error error{};
    if (!key || !value) {
      bve::set_error(&error, "an option that is null", "text");
    } else if (bve::set_option(delegate->options, key, value, &error)) {
      continue;
    }
    bve::keep(error);
    if (report_error) report_error((std::string(bve::kName) + ": " + error.text).c_str());
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

int bve_litert_error_parts(bve_parts* parts) {
  const bool has_failed = !std::exchange(bve::is_told, true);
  if (has_failed) bve_error_parts(&bve::failure, parts);
  return has_failed;
}

void bve_litert_set_frame(TfLiteDelegate* delegate, const bve_frame* frame) {
  static_cast<bve::Delegate*>(delegate->data_)->set_frame(frame);
}

void tflite_plugin_destroy_delegate(TfLiteDelegate* delegate) {
  if (delegate) delete static_cast<bve::Delegate*>(delegate->data_);
}
