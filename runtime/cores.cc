#include "cores.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <tuple>

#include "system.h"

namespace bve {
namespace {

constexpr int64_t kMostCapacity = 1024;
constexpr double kAlike = 0.9;  // of a speed: big still, and on x86 the same cluster

struct Part {
  uint32_t implementer, part;
  const char* name;
  bve_core kind;
};

constexpr Part kParts[] = {
#define BVE_PART(implementer, part, name, kind) {implementer, part, name, kind},
#include "parts.inc"
#undef BVE_PART
};

void name_part(CoreFacts& core) {
  const uint32_t implementer = core.midr >> 24, part = core.midr >> 4 & 0xfff;
  for (const Part& known : kParts) {
    if (known.implementer != implementer || known.part != part) continue;
    core.name = known.name;
    core.kind = known.kind;
    core.efficient = known.kind != bve_any_core;
    return;
  }
  char name[16];
  std::snprintf(name, sizeof name, "0x%02x:0x%03x", implementer, part);
  core.name = name;
}

// Of a system without such files. Its numbers are only names: nobody can be told to keep to them.
void add_levels(std::map<int, CoreFacts>& cores) {
  int number = 0;
  bool is_first = true;
  for (const int count : count_cores_by_level()) {
    for (const int end = number + count; number < end; number++) {
      CoreFacts core{number};
      core.name = is_first ? "P-core" : "E-core";
      core.efficient = !is_first;
      cores.insert({number, core});
    }
    is_first = false;
  }
}

// The numbers of folders cpu0, cpu1 and so on; those that are online, where the system tells.
std::map<int, CoreFacts> find_cores(SystemFiles& files, const CpuInfo& info) {
  std::map<int, CoreFacts> cores;
  for (const Folder& cpu : files.list(kCpus, "cpu")) {
    const auto number = parse_cores(cpu.name().substr(3));
    if (number && number->size() == 1) cores[number->front()] = {number->front()};
  }
  const std::string text = files.text(std::string(kCpus) + "/online");
  const std::optional<std::vector<int>> online = parse_cores(text);
  for (auto& [number, core] : cores) {
    const std::string path = kCpus + ("/cpu" + std::to_string(number)) + "/online";
    core.online = !text.empty() && online
                      ? std::binary_search(online->begin(), online->end(), number)
                      : files.text(path) != "0";
  }
  for (const int number : info.processors) cores.insert({number, {number}});
  if (files.here()) add_levels(cores);
  return cores;
}

// Each policy's cores share a clock.
void read_domains(SystemFiles& files, std::map<int, CoreFacts>& cores) {
  for (const Folder& policy : files.list(std::string(kCpus) + "/cpufreq", "policy")) {
    const auto related = parse_cores(policy.text("related_cpus"));
    for (const int number : related.value_or(std::vector<int>())) {
      const auto found = cores.find(number);
      if (found == cores.end()) continue;
      found->second.domain = related->front();
      found->second.shared = related->size() > 1;
    }
  }
}

void read_core(SystemFiles& files, CoreFacts& core) {
  const Folder folder(files, kCpus + ("/cpu" + std::to_string(core.number)));
  const auto number = [&](const char* name, int64_t most) {
    return static_cast<int>(folder.number(name, 1, most).value_or(0));
  };
  core.capacity = number("cpu_capacity", kMostCapacity);
  if (!core.online) return;
  core.max_khz = number("cpufreq/cpuinfo_max_freq", kMostKhz);
  if (const auto midr = folder.number("regs/identification/midr_el1", 1, UINT32_MAX))
    core.midr = static_cast<uint32_t>(*midr);
}

// Intel's hybrid CPUs have a performance monitor for each kind of core.
void read_hybrid(SystemFiles& files, std::map<int, CoreFacts>& cores) {
  for (const auto& [folder, name] :
       {std::pair{"cpu_core", "P-core"}, {"cpu_atom", "E-core"}, {"cpu_lowpower", "LP E-core"}}) {
    const auto numbers = parse_cores(files.text("/sys/devices/" + std::string(folder) + "/cpus"));
    for (const int number : numbers.value_or(std::vector<int>())) {
      const auto found = cores.find(number);
      if (found == cores.end() || found->second.midr != 0) continue;
      found->second.name = name;
      found->second.efficient = name != std::string_view("P-core");
    }
  }
}

// What cores are ordered by. Capacity counts only if all tell it, and clocks cannot part what
// capacities say is equal; where a kernel was not given any, all are 1024.
class Speeds {
 public:
  explicit Speeds(const std::vector<CoreFacts>& cores) {
    int least = INT32_MAX, most = 0;
    bool clocks = true;
    for (const CoreFacts& core : cores) {
      if (!core.online) continue;
      least = std::min(least, core.capacity);
      most = std::max(most, core.capacity);
      clocks &= core.max_khz > 0;
    }
    capacities_ = least > 0 && (least < most || !clocks);
    clocks_ = clocks;
  }

