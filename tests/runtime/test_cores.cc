// Cores read from saved text of real machines.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cgroups.h"
#include "cores.h"
#include "doctest.h"

namespace bve {
namespace {

// A folder with the files of /proc and /sys that matter, gone at the end.
class Machine {
 public:
  Machine() {
    char name[] = "/tmp/bve-cores-XXXXXX";
    root_ = mkdtemp(name);
  }
  ~Machine() { std::filesystem::remove_all(root_); }

  void add_core(int number, const char* part, const char* file, int speed) {
    const std::string cpu = "/sys/devices/system/cpu/cpu" + std::to_string(number);
    write(cpu + "/topology/core_id", "0\n");
    if (speed) write(cpu + "/" + file, std::to_string(speed) + "\n");
    info_ +=
        "processor\t: " + std::to_string(number) + "\nBogoMIPS\t: 48.00\nCPU implementer\t: 0x41\n";
    if (part) info_ += std::string("CPU part\t: ") + part + "\n";
    info_ += "\n";
    write("/proc/cpuinfo", info_);
  }
  const std::string& root() const { return root_; }
  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }

 private:
  std::string root_, info_;
};

std::vector<int> numbers(const std::vector<Core>& cores) {
  std::vector<int> list;
  for (const Core& core : cores) list.push_back(core.number);
  return list;
}

TEST_CASE("RK3588: four A55 below four A76") {
  Machine machine;
  for (int i = 0; i < 4; i++) machine.add_core(i, "0xd05", "cpu_capacity", 530);
  for (int i = 4; i < 8; i++) machine.add_core(i, "0xd0b", "cpu_capacity", 1024);
  const std::vector<Core> cores = list_cores(machine.root());
  CHECK(numbers(cores) == std::vector<int>{4, 5, 6, 7, 0, 1, 2, 3});
  CHECK(cores.front().kind == bve_any_core);
  CHECK(cores.back().kind == bve_a55);
  CHECK(cores.back().capacity == 530);
}

TEST_CASE("a phone of three clusters, by frequency: X2, A710, A510") {
  Machine machine;
  for (int i = 0; i < 4; i++) machine.add_core(i, "0xd46", "cpufreq/cpuinfo_max_freq", 1785600);
  for (int i = 4; i < 7; i++) machine.add_core(i, "0xd47", "cpufreq/cpuinfo_max_freq", 2496000);
  machine.add_core(7, "0xd48", "cpufreq/cpuinfo_max_freq", 2995200);
  const std::vector<Core> cores = list_cores(machine.root());
  CHECK(numbers(cores) == std::vector<int>{7, 4, 5, 6, 0, 1, 2, 3});
  CHECK(cores.back().kind == bve_a510);
}

TEST_CASE("a machine that says nothing of its cores") {
  Machine machine;
  for (int i = 0; i < 2; i++) machine.add_core(i, nullptr, "", 0);
  const std::vector<Core> cores = list_cores(machine.root());
  CHECK(numbers(cores) == std::vector<int>{0, 1});
  CHECK(cores[0].capacity == 0);
  CHECK(cores[0].kind == bve_any_core);
}

std::vector<std::vector<int>> group(const Machine& machine) {
  SystemFiles files(machine.root());
  std::vector<std::vector<int>> clusters;
  for (const Cluster& cluster : group_cores(read_cores(files, read_cpuinfo(files)))) {
    clusters.emplace_back();
    for (const CoreFacts& core : cluster.cores) clusters.back().push_back(core.number);
  }
  return clusters;
}

TEST_CASE("no part is in the table twice") {
  std::vector<std::pair<int, int>> parts;
#define BVE_PART(implementer, part, name, kind) parts.emplace_back(implementer, part);
#include "parts.inc"
#undef BVE_PART
  std::sort(parts.begin(), parts.end());
  CHECK(parts.size() > 80);
  CHECK(std::adjacent_find(parts.begin(), parts.end()) == parts.end());
}

TEST_CASE("a core that is offline, told by a list or by itself") {
  Machine machine;
  for (int i = 0; i < 3; i++) machine.add_core(i, "0xd05", "", 0);
  machine.write("/sys/devices/system/cpu/cpu1/online", "0\n");
  CHECK(numbers(list_cores(machine.root())) == std::vector<int>{0, 2});
  machine.write("/sys/devices/system/cpu/online", "0-1\n");
  CHECK(numbers(list_cores(machine.root())) == std::vector<int>{0, 1});
}

TEST_CASE("a part that is in no table is named by its numbers") {
  Machine machine;
  machine.add_core(0, "0xfff", "", 0);
  SystemFiles files(machine.root());
  CHECK(read_cores(files, read_cpuinfo(files))[0].name == "0x41:0xfff");
}

TEST_CASE("in-order cores come last where neither capacity nor clock parts them") {
  Machine machine;
  for (int i = 0; i < 2; i++) machine.add_core(i, "0xd05", "cpufreq/cpuinfo_max_freq", 2000000);
  for (int i = 2; i < 4; i++) machine.add_core(i, "0xd0b", "cpufreq/cpuinfo_max_freq", 2000000);
  const std::vector<Core> cores = list_cores(machine.root());
  CHECK(numbers(cores) == std::vector<int>{2, 3, 0, 1});
  CHECK(is_little(cores[2], cores[0]));
  CHECK(!is_little(cores[1], cores[0]));
  CHECK(is_slower(cores[2], cores[1]));
  CHECK(!is_slower(cores[1], cores[0]));
}

TEST_CASE("capacity counts only where all cores tell it") {
  Machine machine;
  machine.add_core(0, "0xd0b", "cpu_capacity", 1024);
  machine.add_core(1, "0xd05", "", 0);
  for (int i = 0; i < 2; i++) {
    const std::string cpu = "/sys/devices/system/cpu/cpu" + std::to_string(i);
    machine.write(cpu + "/cpufreq/cpuinfo_max_freq", i ? "1800000\n" : "2400000\n");
  }
  const std::vector<Core> cores = list_cores(machine.root());
  CHECK(cores[0].capacity == 2400000);
  CHECK(cores[1].capacity == 1800000);
}

TEST_CASE("a kernel that says once what the reading core is") {  // arm64 before Linux 3.19
  Machine machine;
  for (int i = 0; i < 2; i++) machine.add_core(i, nullptr, "", 0);
  machine.write("/proc/cpuinfo",
                "Processor\t: AArch64 Processor rev 3 (aarch64)\nprocessor\t: 0\nprocessor\t: 1\n"
                "Features\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd03\n");
  for (const Core& core : list_cores(machine.root())) CHECK(core.kind == bve_any_core);
  SystemFiles files(machine.root());
  CHECK(read_cpuinfo(files).isa == std::vector<std::string>{"asimd"});
}

TEST_CASE("clusters of equal cores: by a clock they share, not by policies of one core each") {
  const auto share = [](const Machine& machine, int policy, const char* cores) {
    machine.write(
        "/sys/devices/system/cpu/cpufreq/policy" + std::to_string(policy) + "/related_cpus", cores);
  };
  Machine two;
  for (int i = 0; i < 4; i++) two.add_core(i, "0xd0b", "cpu_capacity", 1024);
  share(two, 0, "0 2\n");
  share(two, 1, "1 3\n");
  CHECK(group(two) == std::vector<std::vector<int>>{{0, 2}, {1, 3}});
  Machine server;
  for (int i = 0; i < 4; i++) {
    server.add_core(i, "0xd0c", "cpufreq/cpuinfo_max_freq", 2600000);
    share(server, i, std::to_string(i).c_str());
  }
  CHECK(group(server) == std::vector<std::vector<int>>{{0, 1, 2, 3}});
}

TEST_CASE("x86's favoured cores are of the others' cluster") {
  Machine machine;
  for (int i = 0; i < 4; i++)
    machine.add_core(i, nullptr, "cpufreq/cpuinfo_max_freq", i == 2 ? 5000000 : 4800000);
  CHECK(group(machine) == std::vector<std::vector<int>>{{0, 1, 2, 3}});
}

TEST_CASE("a cgroup's quota counts, its own or one around it") {
  Machine machine;
  CHECK(count_usable(8, machine.root()) == 8);  // says nothing
  machine.write("/proc/self/cgroup", "0::/app/job\n");
  machine.write("/sys/fs/cgroup/app/job/cpu.max", "max 100000\n");
  CHECK(count_usable(8, machine.root()) == 8);
  machine.write("/sys/fs/cgroup/app/cpu.max", "150000 100000\n");
  CHECK(count_usable(8, machine.root()) == 2);  // of one and a half
  CHECK(count_usable(1, machine.root()) == 1);
  machine.write("/sys/fs/cgroup/app/job/cpu.max", "20000 100000\n");
  CHECK(count_usable(8, machine.root()) == 1);
}

TEST_CASE("a cgroup inside a container, whose root is its own") {
  Machine machine;
  machine.write("/proc/self/cgroup", "0::/\n");
  machine.write("/sys/fs/cgroup/cpu.max", "300000 100000\n");
  CHECK(count_usable(8, machine.root()) == 3);
}

TEST_CASE("cgroups of version 1") {
  Machine machine;
  machine.write("/proc/self/cgroup", "9:name=systemd:/\n2:cpuset,cpuacct:/\n1:cpu:/docker/1\n");
  machine.write("/sys/fs/cgroup/cpu/docker/1/cpu.cfs_period_us", "100000\n");
  machine.write("/sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "-1\n");
  CHECK(count_usable(4, machine.root()) == 4);
  machine.write("/sys/fs/cgroup/cpu/docker/1/cpu.cfs_quota_us", "250000\n");
  CHECK(count_usable(4, machine.root()) == 3);
}

TEST_CASE("this machine has a core to run on") { CHECK(list_cores().size() >= 1); }

}  // namespace
}  // namespace bve
