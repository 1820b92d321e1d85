#include "cgroups.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "error.h"

namespace bve {
namespace {

constexpr const char* kTop = "/sys/fs/cgroup";
constexpr int64_t kMost = INT64_MAX;

struct Group {
  std::string top, name;  // folder of its hierarchy; "/app/job" in it, "" for its root
  bool unified;           // version 2
};

// The folders of a group and of those around it, below where the system shows them.
void visit_groups(const Group& group, const std::function<void(const std::string&)>& visit) {
  std::string name = group.name;
  // outside of what a container sees; and where there is no such folder, what it sees is its own
  if (name.find("/..") != name.npos) name.clear();
  for (;;) {
    visit(group.top + name);
    const size_t slash = name.rfind('/');
    if (name.empty() || slash == name.npos) return;
    name.resize(slash);
  }
}

// Of the controller, or of version 2: lines are 'number:controllers:/group'.
std::vector<Group> find_groups(SystemFiles& files, std::string_view controller) {
  std::vector<Group> groups;
  const std::string text = files.text("/proc/self/cgroup");
  for (const std::string_view line : split(text, "\n")) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    std::string name(line.substr(second + 1));
    if (name == "/") name.clear();
    if (controllers.empty()) {
      groups.push_back({std::string(kTop) + "/unified", name, true});
      groups.push_back({kTop, name, true});
    }
    for (const std::string_view word : split(controllers, ",")) {
      if (word == controller)
        groups.push_back({std::string(kTop) + "/" + std::string(controller), name, false});
    }
  }
  return groups;
}

// What a cgroup of either version grants, in cores.
std::optional<double> read_quota(SystemFiles& files, const std::string& folder, bool unified) {
  std::optional<int64_t> quota, period;
  if (unified) {
    const std::string text = files.text(folder + "/cpu.max");
    const std::vector<std::string_view> words = split(text);
    if (words.size() != 2) return std::nullopt;
    quota = parse_number(words[0]);
    period = parse_number(words[1]);
  } else {
    quota = files.number(folder + "/cpu.cfs_quota_us", 1, kMost);
    period = files.number(folder + "/cpu.cfs_period_us", 1, kMost);
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

void add(std::optional<int64_t>& sum, int64_t value) {
  constexpr int64_t kMostSum = INT64_MAX / 2;
  if (value >= 0 && value < kMostSum) sum = std::min(kMostSum, sum.value_or(0) + value);
}

// 'nr_throttled 3' and 'throttled_usec 1200', or version 1's 'throttled_time' in ns.
void read_throttled(SystemFiles& files, const std::string& folder, Limits& limits) {
  const std::string text = files.text(folder + "/cpu.stat");
  for (const std::string_view line : split(text, "\n")) {
    const std::vector<std::string_view> words = split(line);
    const std::optional<int64_t> value = words.size() == 2 ? parse_number(words[1]) : std::nullopt;
    if (!value) continue;
    if (words[0] == "nr_throttled") add(limits.throttled_periods, *value);
    if (words[0] == "throttled_usec") add(limits.throttled_us, *value);
    if (words[0] == "throttled_time") add(limits.throttled_us, *value / 1000);
  }
}

// The innermost that tells; Android mounts version 1's cpusets elsewhere.
void read_cpuset(SystemFiles& files, Limits& limits) {
  const auto take = [&](const std::string& path) {
    const std::string text = limits.cpuset ? std::string() : files.text(path);
    if (!text.empty()) limits.cpuset = parse_cores(text);
  };
  for (const Group& group : find_groups(files, "cpuset")) {
    if (limits.group.empty()) limits.group = group.name;
    visit_groups(group, [&](const std::string& folder) {
      for (const char* name : {"/cpuset.cpus.effective", "/cpuset.effective_cpus", "/cpuset.cpus"})
        take(folder + name);
    });
  }
  const std::string android = files.text("/proc/self/cpuset");
  if (android.size() > 1 && files.exists("/dev/cpuset" + android)) {
    limits.group = android;
    take("/dev/cpuset" + android + "/cpus");
  }
}

}  // namespace

Limits read_limits(SystemFiles& files) {
  Limits limits;
  read_cpuset(files, limits);
  for (const Group& group : find_groups(files, "cpu")) {
    if (limits.group.empty()) limits.group = group.name;
    visit_groups(group, [&](const std::string& folder) {
      const std::optional<double> quota = read_quota(files, folder, group.unified);
      if (quota) limits.quota_cores = std::min(*quota, limits.quota_cores.value_or(*quota));
      read_throttled(files, folder, limits);
    });
  }
  return limits;
}

size_t count_usable(size_t cores, const Limits& limits) {
  const auto most = static_cast<double>(cores);
  const double usable = std::min(most, limits.quota_cores.value_or(most));
  return std::max<size_t>(1, static_cast<size_t>(std::ceil(usable)));
}

size_t count_usable(size_t cores, const std::string& root) {
  SystemFiles files(root);
  return count_usable(cores, read_limits(files));
}

void check_threads(uint32_t threads, size_t usable) {
  if (threads < 1 || threads > usable)
    fail("%u threads, expected 1 to %zu, the cores this process may use", threads, usable);
}

}  // namespace bve
