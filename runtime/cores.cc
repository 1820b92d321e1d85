#include "cores.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>

#include "error.h"

namespace bve {
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Close>;  // streams would double the library

File open(const std::string& path) { return File(std::fopen(path.c_str(), "r")); }

int read_number(const std::string& path) {
  const File file = open(path);
  int value = 0;
  return file && std::fscanf(file.get(), "%d", &value) == 1 ? value : 0;
}

// Processor number -> "CPU part" of /proc/cpuinfo, which x86 does not have.
std::map<int, int> read_parts(const std::string& root) {
  std::map<int, int> parts;
  const File file = open(root + "/proc/cpuinfo");
  char line[256];
  int number = -1, part = 0;
  while (file && std::fgets(line, sizeof line, file.get())) {
    std::sscanf(line, "processor : %d", &number);
    if (std::sscanf(line, "CPU part : %i", &part) == 1) parts[number] = part;
  }
  return parts;
}

// MIDR part numbers (Arm's technical reference manuals). The A53 and A520 are scheduled like their
// nearest relatives.
bve_core kind_of(int part) {
  switch (part) {
    case 0xd03:
    case 0xd05:
      return bve_a55;
    case 0xd46:
    case 0xd80:
      return bve_a510;
    default:
      return bve_any_core;
  }
}

// What a cgroup of version 2, or of version 1's cpu controller, may use of so many cores.
double read_quota(const std::string& folder, double cores) {
  if (const File file = open(folder + "/cpu.max")) {
    double quota = 0, period = 0;
    if (std::fscanf(file.get(), "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0)
      return std::min(cores, quota / period);
  }
  const int quota = read_number(folder + "/cpu.cfs_quota_us");
  const int period = read_number(folder + "/cpu.cfs_period_us");
  return quota > 0 && period > 0 ? std::min(cores, double(quota) / period) : cores;
}

// Of this cgroup and those around it, below where the system shows them.
double read_quotas(const std::string& top, std::string group, double cores) {
  for (;;) {
    cores = read_quota(top + group, cores);
    const size_t slash = group.rfind('/');
    if (group.empty() || slash == group.npos) return cores;
    group.resize(slash);
  }
}

}  // namespace

size_t count_usable(size_t cores, const std::string& root) {
  const File file = open(root + "/proc/self/cgroup");
  const std::string top = root + "/sys/fs/cgroup";
  double usable = static_cast<double>(cores);
  char line[1024];
  while (file && std::fgets(line, sizeof line, file.get())) {  // 'number:controllers:/group'
    std::string group(line, std::strcspn(line, "\n"));
    const size_t first = group.find(':'), second = group.find(':', first + 1);
    if (first == group.npos || second == group.npos) continue;
    const std::string controllers = "," + group.substr(first + 1, second - first - 1) + ",";
    group.erase(0, second + 1);
    if (controllers == ",,") {
      usable = read_quotas(top, group, read_quotas(top + "/unified", group, usable));
    } else if (controllers.find(",cpu,") != controllers.npos) {
      usable = read_quotas(top + "/cpu", group, usable);
    }
  }
  return std::max<size_t>(1, static_cast<size_t>(std::ceil(usable)));
}

void check_threads(uint32_t threads, size_t usable) {
  if (threads < 1 || threads > usable)
    fail("%u threads, expected 1 to %zu, the cores this process may use", threads, usable);
}

std::vector<Core> list_cores(const std::string& root) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  const bool known = root.empty() && sched_getaffinity(0, sizeof allowed, &allowed) == 0;
  const std::map<int, int> parts = read_parts(root);
  std::vector<Core> cores;
  for (int number = 0; number < CPU_SETSIZE; number++) {
    const std::string folder = root + "/sys/devices/system/cpu/cpu" + std::to_string(number);
    if (known ? !CPU_ISSET(number, &allowed) : !open(folder + "/topology/core_id")) continue;
    int capacity = read_number(folder + "/cpu_capacity");
    if (capacity == 0) capacity = read_number(folder + "/cpufreq/cpuinfo_max_freq");
    const auto part = parts.find(number);
    const bve_core kind = part == parts.end() ? bve_any_core : kind_of(part->second);
    cores.push_back({number, capacity, kind});
  }
  std::sort(cores.begin(), cores.end(), [](const Core& a, const Core& b) {
    return a.capacity != b.capacity ? a.capacity > b.capacity : a.number < b.number;
  });
  return cores;
}

}  // namespace bve
