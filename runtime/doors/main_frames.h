// A camera's frame in memory, and turns from there to its class: what an app pays for a label.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "main_commands.h"
#include "main_program.h"

namespace bve {

struct Turn {
  double seconds;
  size_t images;
  uint64_t period_ns;  // 0: one image after the other
};

// The frame that every runner has (bigvit_edge/bench/frame_reader.py): NV21, 1920 x 1080, to be
// turned by 90 degrees. Drawn when it is first asked for.
class CameraFrame {
 public:
  const bve_frame& get();

 private:
  std::vector<uint8_t> luma_, pairs_;
  bve_frame frame_{};
};

// Times frames for so many seconds and at least so many, and tells them, or why the program takes
// none; false if whoever asks has gone.
bool time_frames(const SessionHandle& session, CameraFrame& camera, const Turn& turn,
                 Commands& commands);

}  // namespace bve
