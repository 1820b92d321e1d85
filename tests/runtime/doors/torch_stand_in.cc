// What ExecuTorch's Python module takes from torch and Python, for programs without them: one
// thread, and a stop in whatever else is called. The names that stop are appended by CMake.

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <iostream>  // makes std::cerr, which what gcc 13 compiled takes for made

extern "C" {

__attribute__((used)) void stop() {
  std::fputs("called a function that is torch's or Python's, which this program lacks\n", stderr);
  std::abort();
}

bool cpuinfo_initialize() { return false; }
void* pthreadpool_create(size_t) {
  static char one;
  return &one;
}
void pthreadpool_destroy(void*) {}
size_t pthreadpool_get_threads_count(void*) { return 1; }
}
