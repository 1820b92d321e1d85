// What bve-run's verbs share: a program and a session of it, its image, and what the system tells
// of this process.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "clock.h"
#include "main_arguments.h"

namespace bve {

using File = std::unique_ptr<std::FILE, decltype(&std::fclose)>;
using Program = std::unique_ptr<bve_program, decltype(&bve_close)>;
using SessionHandle = std::unique_ptr<bve_session, decltype(&bve_stop)>;

// These throw UserError with the library's own text.
Program open_program(const Arguments& arguments);
SessionHandle start_session(const Program& program, float keep, const Arguments& arguments);
// An empty image: of the frame that was set.
void run_once(const SessionHandle& session, const std::vector<float>& image,
              std::vector<float>& logits);
std::string inspect(const SessionHandle& session);

// So many float32 in [-1, 1].
std::vector<float> make_image(size_t count);
std::vector<float> read_image(const std::string& path, size_t count);
// Whichever --input asks for.
std::vector<float> choose_image(const Arguments& arguments, size_t count);

// A picture's file as the program takes it; what was assumed is added to the notes. Throws
// UserError.
std::vector<float> prepare_picture(const Program& program, const std::string& path, size_t count,
                                   std::vector<std::string>& notes);
// The file of a camera's frame, for the next run. Throws UserError.
void set_frame(const SessionHandle& session, const Arguments& arguments);

inline double read_clock_ms() { return static_cast<double>(read_clock_ns()) * 1e-6; }

// JSON.
std::string describe_machine();

// A line of /proc/self/status, in bytes; 0 where there is none.
uint64_t read_status_bytes(const char* name);

}  // namespace bve
