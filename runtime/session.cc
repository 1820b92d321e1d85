#include "session.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "cgroups.h"
#include "clock.h"
#include "cost.h"
#include "json.h"

namespace bve {
namespace {

// Of what is left of a step, and is a thread's by its speed, it takes so much at once. With 1/2 two
// threads of a Zen 4 took 2 % longer for blvit_s (bve-run bench --threads 2).
constexpr double kPiece = 2.0 / 3;
// How long a thread waits for what others have in hand before it takes them for stopped: so many
// times as long as itself would need, or the shortest time that is worth a change of threads.
constexpr double kPatience = 1.5;
constexpr int64_t kPatienceNs = 50'000;
constexpr size_t kMostEvents = 1 << 16;  // of a thread in a traced run: 2 MB
constexpr uint32_t kSpinUs = 100, kMostSpinUs = 1'000'000;

int64_t choose_spin_ns(const bve_options& options) {
  uint32_t us = options.spin_us;
  const char* const said = us == 0 ? std::getenv("BVE_SPIN_US") : nullptr;
  if (said && *said) {
    char* end = nullptr;
    const unsigned long value = std::strtoul(said, &end, 10);
    if (!std::isdigit(static_cast<unsigned char>(*said)) || *end || value > kMostSpinUs)
      fail("BVE_SPIN_US=%s, expected 0 to %u microseconds; unset it", said, kMostSpinUs);
    us = static_cast<uint32_t>(value);
  } else if (us == 0) {
    us = kSpinUs;
  }
  if (us > kMostSpinUs) fail("spin_us %u, expected at most %u", us, kMostSpinUs);
  return int64_t{us} * 1000;
}

void check(const bve_options& options, size_t usable) {
  check_threads(options.threads, usable);
  if (options.little_threads >= options.threads) {
    fail("%u of %u threads for the LITTLE lane, expected fewer: the big lane needs one at least",
         options.little_threads, options.threads);
  }
}

// Fixed threads: the big lane's on the fastest cores, the LITTLE lane's on the slowest. Others: any
// of the cores that are no slower than the slowest of so many.
Placement place(const std::vector<Core>& cores, const bve_options& options) {
  Placement placement;
  const size_t big = options.threads - options.little_threads;
  if (options.pin != 0 || options.little_threads > 0) {
    placement.is_fixed = true;
    for (size_t i = 0; i < big; i++) placement.cores.push_back(cores[i].number);
    for (size_t i = 0; i < options.little_threads; i++)
      placement.cores.push_back(cores[cores.size() - 1 - i].number);
    return placement;
  }
  for (const Core& core : cores) {
    if (!is_slower(core, cores[big - 1])) placement.cores.push_back(core.number);
  }
  return placement;
}

}  // namespace

Session::Session(const Program& program, Weights& weights, float keep, const bve_options& options,
                 const std::vector<Core>& cores, size_t usable)
    : program_(program),
      entry_(program.find(keep)),
      weights_(weights),
      isa_(bve_detect_isa() & (options.isa == 0 ? ~0u : options.isa)),
      big_threads_(options.threads - options.little_threads),
      frame_{program, weights, program.buffers(entry_), 0, {}} {
  check(options, usable);
  kernels_.emplace_back(isa_, cores.front().kind);
  if (options.little_threads > 0) kernels_.emplace_back(isa_, cores.back().kind);
  weights.prepare(kernels_[0].int8);
  frame_.tile_rows = choose_tile_rows(kernels_.data(), kernels_.size());

  const Arena arena = plan_arena(program, entry_);
  arena_bytes_ = arena.bytes;
  arena_ = allocate(arena.bytes);
  for (size_t offset : arena.offsets) frame_.buffers.push_back(arena_.get() + offset);

  scratch_bytes_ = 0;
  for (const Op& op : ops()) {
    for (const Kernels& kernels : kernels_)
      scratch_bytes_ = std::max(scratch_bytes_, measure_scratch(frame_, op, kernels));
    names_.emplace_back(program.text(op.name));
  }
  for (size_t thread = 0; thread < options.threads; thread++)
    scratches_.push_back(allocate(scratch_bytes_));

  schedule_ = plan_schedule(frame_, entry_, arena, kernels_[0], options.threads > 1);
  packed_ = allocate(schedule_.packed_bytes);
  if (options.threads > 1) progress_.reset(new Progress(schedule_));
  const auto work = [](size_t thread, uint32_t round, void* self) {
    static_cast<Session*>(self)->walk(thread, round);
  };
  pool_.reset(new Pool(work, this, options.threads, place(cores, options), usable,
                       choose_spin_ns(options)));
}

// Helpers may still be on their way out of the last run, by way of pool_, which libc++ makes null
// before it destroys the pool.
Session::~Session() {
  if (pool_ && pool_->is_whole()) pool_->stop();
}

void Session::trace(bool on) {
  trace_.reset();
  if (!on) return;
  size_t most = 0;
  for (const Step& step : schedule_.steps) most += progress_ ? step.tiles : 1;
  trace_.reset(new Trace(frame_, ops(), pool_->threads(), std::min(most, kMostEvents)));
}

void Session::set_frame(const Metadata& metadata, const bve_frame* frame) {
  float* const dst = begin_input(metadata);
  if (!frame) fail("a frame that is null, expected its description; give it");
  input_->write(*frame, dst);
  has_frame_ = true;
}

void Session::set_pixels(const Metadata& metadata, const uint8_t* pixels, size_t count,
                         bool is_planar) {
  float* const dst = begin_input(metadata);
  const size_t size = entry_.image_size;
  if (!pixels) fail("pixels that are null, expected their memory; give it");
  if (count != 3 * size * size) {
    fail("%zu bytes of pixels, expected %zu: 3 x %zu x %zu; give as many", count, 3 * size * size,
         size, size);
  }
  input_->write_pixels(pixels, is_planar, dst);
  has_frame_ = true;
}

// Where the input's numbers go.
float* Session::begin_input(const Metadata& metadata) {
  const Preprocessing& how = need_preprocessing(metadata);
  if (!input_) input_.reset(new FrameInput(program_, entry_, how, isa_));
  return reinterpret_cast<float*>(input_->is_patches() ? frame_.buffers[input_->buffer()]
                                                       : input_->image());
}

std::byte* Session::choose_image(const float* image, size_t image_count) {
  const size_t size = entry_.image_size, wanted = 3 * size * size;
  if (!image && image_count == 0) {
    if (!has_frame_) {
      fail(
          "no image, expected %zu floats, 3 x %zu x %zu, or a frame set since the last run; call "
          "bve_set_frame before each run that takes one",
          wanted, size, size);
    }
    return input_->image();
  }
  if (!image || image_count != wanted) {
    fail("an image of %zu floats%s, expected %zu: 3 x %zu x %zu; give as many", image_count,
         image ? "" : " that is null", wanted, size, size);
  }
  return reinterpret_cast<std::byte*>(const_cast<float*>(image));  // nothing writes it
}

void Session::run(const float* image, size_t image_count, float* logits, size_t logits_count) {
  std::byte* const chosen = choose_image(image, image_count);
  if (logits_count != entry_.classes) {
    fail("room for %zu logits, expected %u, one a class", logits_count, entry_.classes);
  }
  frame_.buffers[0] = chosen;
  has_patches_ = !image && input_->is_patches();
  has_frame_ = false;
  frame_.buffers[1] = reinterpret_cast<std::byte*>(logits);
  if (trace_) trace_->begin();
  round_ = round_ == kMostRounds ? 1 : round_ + 1;
  if (progress_) progress_->begin(round_);
  pool_->run(round_);
}

void Session::walk(size_t thread, uint32_t round) {
  if (!progress_) {
    for (const Step& step : schedule_.steps) execute_step(step, {0, step.tiles}, 0);
    return;
  }
  constexpr uint8_t kBig = 1, kLittle = 2;
  Worker worker{round, kPiece * pool_->share_of(thread), thread % 2 == 1, kBig | kLittle};
  if (apart()) {
    worker.lanes = lane_of(thread) == 0 ? kBig : kLittle;
    worker.others = lane_of(thread) == 0 ? kLittle : 0;
  }
  uint64_t done = 0, ns = 0;
  while (pool_->is_on_duty(thread)) {
    Taken taken;
    Progress::Found found = Progress::Found::kNotYet;
    await(thread, [&] {
      found = progress_->take(worker, taken);
      return found != Progress::Found::kNotYet;
    });
    if (found != Progress::Found::kTiles) break;
    const Step& step = schedule_.steps[taken.step];
    const uint64_t work = taken.tiles.size() * step.work, start = read_clock_ns();
    pool_->hold(thread, work);
    execute_step(step, taken.tiles, thread);
    progress_->finish(worker, taken);
    pool_->hold(thread, 0);
    pool_->return_core(thread);
    done += work;
    ns += read_clock_ns() - start;
  }
  if (ns > 0) pool_->note_speed(thread, static_cast<double>(done) / static_cast<double>(ns));
  if (thread == 0) await(0, [&] { return progress_->is_done(worker); });
}

// Returns when is_true() is so.
template <typename Condition>
void Session::await(size_t thread, Condition is_true) {
  if (!pool_->is_crowded()) {  // else something waits for this core
    if (Bell::watch(kPatienceNs, is_true)) return;
    const double speed = pool_->speed_of(thread);
    const double usual_ns = speed > 0 ? static_cast<double>(pool_->most_held()) / speed : 0;
    if (Bell::watch(static_cast<int64_t>(kPatience * usual_ns) - kPatienceNs, is_true)) return;
    if (thread == 0 && speed > 0) pool_->lend_core();
  }
  progress_->bell().sleep(is_true);
  if (thread == 0) pool_->reclaim_core();
}

void Session::execute_step(const Step& step, Range tiles, size_t thread) {
  Trace* const trace = trace_.get();
  const uint64_t start = trace ? read_clock_ns() : 0;
  if (step.op > 0 || !has_patches_) {
    execute(frame_, ops()[step.op], step.phase, tiles, kernels_[lane_of(thread)],
            scratches_[thread].get(), packed_.get() + step.packed);
  }
  if (trace) trace->note(frame_, thread, step.op, tiles, start);
}

std::string Session::describe() const {
  const auto name_kernels = [](const Kernels& kernels) {
    std::vector<std::string> names;
    const auto add = [&](const auto*... rows) { (names.push_back(json::quote(rows->name)), ...); };
    const auto add_types = [&](const auto& rows) {
      add(rows[bve_f32], rows[bve_f16], rows[bve_qd8]);
    };
    add(kernels.gemms[bve_f32p], kernels.gemms[bve_f16p], kernels.gemms[kernels.int8]);
    add_types(kernels.packs);
    add_types(kernels.softmaxes);
    add(kernels.keys, kernels.values, kernels.route);
    return json::list(names, ", ");
  };
  const auto list_cores_of_threads = [&] {
    std::vector<std::string> threads;
    for (size_t thread = 0; thread < pool_->threads(); thread++) {
      std::vector<std::string> numbers;
      for (const int core : pool_->list_cores(thread)) numbers.push_back(std::to_string(core));
      threads.push_back(json::list(numbers, ", "));
    }
    return json::list(threads, ", ");
  };
  constexpr const char* kTypes[] = {"f32", "f16", "qd8"};  // by bve_type
  char isa[128];
  bve_name_isa(isa_, isa, sizeof isa);
  std::vector<std::pair<const char*, std::string>> fields = {
      {"isa", json::quote(isa)},
      {"entry", json::quote(program_.text(entry_.name))},
      {"threads", json::print_whole(pool_->threads())},
      {"little_threads", json::print_whole(pool_->threads() - big_threads_)},
      {"cores", list_cores_of_threads()}};
  if (!tried_.empty()) fields.push_back({"tried", tried_});
  fields.push_back({"kernels", name_kernels(kernels_[0])});
  if (apart()) fields.push_back({"little_kernels", name_kernels(kernels_[1])});
  fields.push_back({"arena_bytes", json::print_whole(arena_bytes_)});
  fields.push_back({"scratch_bytes", json::print_whole(scratch_bytes_ * scratches_.size())});
  fields.push_back({"repacked_bytes", json::print_whole(weights_.repacked_bytes())});
  std::vector<std::string> described;
  for (uint32_t i = 0; i < ops().count; i++) {
    const Cost cost = measure_cost(frame_, ops()[i]);
    std::vector<std::pair<const char*, std::string>> op = {
        {"name", json::quote(names_[i])},           {"kind", json::quote(name_kind(ops()[i].kind))},
        {"lane", json::print_whole(ops()[i].lane)}, {"macs", json::print_whole(cost.macs)},
        {"bytes", json::print_whole(cost.bytes)},   {"type", json::quote(kTypes[cost.type])}};
    if (ops()[i].kind == OpKind::kRoute) {
      const uint32_t tokens = frame_.shapes[get<RouteArgs>(ops()[i]).src].rows;
      op.push_back({"tokens", json::print_whole(tokens)});
    }
    if (trace_) op.push_back({"ns", json::print_whole(trace_->nanoseconds(i))});
    described.push_back(json::object(op));
  }
  fields.push_back({"ops", json::list(described, ", ")});
  return json::object(fields);
}

}  // namespace bve
