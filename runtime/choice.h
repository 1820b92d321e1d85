// On how many threads, and which cores, a program runs fastest here: by trying.
#pragma once

#include <memory>

#include "session.h"

namespace bve {

// The fastest of sessions on one thread, on the big cores, on both clusters by lanes, and on all
// that options.threads allows, each taking work of either lane. Throws Error as Session does.
std::unique_ptr<Session> choose_session(const Program& program, Weights& weights, float keep,
                                        const bve_options& options, const std::vector<Core>& cores,
                                        size_t usable);

}  // namespace bve
