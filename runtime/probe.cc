#include "probe.h"

#include <algorithm>
#include <cmath>

#include "cgroups.h"
#include "cores.h"
#include "counters.h"
#include "cpuinfo.h"
#include "json.h"
#include "names.h"
#include "sensors.h"
#include "system.h"

namespace bve {
namespace {

constexpr const char* kNull = "null";

// An object's text, written field by field.
class Record {
 public:
  explicit Record(const char* separator = ", ") : separator_(separator) {}

  Record& json(const char* name, std::string_view value) {
    text_.append(text_.size() > 1 ? separator_ : "").append("\"").append(name);
    text_.append("\": ").append(value);
    return *this;
  }
  Record& text(const char* name, std::string_view value) { return json(name, json::quote(value)); }
  Record& flag(const char* name, bool value) { return json(name, json::print_bool(value)); }
  Record& number(const char* name, const std::optional<int64_t>& value) {
    return json(name, value ? std::to_string(*value) : kNull);
  }
  Record& real(const char* name, const std::optional<double>& value) {
    return json(name, value ? json::print(*value) : kNull);
  }
  // Where 0 says that it is not known.
  Record& known(const char* name, int value) {
    return json(name, value > 0 ? std::to_string(value) : kNull);
  }
  Record& numbers(const char* name, const std::optional<std::vector<int>>& values) {
    std::string list;
    for (const int value : values.value_or(std::vector<int>()))
      list.append(list.empty() ? "" : ", ").append(std::to_string(value));
    return json(name, values ? "[" + list + "]" : kNull);
  }
  std::string end() { return std::move(text_) + "}"; }