  int of(const CoreFacts& core) const {
    return capacities_ ? core.capacity : clocks_ ? core.max_khz : 0;
  }
  // Rising in it is falling in speed.
  std::tuple<int, bool, int, int64_t> order(const CoreFacts& core) const {
    return {capacities_ ? -core.capacity : 0, core.efficient, -core.max_khz, -int64_t{core.midr}};
  }
  Core schedule(const CoreFacts& core) const {
    return {core.number, of(core), core.kind, core.efficient};
  }

 private:
  bool capacities_, clocks_;
};

bool are_alike(const Speeds& speeds, const CoreFacts& first, const CoreFacts& core) {
  if (first.name != core.name) return false;
  if (first.midr == 0 && core.midr == 0) return speeds.of(core) >= kAlike * speeds.of(first);
  if (speeds.order(first) != speeds.order(core)) return false;
  return first.shared || core.shared ? first.domain == core.domain : true;
}

std::string find_word(const Speeds& speeds, const CoreFacts& fastest, const CoreFacts& core) {
  if (is_little(speeds.schedule(core), speeds.schedule(fastest))) return "little";
  const bool big = core.name == fastest.name && speeds.of(core) >= kAlike * speeds.of(fastest);
  return big ? "big" : "middle";
}

}  // namespace

bool is_little(const Core& core, const Core& fastest) {
  return core.capacity < kLittle * fastest.capacity || (core.efficient && !fastest.efficient);
}

bool is_slower(const Core& core, const Core& other) {
  return core.capacity < other.capacity || (core.efficient && !other.efficient);
}

std::vector<CoreFacts> read_cores(SystemFiles& files, const CpuInfo& info) {
  std::map<int, CoreFacts> found = find_cores(files, info);
  read_domains(files, found);
  std::vector<CoreFacts> cores;
  for (auto& [number, core] : found) {
    if (const auto midr = info.midrs.find(number); midr != info.midrs.end())
      core.midr = midr->second;
    read_core(files, core);
    if (core.midr != 0) name_part(core);
  }
  read_hybrid(files, found);
  for (auto& [number, core] : found) cores.push_back(std::move(core));
  return cores;
}

std::vector<Cluster> group_cores(const std::vector<CoreFacts>& cores) {
  const Speeds speeds(cores);
  std::vector<CoreFacts> sorted;
  for (const CoreFacts& core : cores) {
    if (core.online) sorted.push_back(core);
  }
  const auto key = [&](const CoreFacts& core) {
    return std::tuple(speeds.order(core), core.name, core.shared ? core.domain : -1, core.number);
  };
  std::sort(sorted.begin(), sorted.end(),
            [&](const CoreFacts& a, const CoreFacts& b) { return key(a) < key(b); });
  std::vector<Cluster> clusters;
  for (const CoreFacts& core : sorted) {
    if (clusters.empty() || !are_alike(speeds, clusters.back().cores[0], core))
      clusters.push_back({find_word(speeds, sorted[0], core), {}});
    clusters.back().cores.push_back(core);
  }
  for (Cluster& cluster : clusters) {
    std::sort(cluster.cores.begin(), cluster.cores.end(),
              [](const CoreFacts& a, const CoreFacts& b) { return a.number < b.number; });
  }
  return clusters;
}

std::vector<Core> list_cores(const std::string& root) {
  SystemFiles files(root);
  std::vector<CoreFacts> facts = read_cores(files, read_cpuinfo(files));
  if (const std::optional<std::vector<int>> allowed =
          files.here() ? read_affinity() : std::nullopt) {
    std::vector<CoreFacts> kept;
    for (const int number : *allowed) {
      const auto found = std::find_if(facts.begin(), facts.end(),
                                      [&](const CoreFacts& core) { return core.number == number; });
      kept.push_back(found == facts.end() ? CoreFacts{number} : *found);
      kept.back().online = true;
    }
    facts = std::move(kept);
  }
  const Speeds speeds(facts);
  std::vector<Core> cores;
  for (const Cluster& cluster : group_cores(facts)) {
    for (const CoreFacts& core : cluster.cores) cores.push_back(speeds.schedule(core));
  }
  return cores;
}

}  // namespace bve
