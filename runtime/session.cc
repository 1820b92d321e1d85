#include "session.h"

#include <algorithm>
#include <ctime>

#include "json.h"

namespace bve {
namespace {

uint64_t read_clock() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

void check(const bve_options& options, size_t cores) {
  if (options.abi_version != BVE_ABI_VERSION) {
    fail("options of ABI version %u, expected %d: build against this library's bve.h",
         options.abi_version, BVE_ABI_VERSION);
  }
  if (options.threads < 1 || options.threads > cores) {
    fail("%u threads, expected 1 to %zu, the cores this process may use", options.threads, cores);
  }
  if (options.little_threads >= options.threads) {
    fail("%u of %u threads for the LITTLE lane, expected fewer: the big lane needs one at least",
         options.little_threads, options.threads);
  }
}

// For each thread its core: the big lane's the fastest, the LITTLE lane's the slowest ones.
std::vector<int> assign_cores(const std::vector<Core>& cores, const bve_options& options) {
  std::vector<int> numbers;
  if (options.pin == 0 && options.little_threads == 0) return numbers;
  const size_t big = options.threads - options.little_threads;
  for (size_t i = 0; i < big; i++) numbers.push_back(cores[i].number);
  for (size_t i = 0; i < options.little_threads; i++)
    numbers.push_back(cores[cores.size() - 1 - i].number);
  return numbers;
}

}  // namespace

Session::Session(const Program& program, Weights& weights, float keep, const bve_options& options)
    : program_(program),
      entry_(program.find(keep)),
      weights_(weights),
      isa_(bve_detect_isa() & (options.isa == 0 ? ~0u : options.isa)),
      frame_{program, weights, program.buffers(entry_), {}} {
  const std::vector<Core> cores = list_cores();
  check(options, cores.size());
  const size_t little = options.little_threads, big = options.threads - little;
  lanes_.push_back({0, big, Kernels(isa_, cores.front().kind), std::make_unique<Barrier>(big)});
  if (little > 0) {
    lanes_.push_back(
        {big, little, Kernels(isa_, cores.back().kind), std::make_unique<Barrier>(little)});
  }
  weights.prepare(lanes_[0].kernels.int8);

  const Arena arena = plan_arena(program, entry_);
  arena_bytes_ = arena.bytes;
  arena_ = allocate(arena.bytes);
  for (size_t offset : arena.offsets) frame_.buffers.push_back(arena_.get() + offset);

  scratch_bytes_ = 0;
  for (const Op& op : ops()) {
    for (const Lane& lane : lanes_) {
      scratch_bytes_ =
          std::max(scratch_bytes_, measure_scratch(frame_, op, lane.kernels, lane.threads));
    }
    names_.emplace_back(program.text(op.name));
  }
  for (size_t thread = 0; thread < options.threads; thread++)
    scratches_.push_back(allocate(scratch_bytes_));
  times_.resize(ops().count);
  everyone_ = std::make_unique<Barrier>(options.threads);
  pool_.reset(new Pool(options.threads, assign_cores(cores, options)));
}

void Session::trace(bool on) {
  traced_ = on;
  std::fill(times_.begin(), times_.end(), 0);
}

void Session::run(const float* image, size_t image_count, float* logits, size_t logits_count) {
  const size_t size = entry_.image_size, wanted = 3 * size * size;
  if (image_count != wanted) {
    fail("an image of %zu floats, expected %zu: 3 x %zu x %zu", image_count, wanted, size, size);
  }
  if (logits_count != entry_.classes) {
    fail("room for %zu logits, expected %u, one a class", logits_count, entry_.classes);
  }
  frame_.buffers[0] = reinterpret_cast<std::byte*>(const_cast<float*>(image));  // nothing writes it
  frame_.buffers[1] = reinterpret_cast<std::byte*>(logits);
  pool_->run([](size_t thread, void* self) { static_cast<Session*>(self)->walk(thread); }, this);
}

void Session::walk(size_t thread) {
  const size_t mine = apart() && thread >= lanes_[1].first_thread ? 1 : 0;
  const Lane& lane = lanes_[mine];
  const Team team{thread - lane.first_thread, lane.threads};
  uint32_t stage = 0;
  for (uint32_t i = 0; i < ops().count; i++) {
    const Op& op = ops()[i];
    if (apart() && op.stage != stage) everyone_->wait();
    stage = op.stage;
    if (apart() && op.lane != mine) continue;
    const uint64_t start = traced_ && team.index == 0 ? read_clock() : 0;
    execute(frame_, op, lane.kernels, team, scratches_[thread].get());
    lane.barrier->wait();
    if (start != 0) times_[i] = read_clock() - start;
  }
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
  char isa[128];
  bve_name_isa(isa_, isa, sizeof isa);
  std::vector<std::pair<const char*, std::string>> fields = {
      {"isa", json::quote(isa)},
      {"entry", json::quote(program_.text(entry_.name))},
      {"threads", json::print_whole(pool_->threads())},
      {"little_threads", json::print_whole(apart() ? lanes_[1].threads : 0)},
      {"kernels", name_kernels(lanes_[0].kernels)}};
  if (apart()) fields.push_back({"little_kernels", name_kernels(lanes_[1].kernels)});
  fields.push_back({"arena_bytes", json::print_whole(arena_bytes_)});
  fields.push_back({"scratch_bytes", json::print_whole(scratch_bytes_ * scratches_.size())});
  fields.push_back({"repacked_bytes", json::print_whole(weights_.repacked_bytes())});
  std::vector<std::string> described;
  for (uint32_t i = 0; i < ops().count; i++) {
    std::vector<std::pair<const char*, std::string>> op = {
        {"name", json::quote(names_[i])},
        {"kind", json::quote(name_kind(ops()[i].kind))},
        {"lane", json::print_whole(ops()[i].lane)}};
    if (traced_) op.push_back({"ns", json::print_whole(times_[i])});
    described.push_back(json::object(op));
  }
  fields.push_back({"ops", json::list(described, ", ")});
  return json::object(fields);
}

}  // namespace bve
