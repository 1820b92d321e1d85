// Token dispatch by itself, without a program; bve.h says what it does.
#pragma once

#include "bve.h"

namespace bve {

// Throws Error on counts that cannot be, before anything is written.
void dispatch_tokens(const bve_tokens& tokens);

}  // namespace bve
