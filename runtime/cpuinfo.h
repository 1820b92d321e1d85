// /proc/cpuinfo, as ARM's and x86's kernels write it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "system_files.h"

namespace bve {

struct CpuInfo {
  std::map<int, uint32_t> midrs;  // of each processor; empty unless all of them tell theirs
  std::vector<int> processors;    // online ones, in rising order
  std::vector<std::string> isa;   // words of those kernels could use, that every processor has
  std::string model;              // x86's model name; ARM's is that of an architecture
  std::string hardware;           // what older ARM kernels tell of the board
};

CpuInfo read_cpuinfo(SystemFiles& files);

}  // namespace bve
