// The door to ExecuTorch: a backend that runs a method's delegate, as bve_executorch.h says.
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/core/exec_aten/util/dim_order_util.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "bve_executorch.h"
#include "executorch_errors.h"
#include "executorch_threads.h"
#include "shared_programs.h"

namespace bve {
namespace {

using namespace executorch::runtime;
using executorch::aten::ScalarType;
using Text = std::array<char, kMaxOptionValueLength>;
using Session = std::unique_ptr<bve_session, decltype(&bve_stop)>;

constexpr char kName[] = "libbve_executorch";
constexpr Text kVersion{BVE_VERSION " for ExecuTorch " BVE_EXECUTORCH_VERSION};

thread_local std::optional<bve_frame> next_frame;

struct Delegate {
  std::shared_ptr<bve_program> program;
  Session session;
};

std::shared_ptr<bve_program> open(FreeableBuffer&& data) {
  const auto bytes = std::make_shared<FreeableBuffer>(std::move(data));
  bve_error error{};
  bve_program* const program = bve_open_bytes(bytes->data(), bytes->size(), &error);
  if (!program) return report(Error::DelegateInvalidCompatibility, "%s", error.text), nullptr;
  if (reinterpret_cast<uintptr_t>(bytes->data()) % 64) bytes->Free();  // it was copied
  return {program, [bytes](bve_program* closed) {
            bve_close(closed);
            bytes->Free();  // now: this function itself lives as long as a weak_ptr to the program
          }};
}

bool is_plain(const EValue& value, ScalarType type) {
  if (!value.isTensor()) return false;
  const auto& tensor = value.toTensor();
  return tensor.scalar_type() == type && tensor.const_data_ptr() &&
         is_contiguous_dim_order(tensor.dim_order().data(), tensor.dim());
}

using Shape = std::array<int, 4>;

bool is_image(const EValue& value, ScalarType type, const Shape& shape) {
  if (!is_plain(value, type)) return false;
  const auto sizes = value.toTensor().sizes();
  return std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end());
}

std::string print(const EValue& value) {
  if (!value.isTensor()) return "what is no tensor";
  const auto& tensor = value.toTensor();
  const ScalarType type = tensor.scalar_type();
  std::string text;
  for (const auto size : tensor.sizes()) text += (text.empty() ? "" : ", ") + std::to_string(size);
  text = (type == ScalarType::Float  ? "float32 ["
          : type == ScalarType::Byte ? "uint8 ["
                                     : "another type [") +
         text + "]";
  if (!tensor.const_data_ptr()) return text + " without memory";
  return is_plain(value, type) ? text : text + " of another order in memory";
}

// run: of floats and how many, or of none, for pixels that are set.
template <typename Run>
int run_image(bve_session* session, const EValue& image, const Run& run, bve_error* error) {
  const auto size = static_cast<int>(std::lround(std::sqrt(bve_image_count(session) / 3)));
  const Shape packed{1, size, size, 3}, planar{1, 3, size, size};
  if (is_image(image, ScalarType::Float, planar)) {
    const auto& floats = image.toTensor();
    return run(floats.const_data_ptr<float>(), floats.numel());
  }
  for (const Shape& shape : {packed, planar}) {
    if (!is_image(image, ScalarType::Byte, shape)) continue;
    const auto& pixels = image.toTensor();
    const int status = bve_set_pixels(session, pixels.const_data_ptr<uint8_t>(), pixels.numel(),
                                      shape != packed, error);
    return status ? status : run(nullptr, 0);
  }
  std::snprintf(error->text, sizeof error->text,
                "an image of %s, expected float32 [1, 3, %d, %d], or uint8 [1, %d, %d, 3] or "
                "[1, 3, %d, %d], packed; give it as the method's metadata has its input",
                print(image).c_str(), size, size, size, size, size, size);
  return 1;
}

class Backend final : public BackendInterface {
 public:
  bool is_available() const override { return true; }

