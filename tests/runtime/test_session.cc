// Sessions through the C ABI, on a tiny big.LITTLE model with every kind of op. Their numbers
// against PyTorch are the Python tests' business; here: one answer whatever the threads, lanes,
// packing and instruction set, and errors instead of crashes.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "bve.h"
#include "cores.h"
#include "doctest.h"
#include "tiny_program.h"

namespace {

std::atomic<size_t> allocations{0};
std::atomic<bool> exhausted{false};

}  // namespace

void* operator new(size_t bytes) {
  allocations++;
  if (void* memory = exhausted ? nullptr : std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  allocations++;
  return std::malloc(bytes);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }

namespace bve::test {
namespace {

constexpr bve_options kOneThread{BVE_ABI_VERSION, 1, 0, 0, 0, 0, 0};

bve_options ask(uint32_t threads, uint32_t little_threads = 0, uint32_t choose = 0) {
  return {BVE_ABI_VERSION, threads, little_threads, 0, 0, 0, choose};
}

struct Opened {
  Bytes bytes;
  bve_error error{};
  bve_program* program;

  explicit Opened(const std::vector<bve_packing>& packings)
      : bytes(make_tiny_program(packings)),
        program(bve_open_bytes(bytes.data(), bytes.count(), &error)) {
    REQUIRE_MESSAGE(program, error.text);
  }
  ~Opened() { bve_close(program); }
};

std::vector<float> draw_image() { return Noise(7).take(3 * 4 * 4); }

std::vector<float> run_once(bve_program* program, float keep, const bve_options& options) {
  bve_error error{};
  bve_session* session = bve_start(program, keep, &options, &error);
  REQUIRE_MESSAGE(session, error.text);
  const std::vector<float> image = draw_image();
  std::vector<float> logits(3, NAN);
  const int status = bve_run(session, image.data(), image.size(), logits.data(), 3, &error);
  bve_stop(session);
  REQUIRE_MESSAGE(status == 0, error.text);
  return logits;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0;
  for (size_t i = 0; i < a.size(); i++) largest = std::fmax(largest, std::fabs(a[i] - b[i]));
  return largest;
}

std::string fail_to_start(const bve_options& options, float keep = 0) {
  Opened opened({bve_f32p});
  bve_error error{};
  CHECK(bve_start(opened.program, keep, &options, &error) == nullptr);
  return error.text;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("every instruction set gives the scalar kernels' answer") {
  for (const std::vector<bve_packing>& packings :
       {std::vector{bve_f32p}, std::vector{bve_f16p}, std::vector{bve_qc8p4}}) {
    Opened opened(packings);
    bve_options options = kOneThread;
    const std::vector<float> best = run_once(opened.program, 1.0f, options);
    options.isa = BVE_ISA_SCALAR;
    const std::vector<float> scalar = run_once(opened.program, 1.0f, options);
    CHECK(std::isfinite(scalar[0]));
    const float tolerance = packings[0] == bve_f32p ? 2e-4f : 5e-2f;
    CHECK(largest_difference(best, scalar) < tolerance);
    // CPUs that have less than this one: each bit goes with all below it.
    uint32_t isa = 0;
    for (uint32_t bit = 1; bit != BVE_ISA_SCALAR; bit *= 2) {
      if (!(bve_detect_isa() & bit)) continue;
      options.isa = isa |= bit;
      CHECK_MESSAGE(largest_difference(run_once(opened.program, 1.0f, options), scalar) < tolerance,
                    isa);
    }
  }
}

TEST_CASE("keep ratios are different programs over the same weights") {
  Opened opened({bve_f32p});
  const std::vector<float> whole = run_once(opened.program, 1.0f, kOneThread);
  const std::vector<float> half = run_once(opened.program, 0.5f, kOneThread);
  CHECK(largest_difference(whole, half) > 1e-4f);
  CHECK(run_once(opened.program, 0, kOneThread) == whole);  // the first entry
}

TEST_CASE("threads and lanes do not change a bit") {
  if (list_cores().size() < 2) {
    MESSAGE("skipped: one core");
    return;
  }
  for (bve_packing packing : {bve_f32p, bve_qc8p4}) {
    Opened opened({packing});
    for (float keep : {1.0f, 0.5f}) {
      const std::vector<float> alone = run_once(opened.program, keep, kOneThread);
      for (int run = 0; run < 20; run++) {
        CHECK(run_once(opened.program, keep, ask(2)) == alone);
        CHECK(run_once(opened.program, keep, ask(2, 1)) == alone);
      }
    }
  }
}

TEST_CASE("int8 in the other packing is repacked, and answers the same") {
  Opened four({bve_qc8p4}), eight({bve_qc8p8});
  CHECK(run_once(four.program, 0.5f, kOneThread) == run_once(eight.program, 0.5f, kOneThread));
  size_t repacked = 0;
  for (Opened* opened : {&four, &eight}) {
    bve_session* session = bve_start(opened->program, 0, nullptr, nullptr);
    const bool as_is = contains(bve_inspect(session), "\"repacked_bytes\": 0,");
    CHECK((bve_repacked_bytes(opened->program) == 0) == as_is);
    repacked += as_is ? 0 : 1;
    bve_stop(session);
  }
  CHECK(repacked == 1);
}

TEST_CASE("a run allocates nothing") {
  Opened opened({bve_qc8p4});
  const std::vector<float> image = draw_image();
  std::vector<float> logits(3);
  for (bve_options options : {ask(1), ask(2), ask(2, 1)}) {
    if (options.threads > bve_count_cores()) continue;
    for (options.pin = 0; options.pin < 2; options.pin++) {
      bve_session* session = bve_start(opened.program, 0.5f, &options, nullptr);
      const size_t before = allocations;
      for (int i = 0; i < 100; i++)
        CHECK(bve_run(session, image.data(), image.size(), logits.data(), 3, nullptr) == 0);
      CHECK(allocations == before);
      bve_stop(session);
    }
  }
}

TEST_CASE("a dispatch allocates nothing") {
  constexpr size_t kTokens = 9, kSelected = 4, kDim = BVE_LEAST_DIM, kLittle = 3;
  const std::vector<float> x(kTokens * kDim, 1), z(kTokens * kLittle, 1), router(kLittle, 1);
  std::vector<float> x_out(x.size()), z_out(z.size()), gate(kSelected);
  std::vector<int32_t> order(kTokens);
  bve_tokens tokens{kTokens,  kSelected,     kDim,          kLittle,       x.data(),
                    z.data(), router.data(), router.data(), router.data(), 0,
                    1e-6f,    x_out.data(),  z_out.data(),  gate.data(),   order.data()};
  const size_t before = allocations;
  CHECK(bve_dispatch(&tokens, nullptr) == 0);
  CHECK(bve_dispatch(&tokens, nullptr) == 0);
  CHECK(allocations == before);
}

TEST_CASE("sessions of one program run side by side") {
  Opened opened({bve_qc8p8});
  const std::vector<float> expected = run_once(opened.program, 0.5f, kOneThread);
  std::vector<std::vector<float>> answers(8);
  std::vector<std::thread> threads;
  for (std::vector<float>& answer : answers) {
    threads.emplace_back([&] {
      bve_session* session = bve_start(opened.program, 1.0f, nullptr, nullptr);
      CHECK(contains(bve_inspect(session), "\"entry\": \"keep_1\""));
      bve_stop(session);
      answer = run_once(opened.program, 0.5f, kOneThread);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::vector<float>& answer : answers) CHECK(answer == expected);
}

TEST_CASE("options of version 1, which end with pin, start a session") {
  Opened opened({bve_f32p});
  bve_options old = ask(1);
  old.abi_version = 1;
  old.spin_us = old.choose = 0xffffffff;  // whatever lies behind a shorter struct
  CHECK(run_once(opened.program, 0, old) == run_once(opened.program, 0, kOneThread));
}

TEST_CASE("CPU time is that of the runs") {
  Opened opened({bve_f32p});
  bve_session* session = bve_start(opened.program, 0, nullptr, nullptr);
  CHECK(bve_cpu_time(session) == 0);
  const std::vector<float> image = draw_image();
  std::vector<float> logits(3);
  REQUIRE(bve_run(session, image.data(), image.size(), logits.data(), 3, nullptr) == 0);
  CHECK(bve_cpu_time(session) > 0);
  bve_stop(session);
}

TEST_CASE("the environment says how long threads watch") {
  Opened opened({bve_f32p});
  for (const char* right : {"0", "250", ""}) {  // "": as if it were not set
    setenv("BVE_SPIN_US", right, 1);
    CHECK(run_once(opened.program, 0, kOneThread).size() == 3);
  }
  for (const char* wrong : {"soon", "-1", "5 us", "2000000"}) {
    setenv("BVE_SPIN_US", wrong, 1);
    CHECK_MESSAGE(contains(fail_to_start(kOneThread), "BVE_SPIN_US="), wrong);
  }
  bve_options options = kOneThread;
  options.spin_us = 5;  // goes before it
  CHECK(run_once(opened.program, 0, options).size() == 3);
  unsetenv("BVE_SPIN_US");
  options.spin_us = 2'000'000;
  CHECK(contains(fail_to_start(options), "spin_us 2000000, expected at most 1000000"));
}

TEST_CASE("tracing times each op") {
  Opened opened({bve_f32p});
  bve_session* session = bve_start(opened.program, 0, nullptr, nullptr);
  bve_trace(session, 1);
  const std::vector<float> image = draw_image();
  std::vector<float> logits(3);
  REQUIRE(bve_run(session, image.data(), image.size(), logits.data(), 3, nullptr) == 0);
  std::vector<uint64_t> times(bve_times(session, nullptr, 0));
  REQUIRE(times.size() > 10);
  CHECK(bve_times(session, times.data(), times.size()) == times.size());
  for (uint64_t time : times) CHECK(time > 0);
  CHECK(std::string(bve_op_name(session, 0)) == "patches");
  CHECK(bve_op_name(session, times.size()) == nullptr);
  CHECK(contains(bve_inspect(session), "\"kind\": \"attention\""));
  CHECK(contains(bve_inspect(session), "\"ns\": "));
  bve_trace(session, 0);
  REQUIRE(bve_run(session, image.data(), image.size(), logits.data(), 3, nullptr) == 0);
  bve_times(session, times.data(), times.size());
  CHECK(times == std::vector<uint64_t>(times.size()));
  CHECK_FALSE(contains(bve_inspect(session), "\"ns\": "));
  bve_stop(session);
}

TEST_CASE("without memory there is an error and no crash") {
  Opened opened({bve_f32p});
  bve_session* session = bve_start(opened.program, 0, nullptr, nullptr);
  if (const size_t before = allocations; bve_inspect(session) && allocations == before) {
    MESSAGE("skipped: a sanitizer's operator new has the better of this file's");
    bve_stop(session);
    return;
  }
  bve_error error{};
  exhausted = true;
  const char* inspected = bve_inspect(session);
  bve_session* another = bve_start(opened.program, 0, nullptr, &error);
  exhausted = false;
  CHECK(inspected == nullptr);
  CHECK(another == nullptr);
  CHECK(contains(error.text, "no memory left"));
  CHECK(contains(bve_inspect(session), "\"entry\": \"keep_1\""));
  bve_stop(session);
}

TEST_CASE("names are quoted as JSON asks") {
  ProgramBuilder builder;
  const uint32_t row = builder.add_matrix("row", 1, 2, {1, 2});
  builder.start_entry("a \"b\" \\", 0, 1, 2);
  builder.add_op("c\\d", 0, 0, FillArgs{row, 1});
  Bytes bytes = builder.build();
  bve_program* program = bve_open_bytes(bytes.data(), bytes.count(), nullptr);
  bve_session* session = bve_start(program, 0, nullptr, nullptr);
  CHECK(contains(bve_describe(program), R"("name": "a \"b\" \\")"));
  CHECK(contains(bve_inspect(session), R"("entry": "a \"b\" \\")"));
  CHECK(contains(bve_inspect(session), R"("name": "c\\d")"));
  bve_stop(session);
  bve_close(program);
}

TEST_CASE("a damaged weight is found by who asks") {
  Opened opened({bve_f32p});
  bve_error error{};
  CHECK(bve_verify(opened.program, &error) == 0);
  opened.bytes.data()[opened.bytes.count() - 1] ^= std::byte{1};
  CHECK(bve_verify(opened.program, &error) != 0);
  CHECK(contains(error.text, "weight head at offset "));
  CHECK(bve_verify(opened.program, nullptr) != 0);
}

TEST_CASE("a long error is cut between letters") {
  for (const std::string start : {"", "a", "aa", "aaa"}) {
    std::string path = start;
    for (int i = 0; i < 200; i++) path += "\xf0\x9f\x98\x80";
    bve_error error{};
    CHECK(bve_open(path.c_str(), &error) == nullptr);
    CHECK(is_text(error.text));
    CHECK(std::string(error.text).size() > BVE_ERROR_BYTES - 5);
  }
}

// What a forked child's run says, and whether the child then came to its end.
std::string run_in_child(bve_session* session, bool& stopped) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(20);
    const std::vector<float> image = draw_image();
    std::vector<float> logits(3);
    bve_error error{};
    if (bve_run(session, image.data(), image.size(), logits.data(), 3, &error) == 0) {
      std::strcpy(error.text, "it ran");
    }
    bve_stop(session);
    _exit(write(ends[1], error.text, std::strlen(error.text)) < 0);
  }
  close(ends[1]);
  std::string text(BVE_ERROR_BYTES, '\0');
  const ssize_t bytes = read(ends[0], text.data(), text.size());
  close(ends[0]);
  int status = 1;
  REQUIRE(waitpid(child, &status, 0) == child);
  stopped = status == 0;
  return text.substr(0, bytes > 0 ? static_cast<size_t>(bytes) : 0);
}

TEST_CASE("a fork leaves threads behind, and says so") {
  Opened opened({bve_f32p});
  bool stopped = false;
  bve_session* session = bve_start(opened.program, 0, nullptr, nullptr);
  CHECK(run_in_child(session, stopped) == "it ran");
  CHECK(stopped);
  bve_stop(session);
  if (list_cores().size() < 2) {
    MESSAGE("skipped: one core");
    return;
  }
  const bve_options two = ask(2);
  session = bve_start(opened.program, 0, &two, nullptr);
  for (int i = 0; i < 2; i++) {
    CHECK(run_in_child(session, stopped) ==
          "a session made in another process, expected one of this process; start it after the "
          "fork");
    CHECK(stopped);
    const std::vector<float> image = draw_image();
    std::vector<float> logits(3);
    CHECK(bve_run(session, image.data(), image.size(), logits.data(), 3, nullptr) == 0);
  }
  bve_stop(session);
}

TEST_CASE("what cannot be is refused with a reason") {
  CHECK(contains(fail_to_start(ask(0)), "0 threads, expected 1 to"));
  CHECK(contains(fail_to_start(ask(4096)), "4096 threads, expected 1 to"));
  CHECK(contains(fail_to_start(ask(1, 1)), "the big lane needs one"));
  CHECK(contains(fail_to_start({BVE_ABI_VERSION + 1, 1, 0, 0, 0, 0, 0}), "ABI version"));
  CHECK(contains(fail_to_start(kOneThread, 0.3f), "0.3"));

  Opened opened({bve_f32p});
  bve_session* session = bve_start(opened.program, 0, nullptr, nullptr);
  const std::vector<float> image = draw_image();
  std::vector<float> logits(3, 5.0f);
  bve_error error{};
  CHECK(bve_run(session, image.data(), image.size() - 1, logits.data(), 3, &error) != 0);
  CHECK(contains(error.text, "an image of 47 floats, expected 48: 3 x 4 x 4"));
  CHECK(bve_run(session, image.data(), image.size(), logits.data(), 2, &error) != 0);
  CHECK(contains(error.text, "room for 2 logits, expected 3"));
  CHECK(logits == std::vector<float>(3, 5.0f));
  bve_stop(session);
}

}  // namespace
}  // namespace bve::test
