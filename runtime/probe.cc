#include "probe.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cgroups.h"
#include "cores.h"
#include "cpuinfo.h"
#include "json.h"
#include "sensors.h"

namespace bve {
namespace {

using Fields = std::vector<std::pair<const char*, std::string>>;

constexpr char kItems[] = ",\n  ";
constexpr const char* kNull = "null";

std::string print_known(int64_t value) { return value > 0 ? std::to_string(value) : kNull; }

std::string print_optional(const std::optional<int64_t>& value) {
  return value ? std::to_string(*value) : kNull;
}

template <typename Item, typename Print>
std::string print_list(const std::vector<Item>& items, Print print, const char* separator = ", ") {
  std::vector<std::string> printed;
  for (const Item& item : items) printed.push_back(print(item));
  return json::list(printed, separator);
}

std::string print_numbers(const std::vector<int>& numbers) {
  return print_list(numbers, [](int number) { return std::to_string(number); });
}

std::string print_numbers(const std::optional<std::vector<int>>& numbers) {
  return numbers ? print_numbers(*numbers) : kNull;
}

std::string print_midr(uint32_t midr) {
  char text[16] = "";
  if (midr != 0) std::snprintf(text, sizeof text, "0x%08x", midr);
  return json::quote(text);
}

std::string explain(int error) { return error ? std::strerror(error) : ""; }

// ---- cores -------------------------------------------------------------------------------------

std::string print_core(SystemFiles& files, const CoreFacts& core) {
  const std::string folder = std::string(kCpus) + "/cpu" + std::to_string(core.number) + "/cpufreq";
  const auto khz = [&](const char* name) {
    return print_optional(core.online ? files.number(folder + name, 1, kMostKhz) : std::nullopt);
  };
  return json::object(
      {{"number", std::to_string(core.number)},
       {"online", json::print_bool(core.online)},
       {"midr", print_midr(core.midr)},
       {"name", json::quote(core.name)},
       {"capacity", print_known(core.capacity)},
       {"min_khz", khz("/cpuinfo_min_freq")},
       {"max_khz", print_known(core.max_khz)},
       {"current_khz", khz("/scaling_cur_freq")},
       {"governor", json::quote(core.online ? files.text(folder + "/scaling_governor") : "")},
       {"domain", core.domain >= 0 ? std::to_string(core.domain) : kNull}});
}

std::string print_cluster(const Cluster& cluster) {
  std::vector<int> numbers;
  int capacity = 0, max_khz = 0;
  for (const CoreFacts& core : cluster.cores) {
    numbers.push_back(core.number);
    capacity = std::max(capacity, core.capacity);
    max_khz = std::max(max_khz, core.max_khz);
  }
  return json::object({{"word", json::quote(cluster.word)},
                       {"name", json::quote(cluster.cores[0].name)},
                       {"cores", print_numbers(numbers)},
                       {"capacity", print_known(capacity)},
                       {"max_khz", print_known(max_khz)}});
}

std::string print_limits(SystemFiles& files, size_t online) {
  const Limits limits = read_limits(files);
  const auto allowed = files.here() ? read_affinity() : std::nullopt;
  const double most = static_cast<double>(allowed ? allowed->size() : online);
  const double usable = std::max(1.0, std::ceil(std::min(most, limits.quota_cores.value_or(most))));
  return json::object(
      {{"allowed", print_numbers(allowed)},
       {"group", json::quote(limits.group)},
       {"cpuset", print_numbers(limits.cpuset)},
       {"quota_cores", limits.quota_cores ? json::print(*limits.quota_cores) : kNull},
       {"throttled_periods", print_optional(limits.throttled_periods)},
       {"throttled_us", print_optional(limits.throttled_us)},
       {"usable", most > 0 ? json::print(usable) : kNull}});
}

std::string print_pmus(SystemFiles& files) {
  const std::string top = "/sys/bus/event_source/devices";
  std::vector<std::string> pmus;
  for (const std::string& name : files.list(top)) {
    const std::string folder = top + "/" + name;
    const std::string text = files.text(folder + "/cpus");
    if (text.empty() && name != "cpu" && name.rfind("armv8", 0) != 0) continue;  // of a bus
    pmus.push_back(
        json::object({{"name", json::quote(name)},
                      {"type", print_optional(files.number(folder + "/type", 0, INT32_MAX))},
                      {"cores", text.empty() ? kNull : print_numbers(parse_cores(text))}}));
  }
  return json::list(pmus, kItems);
}

// ---- what it is --------------------------------------------------------------------------------

// Of NAME=value, as /etc/os-release and Android's build.prop have them.
std::string find_property(const std::string& text, std::string_view name) {
  for (const std::string_view line : split(text, "\n")) {
    if (line.substr(0, name.size()) != name || line.substr(name.size(), 1) != "=") continue;
    std::string_view value = trim(line.substr(name.size() + 1));
    if (value.size() > 1 && (value[0] == '"' || value[0] == '\'') && value.back() == value[0])
      value = value.substr(1, value.size() - 2);
    return std::string(value);
  }
  return "";
}

struct Names {
  std::string cpu, board, os, kernel, architecture;
  std::vector<std::string> compatible;
};

// What makers leave in a field that they were to fill in.
bool says_something(const std::string& text) {
  for (const char* word : {"", "To Be Filled By O.E.M.", "Default string", "System Product Name",
                           "System manufacturer", "Not Specified", "None"}) {
    if (text == word) return false;
  }
  return true;
}

std::string join(const std::vector<std::string>& words) {
  std::string joined;
  for (const std::string& word : words) {
    if (says_something(word) && joined.find(word) == joined.npos)
      joined += (joined.empty() ? "" : " ") + word;
  }
  return joined;
}

std::string first_of(const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    if (says_something(text)) return text;
  }
  return "";
}

Names read_names(SystemFiles& files, const CpuInfo& info) {
  Names names;
  const std::string tree = "/proc/device-tree", dmi = "/sys/class/dmi/id",
                    soc = "/sys/devices/soc0";
  const std::string compatible = files.text(tree + "/compatible");
  for (const std::string_view word : split(compatible, std::string_view("\0\n", 2)))
    names.compatible.emplace_back(word);
  const std::string system = files.read("/system/build.prop", 1 << 18).text;
  const std::string vendor = files.read("/vendor/build.prop", 1 << 18).text;
  const auto property = [&](const char* name) {
    return first_of({find_property(vendor, name), find_property(system, name)});
  };
  names.board = first_of(
      {join({property("ro.product.manufacturer"), property("ro.product.model")}),
       join({property("ro.product.vendor.manufacturer"), property("ro.product.vendor.model")}),
       files.text(tree + "/model"),
       join({files.text(dmi + "/sys_vendor"), files.text(dmi + "/product_name")}),
       join({files.text(dmi + "/board_vendor"), files.text(dmi + "/board_name")})});
  names.cpu =
      first_of({info.model, join({property("ro.soc.manufacturer"), property("ro.soc.model")}),
                join({files.text(soc + "/family"), files.text(soc + "/machine")}), info.hardware,
                names.compatible.empty() ? "" : names.compatible.back()});
  names.kernel = files.text("/proc/sys/kernel/osrelease");
  const std::string android = first_of({find_property(system, "ro.build.version.release"),
                                        find_property(vendor, "ro.vendor.build.version.release")});
  names.os = first_of({find_property(files.text("/etc/os-release"), "PRETTY_NAME"),
                       find_property(files.text("/usr/lib/os-release"), "PRETTY_NAME"),
                       !android.empty()                            ? "Android " + android
                       : files.exists("/system/bin/app_process64") ? "Android"
                                                                   : "",
                       files.text("/proc/sys/kernel/ostype")});
  names.architecture = files.text("/proc/sys/kernel/arch");
  utsname system_name;
  if (files.here() && uname(&system_name) == 0) names.architecture = system_name.machine;
  return names;
}

// ---- the rest ----------------------------------------------------------------------------------

// 'MemTotal: 16166592 kB', which are KiB.
std::string find_memory(const std::string& text, std::string_view name) {
  for (const std::string_view line : split(text, "\n")) {
    const std::vector<std::string_view> words = split(line, " \t:");
    const auto kib = words.size() > 1 && words[0] == name ? parse_number(words[1]) : std::nullopt;
    if (kib && *kib >= 0 && *kib < INT64_MAX / 1024) return std::to_string(*kib * 1024);
  }
  return kNull;
}

std::string print_clocks(SystemFiles& files) {
  const std::string top = "/sys/class/devfreq";
  std::vector<std::string> clocks;
  for (const std::string& name : files.list(top)) {
    const std::string folder = top + "/" + name;
    const FileText read = files.read(folder + "/cur_freq");
    bool memory = false;
    for (const char* word : {"dmc", "ddr", "emc", "mif", "dvfsrc", "memory-controller", "dram"})
      memory |= name.find(word) != name.npos;
    clocks.push_back(json::object({{"name", json::quote(name)},
                                   {"path", json::quote(folder + "/cur_freq")},
                                   {"raw", json::quote(read.text)},
                                   {"governor", json::quote(files.text(folder + "/governor"))},
                                   {"memory", json::print_bool(memory)},
                                   {"why", json::quote(explain(read.error))}}));
  }
  return json::list(clocks, kItems);
}

// Hexadecimal without 0x in the kernel's file; the program needs to be run.
std::string print_throttled(SystemFiles& files) {
  const std::string path = "/sys/devices/platform/soc/soc:firmware/get_throttled";
  const FileText read = files.read(path);
  const bool there = files.exists(path);
  const std::string program = find_vcgencmd(files);
  const std::string word = read.text.rfind("0x", 0) == 0 ? read.text : "0x" + read.text;
  const std::optional<int64_t> bits = there ? parse_number(word) : std::nullopt;
  const std::string why = there && read.error ? explain(read.error)
                          : bits              ? ""
                          : there             ? "no bits"
                          : program.empty()   ? "neither a file of the kernel nor vcgencmd"
                                              : "";
  return json::object({{"path", json::quote(there ? path : "")},
                       {"bits", print_optional(bits)},
                       {"vcgencmd", json::quote(program)},
                       {"why", json::quote(why)}});
}

std::string print_zone(const Zone& zone) {
  return json::object({{"type", json::quote(zone.type)},
                       {"path", json::quote(zone.path)},
                       {"temp_c", zone.temp_c ? json::print(*zone.temp_c) : kNull},
                       {"raw", json::quote(zone.raw)},
                       {"cpu", json::print_bool(zone.cpu)},
                       {"why", json::quote(zone.why)}});
}

std::string print_sensor(const Sensor& sensor) {
  const auto print_reading = [](const Reading& reading) {
    return json::object({{"quantity", json::quote(reading.quantity)},
                         {"unit", json::quote(reading.unit)},
                         {"path", json::quote(reading.path)},
                         {"raw", json::quote(reading.raw)}});
  };
  return json::object({{"kind", json::quote(sensor.kind)},
                       {"chip", json::quote(sensor.chip)},
                       {"label", json::quote(sensor.label)},
                       {"total", json::print_bool(sensor.total)},
                       {"readings", print_list(sensor.readings, print_reading)},
                       {"wraps_at", print_optional(sensor.wraps_at)},
                       {"readable", json::print_bool(sensor.why.empty())},
                       {"why", json::quote(sensor.why)}});
}

bool mentions(const std::vector<std::string>& words, const char* part) {
  return std::any_of(words.begin(), words.end(),
                     [&](const std::string& word) { return word.find(part) != word.npos; });
}

}  // namespace