  Result<DelegateHandle*> init(BackendInitContext& context, FreeableBuffer* processed,
                               ArrayRef<CompileSpec> specs) const override try {
    const NamedDataMap* const map = context.get_named_data_map();
    const std::string key(static_cast<const char*>(processed->data()), processed->size());
    float keep;
    if (!map || specs.size() != 1 || std::strcmp(specs[0].key, "keep") ||
        specs[0].value.nbytes != sizeof keep) {
      return report(Error::DelegateInvalidCompatibility,
                    "a delegate of another layout, expected version %s's; export the model again",
                    kVersion.data());
    }
    std::memcpy(&keep, specs[0].value.buffer, sizeof keep);
    processed->Free();
    int threads = threads_;
    if (const Error error = read_threads(context.runtime_specs(), &threads); error != Error::Ok)
      return error;

    Error cause = Error::DelegateInvalidCompatibility;
    auto program = programs_.find_or_open({map, key}, [&]() -> std::shared_ptr<bve_program> {
      auto data = map->get_data(key);
      if (data.ok()) return open(std::move(*data));
      cause = report(data.error(), "no data named %.80s; export the model again", key.c_str());
      return nullptr;
    });
    if (!program) return cause;
    if (!threads) threads = count_threads();
    const bve_options options{BVE_ABI_VERSION, static_cast<uint32_t>(threads), 0, 0, 0, 0, 0};
    bve_error text{};
    Session session(bve_start(program.get(), keep, &options, &text), bve_stop);
    if (!session) return report(Error::InvalidArgument, "%s", text.text);
    if (const size_t bytes = bve_repacked_bytes(program.get()))
      ET_LOG(Info, "%s: %zu bytes of weights packed anew for this CPU", kName, bytes);
    return new Delegate{std::move(program), std::move(session)};
  } catch (const std::exception& e) {
    return report(Error::MemoryAllocationFailed, "%s", e.what());
  }

  Error execute(BackendExecutionContext&, DelegateHandle* handle,
                Span<EValue*> values) const override try {
    const auto frame = std::exchange(next_frame, std::nullopt);
    bve_session* const session = static_cast<Delegate*>(handle)->session.get();
    if (values.size() != 2 || !is_plain(*values[1], ScalarType::Float)) {
      return report(Error::InvalidArgument,
                    "other tensors, expected an image, and float logits, packed");
    }
    const auto& logits = values[1]->toTensor();
    bve_error error{};
    const auto run = [&](const float* floats, size_t count) {
      return bve_run(session, floats, count, logits.mutable_data_ptr<float>(), logits.numel(),
                     &error);
    };
    int status;
    if (frame) {
      status = bve_set_frame(session, &*frame, &error);
      if (!status) status = run(nullptr, 0);
    } else {
      status = run_image(session, *values[0], run, &error);
    }
    return status ? report(Error::InvalidArgument, "%s", error.text) : Error::Ok;
  } catch (const std::exception& e) {
    return report(Error::MemoryAllocationFailed, "%s", e.what());
  }

  void destroy(DelegateHandle* handle) const override { delete static_cast<Delegate*>(handle); }

  Error set_option(BackendOptionContext&, const Span<BackendOption>& options) override {
    int threads = threads_;
    const Error error = read_threads({options.data(), options.size()}, &threads);
    threads_ = threads;
    return error;
  }

  Error get_option(BackendOptionContext&, Span<BackendOption>& options) override {
    for (BackendOption& option : options) {
      if (!std::strcmp(option.key, "threads")) {
        option.value = threads_.load();
      } else if (!std::strcmp(option.key, "version")) {
        option.value = kVersion;
      } else {
        return report(Error::InvalidArgument, "unknown option %.63s, expected threads or version",
                      option.key);
      }
    }
    return Error::Ok;
  }

 private:
  mutable SharedPrograms programs_;
  std::atomic<int> threads_{0};  // 0: none were asked for
};

const bool is_registered = [] {
  runtime_init();  // which the log needs, for main has not begun where an app links the library
  static auto* const backend = new Backend;  // never destroyed: methods may outlive statics
  if (register_backend({kName, backend}) == Error::Ok) return true;
  BackendOption first{"version", Text{"as many backends as ExecuTorch takes"}};
  executorch::runtime::get_option(kName, {&first, 1});
  report(Error::InvalidState,
         "version %s beside %s in one process, expected one copy; load one alone", kVersion.data(),
         std::get<Text>(first.value).data());
  refuse();
  return false;
}();

}  // namespace
}  // namespace bve

const char* bve_executorch_version(void) { return bve::kVersion.data(); }

void bve_executorch_set_frame(const bve_frame* frame) {
  bve::next_frame = frame ? std::optional(*frame) : std::nullopt;
}
