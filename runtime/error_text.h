// The text of a bve_error, and how it keeps its parts.
#pragma once

#include <string_view>

#include "bve.h"

namespace bve {

inline constexpr std::string_view kBeforeExpected = ", expected ", kBeforeToDo = "; ";

// Writes 'met, expected this; do that' into `error`, which may be null, without the parts that are
// empty; bve_error_parts tells them apart. What is too long is cut between two letters. Allocates
// nothing.
void set_error(bve_error* error, std::string_view met, std::string_view expected = "",
               std::string_view to_do = "");

}  // namespace bve
