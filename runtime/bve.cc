// The C ABI: what C++ throws becomes a text.
#include "bve.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>

#include "cgroups.h"
#include "choice.h"
#include "counters.h"
#include "dispatch.h"
#include "frame_reader.h"
#include "metadata.h"
#include "picture.h"
#include "probe.h"
#include "roof.h"
#include "session.h"

struct bve_program {
  std::unique_ptr<bve::Program> program;
  bve::Weights weights;
  std::string description;
  bve::Metadata metadata;

  explicit bve_program(std::unique_ptr<bve::Program> opened)
      : program(std::move(opened)),
        weights(*program),
        description(program->describe()),
        metadata(bve::read_metadata(program->metadata())) {}
};

struct bve_session {
  const bve_program* program;
  std::unique_ptr<bve::Session> session;
  std::string description;
};

struct bve_counters {
  bve::Counters counters;

  explicit bve_counters(const char* root) : counters(root) {}
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

char* copy(const std::string& text) {
  char* const copied = strdup(text.c_str());
  if (!copied) throw std::bad_alloc();
  return copied;
}

constexpr bve_options kOneThread{BVE_ABI_VERSION, 1, 0, 0, 0, 0, 0};

// Version 1 knew nothing behind pin.
bve_options read_options(const bve_options& given) {
  if (given.abi_version == BVE_ABI_VERSION) return given;
  if (given.abi_version != 1) {
    bve::fail("options of ABI version %u, expected 1 or %d: build against this library's bve.h",
              given.abi_version, BVE_ABI_VERSION);
  }
  bve_options options = kOneThread;
  std::memcpy(&options, &given, offsetof(bve_options, spin_us));
  return options;
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

size_t bve_keeps(const bve_program* program, float* keeps, size_t count) {
  const auto entries = program->program->entries();
  for (uint32_t i = 0; keeps && i < count && i < entries.count; i++) keeps[i] = entries[i].keep;
  return entries.count;
}

const char* bve_label(const bve_program* program, size_t index) {
  const std::vector<std::string>& labels = program->metadata.labels;
  return index < labels.size() ? labels[index].c_str() : nullptr;
}

int bve_prepare(const bve_program* program, const bve_picture* picture, float* image,
                size_t image_count, bve_error* error) {
  return guard<int>(1, error, [&] {
    bve::prepare_picture(program->metadata, picture, image, image_count);
    return 0;
  });
}

int bve_prepare_by(const char* metadata, const bve_picture* picture, float* image,
                   size_t image_count, bve_error* error) {
  return guard<int>(1, error, [&] {
    bve::prepare_picture(bve::read_metadata(metadata), picture, image, image_count);
    return 0;
  });
}

int bve_read_frame(const bve_program* program, const bve_frame* frame, uint8_t* pixels,
                   size_t count, bve_error* error) {
  return guard<int>(1, error, [&] {
    bve::read_frame(program->metadata, frame, pixels, count);
    return 0;
  });
}

int bve_read_frame_by(const char* metadata, const bve_frame* frame, uint8_t* pixels, size_t count,
                      bve_error* error) {
  return guard<int>(1, error, [&] {
    bve::read_frame(bve::read_metadata(metadata), frame, pixels, count);
    return 0;
  });
}

size_t bve_repacked_bytes(const bve_program* program) { return program->weights.repacked_bytes(); }

uint32_t bve_count_cores(void) {
  return static_cast<uint32_t>(bve::count_usable(bve::list_cores().size()));
}

const char* bve_probe(const char* root) {
  thread_local std::string description;
  return guard<const char*>(nullptr, nullptr, [&] {
    description = bve::describe_machine(root ? root : "");
    return description.c_str();
  });
}

bve_session* bve_start(bve_program* program, float keep, const bve_options* options,
                       bve_error* error) {
  return guard<bve_session*>(nullptr, error, [&] {
    const bve_options known = options ? read_options(*options) : kOneThread;
    const std::vector<bve::Core> cores = bve::list_cores();
    const size_t usable = bve::count_usable(cores.size());
    const bve::Program& file = *program->program;
    return new bve_session{
        program,
        known.choose != 0
            ? bve::choose_session(file, program->weights, keep, known, cores, usable)
            : std::make_unique<bve::Session>(file, program->weights, keep, known, cores, usable),
        {}};
  });
}

void bve_stop(bve_session* session) { delete session; }

int bve_set_frame(bve_session* session, const bve_frame* frame, bve_error* error) {
  return guard<int>(1, error, [&] {
    session->session->set_frame(session->program->metadata, frame);
    return 0;
  });
}

int bve_set_pixels(bve_session* session, const uint8_t* pixels, size_t count, uint32_t is_planar,
                   bve_error* error) {
  return guard<int>(1, error, [&] {
    session->session->set_pixels(session->program->metadata, pixels, count, is_planar != 0);
    return 0;
  });
}

int bve_run(bve_session* session, const float* image, size_t image_count, float* logits,
            size_t logits_count, bve_error* error) {
  return guard<int>(1, error, [&] {
    session->session->run(image, image_count, logits, logits_count);
    return 0;
  });
}

size_t bve_image_count(const bve_session* session) {
  const size_t size = session->session->entry().image_size;
  return 3 * size * size;
}

size_t bve_logits_count(const bve_session* session) { return session->session->entry().classes; }

const char* bve_inspect(bve_session* session) {
  return guard<const char*>(nullptr, nullptr, [&] {
    session->description = session->session->describe();
    return session->description.c_str();
  });
}

void bve_trace(bve_session* session, int on) {
  guard<int>(1, nullptr, [&] {
    session->session->trace(on != 0);
    return 0;
  });
}

size_t bve_events(const bve_session* session, bve_event* events, size_t count, size_t* lost) {
  const bve::Trace* const last = session->session->last();
  size_t beyond = 0;
  const size_t all = last ? last->copy_events(events, events ? count : 0, beyond) : 0;
  if (lost) *lost = beyond;
  return all;
}

size_t bve_rows(const bve_session* session, size_t op, int32_t* rows, size_t count) {
  const bve::Trace* const last = session->session->last();
  if (!last || op >= session->session->ops().count) return 0;
  const std::vector<int32_t>& chosen = last->rows(op);
  if (rows) std::copy_n(chosen.begin(), std::min(count, chosen.size()), rows);
  return chosen.size();
}

uint64_t bve_cpu_time(const bve_session* session) { return session->session->cpu_ns(); }

size_t bve_times(const bve_session* session, uint64_t* nanoseconds, size_t count) {
  const size_t ops = session->session->ops().count;
  const bve::Trace* const last = session->session->last();
  for (size_t i = 0; nanoseconds && i < count && i < ops; i++)
    nanoseconds[i] = last ? last->nanoseconds(i) : 0;
  return ops;
}

const char* bve_op_name(const bve_session* session, size_t index) {
  return index < session->session->ops().count ? session->session->op_name(index) : nullptr;
}

char* bve_measure(uint32_t threads, bve_error* error) {
  return guard<char*>(nullptr, error, [&] {
    bve::check_threads(threads, bve::count_usable(bve::list_cores().size()));
    return copy(bve::measure_roof(threads));
  });
}

void bve_free(char* text) { std::free(text); }

bve_counters* bve_count(const char* root) {
  return guard<bve_counters*>(nullptr, nullptr, [&] { return new bve_counters(root); });
}

char* bve_read(const bve_counters* counters) {
  return guard<char*>(nullptr, nullptr, [&] { return copy(counters->counters.read()); });
}

void bve_uncount(bve_counters* counters) { delete counters; }

int bve_dispatch(const bve_tokens* tokens, bve_error* error) {
  return guard<int>(1, error, [&] {
    bve::dispatch_tokens(*tokens);
    return 0;
  });
}
