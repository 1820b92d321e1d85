#include "bell.h"

#include "system.h"

namespace bve {

void Bell::relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void Bell::wait_for_ring(uint32_t rung) { wait_while(rung_, rung); }

void Bell::wake() {
  rung_++;
  wake_all(rung_);
}

}  // namespace bve
