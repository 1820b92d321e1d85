#include "main_program.h"

#include <cerrno>
#include <cstring>
#include <new>
#include <random>
#include <thread>

#include "json.h"
#include "main_picture.h"
#include "select.h"

namespace bve {

using json::object;
using json::print_whole;
using json::quote;

Program open_program(const Arguments& arguments) {
  bve_error error{};
  Program program(bve_open(arguments.file.c_str(), &error), bve_close);
  if (!program) throw UserError(error.text);
  return program;
}

SessionHandle start_session(const Program& program, float keep, const Arguments& arguments) {
  bve_error error{};
  SessionHandle session(bve_start(program.get(), keep, &arguments.options, &error), bve_stop);
  if (!session) throw UserError(error.text);
  return session;
}

void run_once(const SessionHandle& session, const std::vector<float>& image,
              std::vector<float>& logits) {
  bve_error error{};
  const float* const given = image.empty() ? nullptr : image.data();
  if (bve_run(session.get(), given, image.size(), logits.data(), logits.size(), &error)) {
    throw UserError(error.text);
  }
}

std::string inspect(const SessionHandle& session) {
  const char* const described = bve_inspect(session.get());
  if (!described) throw std::bad_alloc();
  return described;
}

std::vector<float> make_image(size_t count) {
  std::minstd_rand random;  // the same on every machine, unlike the library's distributions
  std::vector<float> image(count);
  for (float& value : image) {
    value = 2.0f * static_cast<float>(random()) / static_cast<float>(random.max()) - 1.0f;
  }
  return image;
}

std::vector<float> read_image(const std::string& path, size_t count) {
  const File file(std::fopen(path.c_str(), "rb"), std::fclose);
  std::vector<float> image(count + 1);  // one more shows a file that is too long
  const size_t read =
      file ? std::fread(image.data(), 1, image.size() * sizeof(float), file.get()) : 0;
  if (!file || std::ferror(file.get())) {
    throw UserError(path + ": " + std::strerror(errno) +
                    ", expected a file of float32; check --input");
  }
  if (read != count * sizeof(float)) {
    throw UserError(path + " with " +
                    (read > count * sizeof(float) ? "more" : std::to_string(read)) +
                    " bytes, expected " + std::to_string(count * sizeof(float)) + ": " +
                    std::to_string(count) + " float32 of this entry's image; give it in that size");
  }
  image.pop_back();
  return image;
}

std::vector<float> choose_image(const Arguments& arguments, size_t count) {
  return arguments.input == "random" ? make_image(count) : read_image(arguments.input, count);
}

std::vector<float> prepare_picture(const Program& program, const std::string& path, size_t count,
                                   std::vector<std::string>& notes) {
  DecodedPicture decoded = read_picture(path);
  const bve_picture picture = decoded.describe();
  std::vector<float> image(count);
  bve_error error{};
  if (bve_prepare(program.get(), &picture, image.data(), count, &error))
    throw UserError(path + ": " + error.text);
  notes = std::move(decoded.notes);
  return image;
}

void set_frame(const SessionHandle& session, const Arguments& arguments) {
  const Bytes bytes = read_bytes(arguments.picture);
  const uint32_t width = arguments.nv21[0], height = arguments.nv21[1];
  const size_t luma = size_t{width} * height, row = size_t{2} * ((width + 1) / 2);
  const size_t expected = luma + row * ((height + 1) / 2);
  if (bytes.size() != expected) {
    throw UserError(arguments.picture + " of " + std::to_string(bytes.size()) +
                    " bytes, expected " + std::to_string(expected) + " for NV21 of " +
                    std::to_string(width) + " x " + std::to_string(height) + "; check --nv21");
  }
  bve_frame frame{};
  frame.planes[0] = bytes.data();
  frame.planes[1] = bytes.data() + luma;
  frame.stride_bytes[0] = width;
  frame.stride_bytes[1] = row;
  frame.width = width;
  frame.height = height;
  frame.format = BVE_NV21;
  frame.rotation = arguments.rotation;
  bve_error error{};
  if (bve_set_frame(session.get(), &frame, &error))
    throw UserError(arguments.picture + ": " + error.text);
}

std::string describe_machine() {
  char isa[128];
  bve_name_isa(bve_detect_isa(), isa, sizeof isa);
  return object({{"version", quote(BVE_VERSION)},
                 {"abi", print_whole(bve_version())},
                 {"isa", quote(isa)},
                 {"cores", print_whole(std::thread::hardware_concurrency())},
                 {"usable_cores", print_whole(bve_count_cores())}});
}

uint64_t read_status_bytes(const char* name) {
  const File file(std::fopen("/proc/self/status", "r"), std::fclose);
  char line[256], found[32];
  unsigned long long kilobytes;
  while (file && std::fgets(line, sizeof line, file.get())) {
    if (std::sscanf(line, "%31[^:]: %llu kB", found, &kilobytes) == 2 &&
        !std::strcmp(found, name)) {
      return kilobytes * 1024;
    }
  }
  return 0;
}

}  // namespace bve