 private:
  const char* separator_;
  std::string text_ = "{";
};

template <typename Item, typename Print>
std::string print_list(const std::vector<Item>& items, Print print) {
  std::string list;
  for (const Item& item : items) list.append(list.empty() ? "" : ",\n  ").append(print(item));
  return "[" + list + "]";
}

std::string print_words(const std::vector<std::string>& words) {
  std::string list;
  for (const std::string& word : words)
    list.append(list.empty() ? "" : ", ").append(json::quote(word));
  return "[" + list + "]";
}

// ---- cores -------------------------------------------------------------------------------------

std::string print_core(SystemFiles& files, const CoreFacts& core) {
  const Folder folder(files, kCpus + ("/cpu" + std::to_string(core.number)) + "/cpufreq");
  const auto khz = [&](const char* name) {
    return core.online ? folder.number(name, 1, kMostKhz) : std::nullopt;
  };
  char midr[16] = "";
  if (core.midr != 0) std::snprintf(midr, sizeof midr, "0x%08x", core.midr);
  return Record()
      .number("number", core.number)
      .flag("online", core.online)
      .text("midr", midr)
      .text("name", core.name)
      .known("capacity", core.capacity)
      .number("min_khz", khz("cpuinfo_min_freq"))
      .known("max_khz", core.max_khz)
      .number("current_khz", khz("scaling_cur_freq"))
      .text("governor", core.online ? folder.text("scaling_governor") : "")
      .number("domain", core.domain < 0 ? std::nullopt : std::optional<int64_t>(core.domain))
      .end();
}

std::string print_cluster(const Cluster& cluster) {
  std::vector<int> numbers;
  int capacity = 0, max_khz = 0;
  for (const CoreFacts& core : cluster.cores) {
    numbers.push_back(core.number);
    capacity = std::max(capacity, core.capacity);
    max_khz = std::max(max_khz, core.max_khz);
  }
  return Record()
      .text("word", cluster.word)
      .text("name", cluster.cores[0].name)
      .numbers("cores", numbers)
      .known("capacity", capacity)
      .known("max_khz", max_khz)
      .end();
}

std::string print_limits(SystemFiles& files, size_t online) {
  const Limits limits = read_limits(files);
  const auto allowed = files.here() ? read_affinity() : std::nullopt;
  const size_t most = allowed ? allowed->size() : online;
  const size_t usable = count_usable(most, limits);
  return Record()
      .numbers("allowed", allowed)
      .text("group", limits.group)
      .numbers("cpuset", limits.cpuset)
      .real("quota_cores", limits.quota_cores)
      .number("throttled_periods", limits.throttled_periods)
      .number("throttled_us", limits.throttled_us)
      .number("usable", most > 0 ? std::optional<int64_t>(usable) : std::nullopt)
      .end();
}

std::string print_pmus(SystemFiles& files) {
  return print_list(list_pmus(files), [](const Pmu& pmu) {
    return Record()
        .text("name", pmu.name)
        .number("type", pmu.type)
        .numbers("cores", pmu.cores.empty() ? std::nullopt : parse_cores(pmu.cores))
        .end();
  });
}

// ---- the rest ----------------------------------------------------------------------------------

// 'MemTotal: 16166592 kB', which are KiB.
std::optional<int64_t> find_memory(const std::string& text, std::string_view name) {
  for (const std::string_view line : split(text, "\n")) {
    const std::vector<std::string_view> words = split(line, " \t:");
    const auto kib = words.size() > 1 && words[0] == name ? parse_number(words[1]) : std::nullopt;
    if (kib && *kib >= 0 && *kib < INT64_MAX / 1024) return *kib * 1024;
  }
  return std::nullopt;
}

bool is_memory_clock(std::string_view name) {
  for (const char* word :
       {"dmc", "ddr", "DDR", "emc", "mif", "dvfsrc", "memory-controller", "dram"}) {
    if (contains(name, word)) return true;
  }
  return false;
}

// devfreq's; and of Qualcomm's kernels, which keep memory's clock elsewhere, in kHz.
std::vector<Folder> list_clocks(SystemFiles& files) {
  std::vector<Folder> clocks = files.list("/sys/class/devfreq");
  for (const Folder& folder : files.list(std::string(kCpus) + "/bus_dcvs")) {
    if (folder.has("cur_freq")) clocks.push_back(folder);
  }
  return clocks;
}

std::string print_clock(const Folder& folder) {
  const FileText read = folder.read("cur_freq");
  return Record()
      .text("name", folder.name())
      .text("path", folder.path("cur_freq"))
      .text("raw", read.text)
      .text("governor", folder.text("governor"))
      .flag("memory", is_memory_clock(folder.name()))
      .text("why", explain_errno(read.error))
      .end();
}

// Of the firmware's device, whose folder is named after its address on newer boards.
std::string find_throttled(SystemFiles& files) {
  for (const Folder& soc : files.list("/sys/devices/platform", "soc")) {
    for (const Folder& device : files.list(soc.path(), "soc")) {
      if (contains(device.name(), "firmware") && device.has("get_throttled"))
        return device.path("get_throttled");
    }
  }
  return "";
}

// The kernel's file has hexadecimal without 0x; the program needs to be run.
std::string print_throttled(SystemFiles& files) {
  const std::string path = find_throttled(files), program = find_vcgencmd(files);
  std::string why = path.empty() && program.empty() ? "neither a file nor vcgencmd" : "";
  std::optional<int64_t> bits;
  if (!path.empty()) {
    const FileText read = files.read(path);
    bits = parse_number(read.text.rfind("0x", 0) == 0 ? read.text : "0x" + read.text);
    why = read.error ? explain_errno(read.error) : bits ? "" : "no bits";
  }
  return Record()
      .text("path", path)
      .number("bits", bits)
      .text("vcgencmd", program)
      .text("why", why)
      .end();
}

std::string print_zone(const Zone& zone) {
  return Record()
      .text("type", zone.type)
      .text("path", zone.path)
      .real("temp_c", zone.temp_c)
      .text("raw", zone.raw)
      .flag("cpu", zone.cpu)
      .text("why", zone.why)
      .end();
}

std::string print_reading(const Reading& reading) {
  return Record()
      .text("quantity", reading.quantity)
      .text("unit", reading.unit)
      .text("path", reading.path)
      .text("raw", reading.raw)
      .end();
}

std::string print_sensor(const Sensor& sensor) {
  return Record()
      .text("kind", sensor.kind)
      .text("chip", sensor.chip)
      .text("label", sensor.label)
      .flag("total", sensor.total)
      .json("readings", print_list(sensor.readings, print_reading))
      .number("wraps_at", sensor.wraps_at)
      .flag("readable", sensor.why.empty())
      .text("why", sensor.why)
      .end();
}

std::string print_unread(const SystemFiles::Unread& unread) {
  return Record().text("path", unread.path).text("why", explain_errno(unread.error)).end();
}

bool mentions(const std::vector<std::string>& words, std::string_view part) {
  return std::any_of(words.begin(), words.end(),
                     [&](const std::string& word) { return contains(word, part); });
}

}  // namespace

std::string describe_machine(const std::string& root) {
  SystemFiles files(root);
  const CpuInfo info = read_cpuinfo(files);
  const Names names = read_names(files, info);
  const std::vector<CoreFacts> cores = read_cores(files, info);
  const std::vector<Cluster> clusters = group_cores(cores);
  size_t online = 0;
  for (const Cluster& cluster : clusters) online += cluster.cores.size();
  const std::string memory = files.text("/proc/meminfo");
  const auto print = [&](const CoreFacts& core) { return print_core(files, core); };
  Record record(",\n ");
  record.text("cpu", names.cpu)
      .text("board", names.board)
      .json("compatible", print_words(names.compatible))
      .text("architecture", names.architecture)
      .json("cores", print_list(cores, print))
      .json("clusters", print_list(clusters, print_cluster))
      .json("isa", print_words(info.isa))
      .number("memory_bytes", find_memory(memory, "MemTotal"))
      .number("available_bytes", find_memory(memory, "MemAvailable"))
      .text("os", names.os)
      .text("kernel", names.kernel)
      .json("limits", print_limits(files, online))
      .json("zones", print_list(read_zones(files), print_zone))
      .json("clocks", print_list(list_clocks(files), print_clock))
      .json("throttled", mentions(names.compatible, "raspberrypi") ? print_throttled(files) : kNull)
      .number("perf_event_paranoid", files.number("/proc/sys/kernel/perf_event_paranoid", -9, 9))
      .json("pmus", print_pmus(files))
      .json("sensors",
            print_list(read_sensors(files, mentions(names.compatible, "bcm2712")), print_sensor));
  record.json("unread", print_list(files.unread(), print_unread));
  return record.end();
}

}  // namespace bve
