#include "counters.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "json.h"

namespace bve {
namespace {

constexpr char kDevices[] = "/sys/bus/event_source/devices";
constexpr char kParanoid[] = "/proc/sys/kernel/perf_event_paranoid";

struct Event {
  const char* name;
  uint64_t generic, arm;  // arm: as Arm's architecture numbers it, for a PMU that is asked by type
};
// cache misses: of the first data cache on Arm, of the last cache elsewhere
constexpr Event kEvents[] = {{"cycles", PERF_COUNT_HW_CPU_CYCLES, 0x11},
                             {"instructions", PERF_COUNT_HW_INSTRUCTIONS, 0x08},
                             {"cache misses", PERF_COUNT_HW_CACHE_MISSES, 0x03},
                             {"branch misses", PERF_COUNT_HW_BRANCH_MISSES, 0x10}};

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
  open("task clock (ns)", "", PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK);
  open("page faults", "", PERF_TYPE_SOFTWARE, PERF_COUNT_SW_PAGE_FAULTS);
  SystemFiles files(root);
  std::vector<Pmu> pmus = list_pmus(files);
  const auto is_of_all = [](const Pmu& pmu) { return pmu.cores.empty() || !pmu.type; };
  pmus.erase(std::remove_if(pmus.begin(), pmus.end(), is_of_all), pmus.end());
  for (const Event& event : kEvents) {
    if (pmus.empty()) open(event.name, "", PERF_TYPE_HARDWARE, event.generic);
    // a generic event counts on one kind of core alone
    for (const Pmu& pmu : pmus) {
      const auto type = static_cast<uint32_t>(*pmu.type);
      if (is_arm(pmu.name)) {
        open(event.name, pmu.name, type, event.arm);
      } else {
        open(event.name, pmu.name, PERF_TYPE_HARDWARE, uint64_t{type} << 32 | event.generic);
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
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = type;
  attributes.config = config;
  attributes.inherit = 1;
  attributes.exclude_kernel = attributes.exclude_hv = 1;
  attributes.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
  const long file = syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
  counters_.push_back({event, pmu, file < 0 ? explain(errno) : "", static_cast<int>(file)});
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
