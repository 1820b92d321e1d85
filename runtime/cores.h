// Which cores this machine has, of what kind, and which of them are alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cpuinfo.h"
#include "kernels.h"
#include "system_files.h"

namespace bve {

constexpr const char* kCpus = "/sys/devices/system/cpu";
constexpr int64_t kMostKhz = 20'000'000;  // more is no clock

struct Core {
  int number;
  int capacity;  // relative speed: the kernel's cpu_capacity, or the highest kHz, or 0 if unknown
  bve_core kind;
  bool efficient = false;  // an in-order part, or x86's E-core: LITTLE beside others at any clock
};

// What /proc and /sys tell of a core; 0, -1 or "" where they do not.
struct CoreFacts {
  int number;
  bool online = true;
  uint32_t midr = 0;
  std::string name = {};  // "Cortex-A76"; "0x51:0x999" if not in parts.inc; x86: "P-core", "E-core"
  bve_core kind = bve_any_core;
  bool efficient = false;
  int capacity = 0, max_khz = 0;
  int domain = -1;      // the lowest core that shares its clock
  bool shared = false;  // whether another does
};

struct Cluster {
  std::string word;              // big, middle, little
  std::vector<CoreFacts> cores;  // by number
};

// Of which cores below some share of the fastest core's capacity are LITTLE; an A55 has 0.52 of an
// A76, an A510 0.6 of an X2's clock.
constexpr double kLittle = 0.7;
bool is_little(const Core& core, const Core& fastest);
bool is_slower(const Core& core, const Core& other);

// All cores by number, offline ones too.
std::vector<CoreFacts> read_cores(SystemFiles& files, const CpuInfo& info);

// Online cores of one kind, capacity, highest clock and clock domain; fastest first: by capacity if
// all tell it, then in-order parts behind others, then by highest clock, then MIDR. Never by the
// lists of siblings, which some phones have wrong. On x86, where each core may have a highest clock
// of its own, those within 10 % are alike.
std::vector<Cluster> group_cores(const std::vector<CoreFacts>& cores);

// The cores that this process may run on, in the order of their clusters, equal ones by number.
// root: where /proc and /sys lie; "" for this machine.
std::vector<Core> list_cores(const std::string& root = "");

}  // namespace bve
