#include "main_frames.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>

#include "json.h"

namespace bve {
namespace {

using json::object;
using json::print;
using json::print_whole;
using json::quote;

constexpr uint32_t kWidth = 1920, kHeight = 1080, kRotation = 90;

struct Labelled {
  uint64_t start_ns, prepared_ns, end_ns;
  size_t top;
};

Labelled label_once(const SessionHandle& session, const bve_frame& frame,
                    std::vector<float>& logits) {
  bve_error error{};
  Labelled labelled{};
  labelled.start_ns = read_clock_ns();
  if (bve_set_frame(session.get(), &frame, &error)) throw UserError(error.text);
  labelled.prepared_ns = read_clock_ns();
  if (bve_run(session.get(), nullptr, 0, logits.data(), logits.size(), &error)) {
    throw UserError(error.text);
  }
  const auto best = std::max_element(logits.begin(), logits.end());
  labelled.top = static_cast<size_t>(best - logits.begin());
  labelled.end_ns = read_clock_ns();
  return labelled;
}

std::string print_ms(uint64_t start_ns, uint64_t end_ns) {
  return print(static_cast<double>(end_ns - start_ns) * 1e-6);
}

}  // namespace

const bve_frame& CameraFrame::get() {
  if (!luma_.empty()) return frame_;
  luma_.resize(size_t{kWidth} * kHeight);
  pairs_.resize(luma_.size() / 2);
  for (uint32_t y = 0; y < kHeight; ++y) {
    for (uint32_t x = 0; x < kWidth; ++x) {
      const size_t at = size_t{y} * kWidth + x;
      luma_[at] = static_cast<uint8_t>(31 * x + 17 * y);
      if (y < kHeight / 2) pairs_[at] = static_cast<uint8_t>(7 * x + 11 * y);
    }
  }
  frame_.planes[0] = luma_.data();
  frame_.planes[1] = pairs_.data();
  frame_.stride_bytes[0] = frame_.stride_bytes[1] = kWidth;
  frame_.width = kWidth;
  frame_.height = kHeight;
  frame_.format = BVE_NV21;
  frame_.rotation = kRotation;
  frame_.matrix = BVE_BT601_FULL;
  return frame_;
}

bool time_frames(const SessionHandle& session, CameraFrame& camera, const Turn& turn,
                 Commands& commands) {
  const bve_frame& frame = camera.get();
  bve_error error{};
  if (bve_set_frame(session.get(), &frame, &error)) {
    tell(object({{"lack", quote(error.text)}}));
    return true;
  }
  std::vector<float> logits(bve_logits_count(session.get()));
  std::vector<std::string> label_ms, prepare_ms;
  label_once(session, frame, logits);  // what rested meanwhile is awake again
  const uint64_t start = read_clock_ns();
  const uint64_t end = start + static_cast<uint64_t>(turn.seconds * 1e9);
  uint64_t due = start + turn.period_ns;
  Labelled last{start, start, start, 0};
  while (label_ms.size() < turn.images || last.end_ns < end) {
    if (commands.ended()) return false;
    const uint64_t now = read_clock_ns();
    if (turn.period_ns > 0 && now < due) {
      std::this_thread::sleep_for(std::chrono::nanoseconds(due - now));
    }
    due += turn.period_ns;
    last = label_once(session, frame, logits);
    prepare_ms.push_back(print_ms(last.start_ns, last.prepared_ns));
    label_ms.push_back(print_ms(last.start_ns, last.end_ns));
  }
  tell(object({{"frame", quote(std::to_string(kWidth) + "x" + std::to_string(kHeight) +
                               " NV21, turned by " + std::to_string(kRotation) + " degrees")},
               {"prepared_by", quote("bve_set_frame")},
               {"start_ns", print_whole(start)},
               {"end_ns", print_whole(last.end_ns)},
               {"label_ms", json::list(label_ms, ", ")},
               {"prepare_ms", json::list(prepare_ms, ", ")},
               {"top", print_whole(last.top)}}));
  return true;
}

}  // namespace bve
