#include "main_hold.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace bve {
namespace {

[[noreturn]] void refuse(const std::string& path) {
  throw UserError(path + ": " + std::strerror(errno) + ", expected a file to lock");
}

// Open for whoever may write there. Not made by a plain O_CREAT, which Linux refuses in /tmp of a
// file that another user made.
int open_file(const std::string& path) {
  constexpr int kFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
  for (;;) {
    int file = open(path.c_str(), kFlags);
    if (file < 0 && errno == ENOENT) {
      file = open(path.c_str(), kFlags | O_CREAT | O_EXCL, 0666);
      if (file < 0 && errno == EEXIST) continue;
      if (file >= 0) fchmod(file, 0666);  // whatever umask says
    }
    struct stat told;
    if (file < 0 || fstat(file, &told)) refuse(path);
    if (!S_ISREG(told.st_mode)) {
      throw UserError(path + ", which is no file, expected a file to lock");
    }
    return file;
  }
}

// Whoever only looks whether it is free has it for a moment.
bool take(int file) {
  constexpr int kTries = 20;
  constexpr useconds_t kMomentUs = 10'000;
  for (int i = 1;; ++i) {
    if (!flock(file, LOCK_EX | LOCK_NB)) return true;
    if (errno != EWOULDBLOCK || i == kTries) return false;
    usleep(kMomentUs);
  }
}

bool is_still(const std::string& path, int file) {
  struct stat opened, there;
  return !fstat(file, &opened) && !stat(path.c_str(), &there) && opened.st_ino == there.st_ino &&
         opened.st_dev == there.st_dev;
}

int tell_holder(int file) {
  char by[256];
  const ssize_t count = std::max<ssize_t>(pread(file, by, sizeof by - 1, 0), 0);
  by[count] = 0;
  struct stat told{};
  fstat(file, &told);
  std::printf("busy %lld %s\n", static_cast<long long>(std::time(nullptr) - told.st_mtime), by);
  return 1;
}

}  // namespace

int hold(const Arguments& arguments) {
  std::signal(SIGHUP, SIG_IGN);  // stdin ends as well, and then the file goes
  int file;
  for (;;) {
    file = open_file(arguments.file);
    if (!take(file)) {
      if (errno != EWOULDBLOCK) refuse(arguments.file);
      return tell_holder(file);
    }
    if (is_still(arguments.file, file)) break;
    close(file);  // its holder has removed it meanwhile
  }
  if (ftruncate(file, 0) || pwrite(file, arguments.by.data(), arguments.by.size(), 0) < 0) {
    refuse(arguments.file);
  }
  std::puts("held");
  std::fflush(stdout);
  char any[64];
  while (read(STDIN_FILENO, any, sizeof any) > 0) {
  }
  unlink(arguments.file.c_str());
  return 0;
}

}  // namespace bve
