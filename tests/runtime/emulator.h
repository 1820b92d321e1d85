// Whether this program runs in an emulator of another CPU.
#pragma once

#include <cstdio>
#include <cstring>

namespace bve::test {

// qemu's user mode may hang in a fork while another of its threads holds a lock.
inline bool is_emulated() {
  char name[32] = "";
  if (std::FILE* const file = std::fopen("/proc/self/comm", "r")) {
    if (!std::fgets(name, sizeof name, file)) name[0] = '\0';
    std::fclose(file);
  }
  return std::strncmp(name, "qemu", 4) == 0;
}

}  // namespace bve::test
