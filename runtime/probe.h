// What a machine tells of itself.
#pragma once

#include <string>

namespace bve {

// JSON, in the fields of bigvit_edge/machine.py. root: where /proc, /sys and /etc lie; "" for this
// machine, whose affinity then counts too.
std::string describe_machine(const std::string& root);

}  // namespace bve
