// bve-run's command line.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "bve.h"

namespace bve {

// What a user did that cannot work: what was met, what was expected and what to do.
class UserError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Arguments {
  std::string verb;                // one of kVerbs; "help" or "version": only print that
  std::string file;                // of those that take one
  std::vector<std::string> files;  // of watch
  std::vector<int> cores;          // serve, clock: those it may run on; empty: as it is
  bool evict = false;              // serve: the file's pages leave the system's cache first
  std::vector<float> keeps{0};     // one or more; 0: the file's first entry
  bve_options options{BVE_ABI_VERSION, 1, 0, 0, 0, 0, 0};
  std::string input = "random";  // or a path
  std::string picture;           // run: a file; or else `input`
  uint32_t nv21[2] = {0, 0};  // run: the picture is a frame of that width and height; 0: it is not
  uint32_t rotation = 0;      // of that frame
  uint32_t runs = 200;
  uint32_t warmup = 20;
  uint32_t pause_ms = 0;
  double seconds =
      0;  // bench: run so long instead of `runs` times; kernels: so long for each. 0: not given
  bool ops = false;
  std::string filter;
  std::string root;  // probe: where /proc, /sys and /etc lie
  std::string by;    // hold: who
};

// Throws UserError; of an unknown verb or option it names the nearest.
Arguments parse(const std::vector<std::string>& words);

std::string describe_usage();

}  // namespace bve
