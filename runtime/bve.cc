// The C ABI: what C++ throws becomes a text.
#include "bve.h"

#include <cstring>
#include <exception>
#include <memory>
#include <string>

#include "dispatch.h"
#include "session.h"

struct bve_program {
  std::unique_ptr<bve::Program> program;
  bve::Weights weights;
  std::string description;

  explicit bve_program(std::unique_ptr<bve::Program> opened)
      : program(std::move(opened)), weights(*program), description(program->describe()) {}
};

struct bve_session {
  bve::Session session;
  std::string description;
};

namespace {

// Cut where it is too long, between two letters.
void tell(bve_error* error, const char* text) {
  if (!error) return;
  size_t bytes = std::strlen(text);
  if (bytes >= sizeof error->text) {
    bytes = sizeof error->text - 1;
    while ((text[bytes] & 0xc0) == 0x80) --bytes;
  }
  std::memcpy(error->text, text, bytes);
  error->text[bytes] = '\0';
}

// work's result, or failed with the reason in error, which may be null.
template <typename Result, typename Work>
Result guard(Result failed, bve_error* error, Work work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    tell(error, "no memory left; close other programs");
  } catch (const std::exception& e) {
    tell(error, e.what());
  } catch (...) {
    tell(error, "an unknown error");
  }
  return failed;
}

}  // namespace

uint32_t bve_version(void) { return BVE_ABI_VERSION; }

bve_program* bve_open(const char* path, bve_error* error) {
  return guard<bve_program*>(nullptr, error,
                             [&] { return new bve_program(bve::Program::open(path)); });
}

bve_program* bve_open_bytes(const void* data, size_t bytes, bve_error* error) {
  return guard<bve_program*>(nullptr, error,
                             [&] { return new bve_program(bve::Program::open(data, bytes)); });
}

void bve_close(bve_program* program) { delete program; }

int bve_verify(const bve_program* program, bve_error* error) {
  return guard<int>(1, error, [&] {
    program->program->verify();
    return 0;
  });
}

const char* bve_describe(const bve_program* program) { return program->description.c_str(); }

size_t bve_repacked_bytes(const bve_program* program) { return program->weights.repacked_bytes(); }

bve_session* bve_start(bve_program* program, float keep, const bve_options* options,
                       bve_error* error) {
  static constexpr bve_options kOneThread{BVE_ABI_VERSION, 1, 0, 0, 0};
  return guard<bve_session*>(nullptr, error, [&] {
    return new bve_session{
        bve::Session(*program->program, program->weights, keep, options ? *options : kOneThread),
        {}};
  });
}

void bve_stop(bve_session* session) { delete session; }

int bve_run(bve_session* session, const float* image, size_t image_count, float* logits,
            size_t logits_count, bve_error* error) {
  return guard<int>(1, error, [&] {
    session->session.run(image, image_count, logits, logits_count);
    return 0;
  });
}

size_t bve_image_count(const bve_session* session) {
  const size_t size = session->session.entry().image_size;
  return 3 * size * size;
}

size_t bve_logits_count(const bve_session* session) { return session->session.entry().classes; }

const char* bve_inspect(bve_session* session) {
  return guard<const char*>(nullptr, nullptr, [&] {
    session->description = session->session.describe();
    return session->description.c_str();
  });
}

void bve_trace(bve_session* session, int on) { session->session.trace(on != 0); }

size_t bve_times(const bve_session* session, uint64_t* nanoseconds, size_t count) {
  const size_t ops = session->session.ops().count;
  for (size_t i = 0; nanoseconds && i < count && i < ops; i++)
    nanoseconds[i] = session->session.nanoseconds(i);
  return ops;
}

const char* bve_op_name(const bve_session* session, size_t index) {
  return index < session->session.ops().count ? session->session.op_name(index) : nullptr;
}

int bve_dispatch(const bve_tokens* tokens, bve_error* error) {
  return guard<int>(1, error, [&] {
    bve::dispatch_tokens(*tokens);
    return 0;
  });
}