std::string describe_machine(const std::string& root) {
  SystemFiles files(root);
  const CpuInfo info = read_cpuinfo(files);
  const Names names = read_names(files, info);
  const std::vector<CoreFacts> cores = read_cores(files);
  const auto online =
      std::count_if(cores.begin(), cores.end(), [](const CoreFacts& core) { return core.online; });
  const std::string memory = files.text("/proc/meminfo");
  const bool pi = mentions(names.compatible, "raspberrypi");
  const auto quote = [](const std::string& text) { return json::quote(text); };
  Fields fields = {
      {"cpu", quote(names.cpu)},
      {"board", quote(names.board)},
      {"compatible", print_list(names.compatible, quote)},
      {"architecture", quote(names.architecture)},
      {"cores", print_list(
                    cores, [&](const CoreFacts& core) { return print_core(files, core); }, kItems)},
      {"clusters", print_list(group_cores(cores), print_cluster, kItems)},
      {"isa", print_list(info.isa, quote)},
      {"memory_bytes", find_memory(memory, "MemTotal")},
      {"available_bytes", find_memory(memory, "MemAvailable")},
      {"os", quote(names.os)},
      {"kernel", quote(names.kernel)},
      {"limits", print_limits(files, static_cast<size_t>(online))},
      {"zones", print_list(read_zones(files), print_zone, kItems)},
      {"clocks", print_clocks(files)},
      {"throttled", pi ? print_throttled(files) : kNull},
      {"perf_event_paranoid",
       print_optional(files.number("/proc/sys/kernel/perf_event_paranoid", -9, 9))},
      {"pmus", print_pmus(files)},
      {"sensors", print_list(read_sensors(files, mentions(names.compatible, "bcm2712")),
                             print_sensor, kItems)}};
  const auto print_unread = [](const SystemFiles::Unread& unread) {
    return json::object(
        {{"path", json::quote(unread.path)}, {"why", json::quote(explain(unread.error))}});
  };
  fields.push_back({"unread", print_list(files.unread(), print_unread, kItems)});
  return json::object(fields, ",\n ");
}

}  // namespace bve
