// What a machine, its CPU and its operating system are called.
#pragma once

#include <string>
#include <vector>

#include "cpuinfo.h"

namespace bve {

struct Names {
  std::string cpu, board, os, kernel, architecture;
  std::vector<std::string> compatible;  // of the device tree, most exact first
};

// From the device tree, /sys/devices/soc0, DMI, Android's properties where they are files that can
// be read, and /etc/os-release. The device tree goes before the Hardware of /proc/cpuinfo, which is
// BCM2835 on every Raspberry Pi of some kernels.
Names read_names(SystemFiles& files, const CpuInfo& info);

}  // namespace bve
