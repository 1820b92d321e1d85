#include "names.h"

#include <sys/utsname.h>

#include <initializer_list>

namespace bve {
namespace {

constexpr size_t kMostProperties = 1 << 18;

// What makers leave in a field that they were to fill in.
bool says_something(std::string_view text) {
  for (const std::string_view word :
       {"", "To Be Filled By O.E.M.", "Default string", "None", "System Product Name",
        "System manufacturer", "Not Specified"}) {
    if (text == word) return false;
  }
  return true;
}

std::string choose(std::initializer_list<std::string> texts) {
  for (const std::string& text : texts) {
    if (says_something(text)) return text;
  }
  return "";
}

// 'Raspberry Pi' of a maker once, also where the product's name begins with it.
std::string join(const std::string& maker, const std::string& product) {
  if (!says_something(product)) return "";
  const bool twice = !says_something(maker) || product.rfind(maker, 0) == 0;
  return twice ? product : maker + " " + product;
}

// Of NAME=value, as /etc/os-release and Android's build.prop have them.
std::string find_property(std::string_view text, std::string_view name) {
  for (const std::string_view line : split(text, "\r\n")) {
    if (line.substr(0, name.size()) != name || line.substr(name.size(), 1) != "=") continue;
    std::string_view value = trim(line.substr(name.size() + 1));
    if (value.size() > 1 && (value[0] == '"' || value[0] == '\'') && value.back() == value[0])
      value = value.substr(1, value.size() - 2);
    return std::string(value);
  }
  return "";
}

class Properties {
 public:
  explicit Properties(SystemFiles& files)
      : vendor_(files.read("/vendor/build.prop", kMostProperties).text),
        system_(files.read("/system/build.prop", kMostProperties).text) {}

  std::string find(std::string_view name) const {
    return choose({find_property(vendor_, name), find_property(system_, name)});
  }

 private:
  std::string vendor_, system_;
};

std::string name_board(const Folder& tree, const Folder& dmi, const Properties& properties) {
  return choose(
      {join(properties.find("ro.product.manufacturer"), properties.find("ro.product.model")),
       join(properties.find("ro.product.vendor.manufacturer"),
            properties.find("ro.product.vendor.model")),
       tree.text("model"), join(dmi.text("sys_vendor"), dmi.text("product_name")),
       join(dmi.text("board_vendor"), dmi.text("board_name"))});
}

// Where soc0 says the board's name again, the device tree knows better.
std::string name_soc(const Folder& soc, const std::string& board) {
  const std::string machine = soc.text("machine");
  return machine == board ? "" : join(soc.text("family"), machine);
}

std::string name_system(SystemFiles& files, const Properties& properties) {
  const std::string release = choose({properties.find("ro.build.version.release"),
                                      properties.find("ro.vendor.build.version.release")});
  const bool android = !release.empty() || files.exists("/system/bin/app_process64");
  return choose({find_property(files.text("/etc/os-release"), "PRETTY_NAME"),
                 find_property(files.text("/usr/lib/os-release"), "PRETTY_NAME"),
                 !android          ? ""
                 : release.empty() ? "Android"
                                   : "Android " + release,
                 files.text("/proc/sys/kernel/ostype")});
}

}  // namespace

Names read_names(SystemFiles& files, const CpuInfo& info) {
  const Folder tree(files, "/proc/device-tree"), dmi(files, "/sys/class/dmi/id"),
      soc(files, "/sys/devices/soc0");
  const Properties properties(files);
  Names names;
  const std::string compatible = tree.text("compatible");
  for (const std::string_view word : split(compatible, std::string_view("\0\n", 2)))
    names.compatible.emplace_back(word);
  names.board = name_board(tree, dmi, properties);
  names.cpu = choose({info.model,
                      join(properties.find("ro.soc.manufacturer"), properties.find("ro.soc.model")),
                      name_soc(soc, names.board),
                      names.compatible.empty() ? "" : names.compatible.back(), info.hardware});
  names.os = name_system(files, properties);
  names.kernel = files.text("/proc/sys/kernel/osrelease");
  utsname system;
  names.architecture = files.here() && uname(&system) == 0 ? std::string(system.machine)
                                                           : files.text("/proc/sys/kernel/arch");
  return names;
}

}  // namespace bve
