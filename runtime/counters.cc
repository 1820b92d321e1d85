#include "counters.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "json.h"
#include "system.h"

namespace bve {
namespace {

constexpr char kDevices[] = "/sys/bus/event_source/devices";
constexpr char kParanoid[] = "/proc/sys/kernel/perf_event_paranoid";

// Numbers of the kernel's ABI, for systems that lack its header.
constexpr uint32_t kHardware = 0, kSoftware = 1;     // PERF_TYPE_*
constexpr uint64_t kTaskClock = 1, kPageFaults = 2;  // PERF_COUNT_SW_*

struct Event {
  const char* name;
  uint64_t generic,
      arm;  // PERF_COUNT_HW_*; as Arm's architecture numbers it, for a PMU that is asked by type
};
// cache misses: of the first data cache on Arm, of the last cache elsewhere
constexpr Event kEvents[] = {{"cycles", 0, 0x11},
                             {"instructions", 1, 0x08},
                             {"cache misses", 3, 0x03},
                             {"branch misses", 5, 0x10}};

std::string explain(int fault) {
  switch (fault) {
    case ENOENT:
    case ENODEV:
    case EOPNOTSUPP:
      return "the CPU, or the virtual machine, offers no such counter";
    case EACCES:
    case EPERM: {
      int level = 0;
      std::FILE* const file = std::fopen(kParanoid, "r");
      const bool is_known = file && std::fscanf(file, "%d", &level) == 1;
      if (file) std::fclose(file);
      return "not permitted" +
             (is_known ? ": perf_event_paranoid is " + std::to_string(level) + ", 2 or less counts"
                       : std::string());
    }
    case ENOSYS:
      return "the kernel has no perf_event_open";
    default:
      return std::strerror(fault);
  }
}

bool is_arm(const std::string& pmu) { return pmu.rfind("arm", 0) == 0; }

}  // namespace

std::vector<Pmu> list_pmus(SystemFiles& files) {
  std::vector<Pmu> pmus;
  for (const Folder& folder : files.list(kDevices)) {
    const std::string name(folder.name()), cores = folder.text("cpus");
    if (cores.empty() && name != "cpu" && name.rfind("armv8", 0) != 0) continue;  // of a bus
    pmus.push_back({name, folder.number("type", 0, INT32_MAX), cores});
  }
  return pmus;
}

Counters::Counters(const std::string& root) {
  open("task clock (ns)", "", kSoftware, kTaskClock);
  open("page faults", "", kSoftware, kPageFaults);
  SystemFiles files(root);
  std::vector<Pmu> pmus = list_pmus(files);
  const auto is_of_all = [](const Pmu& pmu) { return pmu.cores.empty() || !pmu.type; };
  pmus.erase(std::remove_if(pmus.begin(), pmus.end(), is_of_all), pmus.end());
  for (const Event& event : kEvents) {
    if (pmus.empty()) open(event.name, "", kHardware, event.generic);
    // a generic event counts on one kind of core alone
    for (const Pmu& pmu : pmus) {
      const auto type = static_cast<uint32_t>(*pmu.type);
      if (is_arm(pmu.name)) {
        open(event.name, pmu.name, type, event.arm);
      } else {
        open(event.name, pmu.name, kHardware, uint64_t{type} << 32 | event.generic);
      }
    }
  }
}

Counters::~Counters() {
  for (const Counter& counter : counters_) {
    if (counter.file >= 0) close(counter.file);
  }
}

void Counters::open(const char* event, const std::string& pmu, uint32_t type, uint64_t config) {
  const int file = open_counter(type, config);
  counters_.push_back({event, pmu, file < 0 ? explain(errno) : "", file});
}

std::string Counters::read() const {
  std::vector<std::string> told;
  for (const Counter& counter : counters_) {
    struct {
      uint64_t count, enabled_ns, running_ns;
    } values{};
    std::vector<std::pair<const char*, std::string>> fields = {
        {"event", json::quote(counter.event)}, {"pmu", json::quote(counter.pmu)}};
    if (counter.file < 0) {
      fields.push_back({"missing", json::quote(counter.missing)});
    } else if (::read(counter.file, &values, sizeof values) != sizeof values) {
      fields.push_back({"missing", json::quote("it cannot be read")});
    } else {
      fields.push_back({"count", json::print_whole(values.count)});
      fields.push_back({"enabled_ns", json::print_whole(values.enabled_ns)});
      fields.push_back({"running_ns", json::print_whole(values.running_ns)});
    }
    told.push_back(json::object(fields));
  }
  return json::list(told);
}

}  // namespace bve
