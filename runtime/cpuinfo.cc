#include "cpuinfo.h"

#include <algorithm>

namespace bve {
namespace {

constexpr size_t kMostBytes = 1 << 24;  // 4096 cores of x86 take 7 MB

// What kernels here use or could; the others are many.
constexpr std::string_view kFlags[] = {
    "asimd",       "asimdhp",     "asimddp",     "i8mm",     "bf16",     "sve",      "sve2",
    "sme",         "sme2",        "avx2",        "f16c",     "fma",      "avx_vnni", "avx512f",
    "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"};

struct Processor {
  int64_t implementer = -1, part = -1, variant = 0, revision = 0;
  std::vector<std::string_view> flags;
};

uint32_t join_midr(const Processor& core) {
  constexpr uint32_t kArchitecture = 0xf;  // told by other registers
  return static_cast<uint32_t>(core.implementer & 0xff) << 24 |
         static_cast<uint32_t>(core.variant & 0xf) << 20 | kArchitecture << 16 |
         static_cast<uint32_t>(core.part & 0xfff) << 4 | static_cast<uint32_t>(core.revision & 0xf);
}

std::vector<std::string> find_isa(const std::map<int, Processor>& cores) {
  std::vector<std::string> isa;
  for (const std::string_view flag : kFlags) {
    size_t told = 0, has = 0;
    for (const auto& [number, core] : cores) {
      told += !core.flags.empty();
      has += std::binary_search(core.flags.begin(), core.flags.end(), flag);
    }
    if (has > 0 && has == told) isa.emplace_back(flag);
  }
  return isa;
}

}  // namespace

CpuInfo read_cpuinfo(SystemFiles& files) {
  const std::string text = files.read("/proc/cpuinfo", kMostBytes).text;
  CpuInfo info;
  std::map<int, Processor> cores;
  Processor* core = nullptr;
  for (const std::string_view line : split(text, "\n")) {
    const size_t colon = line.find(':');
    if (colon == line.npos) continue;
    const std::string_view key = trim(line.substr(0, colon)), value = trim(line.substr(colon + 1));
    const std::optional<int64_t> number = parse_number(value);
    if (key == "processor") {
      const bool known = number && *number >= 0 && *number < 65536;
      core = known ? &cores[static_cast<int>(*number)] : nullptr;
    } else if (key == "Hardware") {
      info.hardware = value;
    } else if (key == "model name" && info.model.empty() && !contains(value, "ARMv")) {
      info.model = value;
    } else if (core && (key == "Features" || key == "flags")) {
      core->flags = split(value);
      std::sort(core->flags.begin(), core->flags.end());
    } else if (core && number) {
      if (key == "CPU implementer") core->implementer = *number;
      if (key == "CPU part") core->part = *number;
      if (key == "CPU variant") core->variant = *number;
      if (key == "CPU revision") core->revision = *number;
    }
  }
  for (const auto& [number, told] : cores) {
    info.processors.push_back(number);
    if (told.implementer >= 0 && told.part >= 0) info.midrs[number] = join_midr(told);
  }
  // Older kernels tell once, behind them all, what the core that reads it is.
  if (info.midrs.size() != cores.size()) info.midrs.clear();
  info.isa = find_isa(cores);
  return info;
}

}  // namespace bve
