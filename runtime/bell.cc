#include "bell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace bve {
namespace {

static_assert(sizeof(std::atomic<uint32_t>) == 4 && std::atomic<uint32_t>::is_always_lock_free);

void call_futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
  syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
}

}  // namespace

void Bell::relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void Bell::wait_for_ring(uint32_t rung) { call_futex(rung_, FUTEX_WAIT_PRIVATE, rung); }

void Bell::wake() {
  rung_++;
  call_futex(rung_, FUTEX_WAKE_PRIVATE, INT_MAX);
}

}  // namespace bve
