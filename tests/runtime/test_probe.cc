// The probe on text that no kernel writes, and on what is no text. What it tells of saved machines:
// test_probe.py.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <random>

#include "bve.h"
#include "cgroups.h"
#include "cores.h"
#include "doctest.h"
#include "json.h"
#include "probe.h"
#include "saved_machine.h"
#include "sensors.h"

namespace bve {
namespace {

using test::SavedMachine;

std::vector<std::filesystem::path> list_machines() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry :
       std::filesystem::directory_iterator(BVE_SOURCE_DIR "/tests/runtime/machines")) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Whether brackets and quotes close, and every byte is of a letter.
bool is_whole(std::string_view text) {
  std::string open;
  bool quoted = false;
  for (size_t i = 0; i < text.size();) {
    const size_t bytes = json::measure_letter(text.substr(i));
    if (bytes == 0 || static_cast<unsigned char>(text[i]) < (quoted ? 0x20 : 0x0a)) return false;
    if (quoted) {
      if (text[i] == '"') quoted = false;
      i += text[i] == '\\' ? 2 : bytes;
      continue;
    }
    if (text[i] == '"') quoted = true;
    if (text[i] == '[' || text[i] == '{') open += text[i];
    if (text[i] == ']' || text[i] == '}') {
      if (open.empty() || open.back() != (text[i] == ']' ? '[' : '{')) return false;
      open.pop_back();
    }
    i += bytes;
  }
  return open.empty() && !quoted;
}

void check_root(const std::string& root) {
  const std::string told = describe_machine(root);
  CHECK(is_whole(told));
  SystemFiles files(root);
  size_t cores = 0;
  for (const Cluster& cluster : group_cores(read_cores(files, read_cpuinfo(files)))) {
    for (const CoreFacts& core : cluster.cores) {
      CHECK(core.online);
      CHECK(core.capacity >= 0);
      CHECK(core.capacity <= 1024);
      CHECK(core.max_khz >= 0);
      cores++;
    }
  }
  CHECK(list_cores(root).size() == cores);
  CHECK(count_usable(4, root) >= 1);
  CHECK(count_usable(4, root) <= 4);
}

TEST_CASE("what the scheduler knows of saved machines is what is told") {
  REQUIRE(list_machines().size() >= 14);
  for (const auto& file : list_machines()) {
    CAPTURE(file.string());
    const SavedMachine machine(file);
    SystemFiles files(machine.root());
    const std::vector<Core> cores = list_cores(machine.root());
    size_t at = 0;
    for (const Cluster& cluster : group_cores(read_cores(files, read_cpuinfo(files)))) {
      for (const CoreFacts& core : cluster.cores) {
        REQUIRE(at < cores.size());
        CHECK(cores[at].number == core.number);
        CHECK(cores[at].kind == core.kind);
        CHECK(is_little(cores[at], cores[0]) == (cluster.word == "little"));
        at++;
      }
    }
    CHECK(at == cores.size());
    check_root(machine.root());
  }
}

// A file's text with bytes changed, taken out, said twice, or another's in its place.
std::string mutate(const std::string& text, const SavedMachine& machine, std::minstd_rand& random) {
  static const char* const kAbsurd[] = {"",
                                        "-1",
                                        "0-99999999999",
                                        "3-1",
                                        "18446744073709551616",
                                        "-9223372036854775808",
                                        "0x",
                                        "0xffffffffffffffff",
                                        "99999999999999999999 1",
                                        "max",
                                        "\n\n\n",
                                        ":::",
                                        "0::/../../..",
                                        "1:cpu:",
                                        "\xff\xfe\xed\xa0\x80",
                                        "processor : -2147483649\n",
                                        "CH[",
                                        "MemTotal: 9223372036854775807 kB"};
  std::string changed = text;
  switch (random() % 5) {
    case 0:
      return kAbsurd[random() % std::size(kAbsurd)];
    case 1:
      for (int i = 0; i < 8 && !changed.empty(); i++)
        changed[random() % changed.size()] = static_cast<char>(random());
      return changed;
    case 2:
      return changed.substr(0, random() % (changed.size() + 1));
    case 3:
      return changed + changed + kAbsurd[random() % std::size(kAbsurd)];
    default:
      return std::next(machine.files().begin(), random() % machine.files().size())->second;
  }
}

TEST_CASE("no text makes it fail") {
  std::minstd_rand random(15);
  for (const auto& file : list_machines()) {
    CAPTURE(file.string());
    const SavedMachine machine(file);
    std::vector<std::pair<std::string, std::string>> files;
    for (const auto& item : machine.files()) {
      if (item.first.back() != '/') files.push_back(item);
    }
    for (int round = 0; round < 30; round++) {
      for (int change = 0; change < 6; change++) {
        const auto& [path, text] = files[random() % files.size()];
        machine.write(path, change ? mutate(text, machine, random) : text);
      }
      check_root(machine.root());
    }
  }
}

TEST_CASE("what is no file is not waited for") {
  const SavedMachine machine;
  machine.write("/proc/cpuinfo/", "");
  machine.write("/sys/devices/system/cpu/cpu0/cpu_capacity/", "");
  machine.write("/sys/class/thermal/thermal_zone0/type", "cpu-thermal\n");
  REQUIRE(mkfifo((machine.root() + "/sys/class/thermal/thermal_zone0/temp").c_str(), 0600) == 0);
  std::filesystem::create_symlink("/dev/zero", machine.root() + "/proc/meminfo");
  std::filesystem::create_directories(machine.root() + "/sys/class/power_supply");
  std::filesystem::create_symlink("loop", machine.root() + "/sys/class/power_supply/loop");
  check_root(machine.root());
  const std::string told = describe_machine(machine.root());
  CHECK(told.find(R"("temp_c": null, "raw": "", "cpu": true, "why": "no temperature")") !=
        told.npos);
  CHECK(told.find(R"({"path": "/proc/cpuinfo", "why": "Is a directory"})") != told.npos);
}

TEST_CASE("what is denied is said, as to adb's shell") {
  const SavedMachine machine;
  machine.write("/sys/class/thermal/thermal_zone0/type", "cpu-0-0\n");
  machine.write("/sys/class/thermal/thermal_zone0/temp", "41000\n");
  machine.write("/sys/class/power_supply/battery/type", "Battery\n");
  machine.write("/sys/class/power_supply/battery/current_now", "1\n");
  machine.write("/sys/class/devfreq/dmc/cur_freq", "1\n");
  const auto deny = [&](const char* path) { chmod((machine.root() + path).c_str(), 0); };
  deny("/sys/class/thermal/thermal_zone0/temp");
  deny("/sys/class/power_supply/battery/current_now");
  deny("/sys/class/devfreq");
  chmod(machine.root().c_str(), 0755);
  const uid_t user = geteuid();
  if (user == 0) REQUIRE(seteuid(65534) == 0);  // root may read all
  const std::string told = describe_machine(machine.root());
  if (user == 0) REQUIRE(seteuid(user) == 0);
  CHECK(told.find(R"("temp_c": null, "raw": "", "cpu": true, "why": "Permission denied")") !=
        told.npos);
  CHECK(told.find(R"("readable": false, "why": "Permission denied")") != told.npos);
  CHECK(told.find(R"("clocks": [])") != told.npos);
  CHECK(told.find(R"({"path": "/sys/class/devfreq", "why": "Permission denied"})") != told.npos);
  chmod((machine.root() + "/sys/class/devfreq").c_str(), 0700);  // it can be removed then
}

TEST_CASE("power sensors of other chips") {
  const SavedMachine machine;
  const std::string nano = "/sys/bus/iio/devices/iio:device0", thor = "/sys/class/hwmon/hwmon3",
                    card = "/sys/class/hwmon/hwmon4", board = "/sys/class/hwmon/hwmon10";
  machine.write(nano + "/name", "ina3221x\n");  // NVIDIA's older driver, of a Jetson Nano
  machine.write(nano + "/rail_name_0", "POM_5V_IN\n");
  machine.write(nano + "/in_power0_input", "1820\n");
  machine.write(nano + "/rail_name_1", "POM_5V_CPU\n");
  machine.write(nano + "/in_power1_input", "410\n");
  machine.write(thor + "/name", "ina238\n");
  machine.write(thor + "/label", "VDD_IN\n");
  machine.write(thor + "/power1_input", "25000000\n");
  machine.write(thor + "/in0_input", "5\n");  // its shunt
  machine.write(card + "/name", "amdgpu\n");  // no rail of the board
  machine.write(card + "/power1_input", "21160000\n");
  machine.write(board + "/name", "ina219\n");
  machine.write(board + "/in1_input", "5010\n");
  machine.write(board + "/curr1_input", "612\n");
  machine.write(board + "/power1_input", "\n");
  const std::string supply = "/sys/class/power_supply/bat";
  machine.write(supply + "/type", "Battery\n");
  machine.write(supply + "/current_now", "-2147483648\n");  // told as read: what it is worth is
  SystemFiles files(machine.root());                        // found by a step of load
  std::vector<std::string> told;
  for (const Sensor& sensor : read_sensors(files, false)) {
    told.push_back(std::string(sensor.kind) + " " + sensor.chip + " " + sensor.label +
                   (sensor.total ? " total " : " ") + sensor.readings[0].raw +
                   sensor.readings[0].unit + " " + sensor.why);
  }
  CHECK(told == std::vector<std::string>{
                    "hwmon ina3221x POM_5V_IN total 1820mW ", "hwmon ina3221x POM_5V_CPU 410mW ",
                    "hwmon ina238 VDD_IN total 25000000uW ", "hwmon ina219  612mA ",
                    "battery bat  total -2147483648uA neither power nor "
                    "current and voltage"});
}

TEST_CASE("4096 cores") {
  const SavedMachine machine;
  std::string info;
  for (int number = 0; number < 4096; number++) {
    const std::string text = std::to_string(number);
    info += "processor\t: " + text + "\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\n";
  }
  machine.write("/proc/cpuinfo", info);
  machine.write("/sys/devices/system/cpu/cpu4095/", "");
  machine.write("/sys/devices/system/cpu/online", "0-4095\n");
  const std::vector<Core> cores = list_cores(machine.root());
  REQUIRE(cores.size() == 4096);
  for (int number = 0; number < 4096; number++) CHECK(cores[number].number == number);
}

TEST_CASE("numbers and lists of cores") {
  CHECK(parse_number("1800000") == 1800000);
  CHECK(parse_number("-40") == -40);
  CHECK(parse_number("0xd0b") == 0xd0b);
  CHECK(parse_number("9223372036854775807") == INT64_MAX);
  for (const char* text : {"", "-", "--1", "+1", "0x", "0x-1", "1.5", "1 ", "9223372036854775808"})
    CHECK_MESSAGE(!parse_number(text), text);
  CHECK(parse_cores("0-3,7") == std::vector<int>{0, 1, 2, 3, 7});
  CHECK(parse_cores("4,0-1,1") == std::vector<int>{0, 1, 4});
  CHECK(parse_cores("0 1 2") == std::vector<int>{0, 1, 2});  // as related_cpus has them
  CHECK(parse_cores("") == std::vector<int>{});
  for (const char* text : {"3-1", "-1", "0-65536", "0-99999999999", "a", "0-", "1-2-3"})
    CHECK_MESSAGE(!parse_cores(text), text);
}

TEST_CASE("degrees in thousandths, tenths or wholes") {
  CHECK(parse_celsius("45050") == 45.05);
  CHECK(parse_celsius("302") == 30.2);
  CHECK(parse_celsius("41") == 41);
  CHECK(parse_celsius("0") == 0);
  CHECK(parse_celsius("-5000") == -5);
  for (const char* text : {"", "-274000", "2147483647", "-2147483648", "200001", "hot"})
    CHECK_MESSAGE(!parse_celsius(text), text);
}

TEST_CASE("what is no UTF-8 is replaced") {
  CHECK(json::quote("a\xff\"\n\xe2\x82\xac") == "\"a\\ufffd\\\"\\u000a\xe2\x82\xac\"");
  CHECK(json::quote("\xc0\x80") == "\"\\ufffd\\ufffd\"");             // a longer form of NUL
  CHECK(json::quote("\xed\xa0\x80") == "\"\\ufffd\\ufffd\\ufffd\"");  // half of a pair
  CHECK(json::quote("\xf4\x90\x80\x80") == "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
  CHECK(json::quote("\xe2\x82") == "\"\\ufffd\\ufffd\"");  // cut
}

TEST_CASE("a group outside of what a container sees") {
  const SavedMachine machine;
  machine.write("/proc/self/cgroup", "0::/../../other\n");
  machine.write("/sys/other/cpu.max", "10000 100000\n");
  machine.write("/sys/fs/cgroup/cpu.max", "250000 100000\n");
  CHECK(count_usable(8, machine.root()) == 3);
}

TEST_CASE("throttled periods of a group and of those around it") {
  const SavedMachine machine;
  machine.write("/proc/self/cgroup", "0::/app/job\n");
  machine.write("/sys/fs/cgroup/app/job/cpu.stat", "nr_throttled 3\nthrottled_usec 1000\n");
  machine.write("/sys/fs/cgroup/app/cpu.stat", "nr_throttled 4\nthrottled_usec 500\n");
  SystemFiles files(machine.root());
  const Limits limits = read_limits(files);
  CHECK(limits.group == "/app/job");
  CHECK(limits.throttled_periods == 7);
  CHECK(limits.throttled_us == 1500);
}

TEST_CASE("the C ABI tells of a root, and of this machine") {
  const SavedMachine machine(BVE_SOURCE_DIR "/tests/runtime/machines/rk3588.txt");
  CHECK(std::string(bve_probe(machine.root().c_str())) == describe_machine(machine.root()));
  CHECK(std::string(bve_probe(nullptr)).find("\"cores\": [{\"number\": ") != std::string::npos);
}

}  // namespace
}  // namespace bve
