// The delegate for ExecuTorch: a backend that runs a method's delegate, as bve_executorch.h says.
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/core/exec_aten/util/dim_order_util.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "bve_executorch.h"
#include "executorch_errors.h"
#include "executorch_threads.h"
#include "port_call.h"
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
  PortCall call{session.get()};
};

std::shared_ptr<bve_program> open(FreeableBuffer&& data) {
  const auto bytes = std::make_shared<FreeableBuffer>(std::move(data));
  bve_error error{};
  bve_program* const program = bve_open_bytes(bytes->data(), bytes->size(), &error);
  if (!program) return report(Error::DelegateInvalidCompatibility, error), nullptr;
  if (reinterpret_cast<uintptr_t>(bytes->data()) % 64) bytes->Free();  // it was copied
  return {program, [bytes](bve_program* closed) {
            bve_close(closed);
            bytes->Free();  // now: this function itself lives as long as a weak_ptr to the program
          }};
}

Argument describe(const EValue& value) {
  if (!value.isTensor()) return {Element::kOther, nullptr, 0, nullptr, ", which is no tensor"};
  const auto& tensor = value.toTensor();
  const ScalarType type = tensor.scalar_type();
  const auto sides = tensor.sizes();
  Argument given{type == ScalarType::Float  ? Element::kFloat
                 : type == ScalarType::Byte ? Element::kByte
                                            : Element::kOther,
                 sides.data(), sides.size(), const_cast<void*>(tensor.const_data_ptr()), ""};
  if (!given.data) {
    given.flaw = " without memory";
  } else if (!is_contiguous_dim_order(tensor.dim_order().data(), tensor.dim())) {
    given.flaw = " of another order in memory";
  }
  return given;
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
      return report(Error::DelegateInvalidCompatibility, "a delegate of another layout",
                    std::string("version ") + kVersion.data() + "'s", "export the model again");
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
      cause =
          report(data.error(), "no data named " + key.substr(0, 80), "", "export the model again");
      return nullptr;
    });
    if (!program) return cause;
    if (!threads) threads = count_threads();
    const bve_options options{BVE_ABI_VERSION, static_cast<uint32_t>(threads), 0, 0, 0, 0, 0};
    bve_error text{};
    Session session(bve_start(program.get(), keep, &options, &text), bve_stop);
    if (!session) return report(Error::InvalidArgument, text);
    if (const size_t bytes = bve_repacked_bytes(program.get()))
      ET_LOG(Info, "%s: %zu bytes of weights packed anew for this CPU", kName, bytes);
    return new Delegate{std::move(program), std::move(session)};
  } catch (const std::exception& e) {
    return report(Error::MemoryAllocationFailed, e.what());
  }

  Error execute(BackendExecutionContext&, DelegateHandle* handle,
                Span<EValue*> values) const override try {
    const auto frame = std::exchange(next_frame, std::nullopt);
    PortCall& call = static_cast<Delegate*>(handle)->call;
    bve_error error{};
    const size_t inputs = std::min(values.size(), call.inputs());
    int status = call.check_counts(inputs, values.size() - inputs, &error);
    for (size_t i = 0; i < values.size() && !status; i++) {
      call[i] = describe(*values[i]);
      if (i > 0 || !frame) status = call.check(i, &error);
    }
    if (!status) status = call.run(frame ? &*frame : nullptr, &error);
    return status ? report(Error::InvalidArgument, error) : Error::Ok;
  } catch (const std::exception& e) {
    return report(Error::MemoryAllocationFailed, e.what());
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
        return report(
            Error::InvalidArgument,
            "unknown option " + std::string(option.key, strnlen(option.key, sizeof option.key)),
            "threads or version");
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
         std::string("version ") + kVersion.data() + " beside " +
             std::get<Text>(first.value).data() + " in one process",
         "one copy", "load one alone");
  refuse();
  return false;
}();

}  // namespace
}  // namespace bve

const char* bve_executorch_version(void) { return bve::kVersion.data(); }

void bve_executorch_set_frame(const bve_frame* frame) {
  bve::next_frame = frame ? std::optional(*frame) : std::nullopt;
}
