#include "sensors.h"

#include <algorithm>
#include <cctype>
#include <cstring>

namespace bve {
namespace {

constexpr const char* kHwmon = "/sys/class/hwmon";

std::string explain(int error) { return error ? std::strerror(error) : ""; }

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// ---- temperature -------------------------------------------------------------------------------

// Rockchip, Allwinner, Broadcom, Qualcomm and NVIDIA say cpu; Samsung and Google name clusters.
bool is_cpu_zone(const std::string& type) {
  const std::string name = lower(type);
  for (const char* word : {"cpu", "bigcore", "littlecore", "x86_pkg_temp", "apc"}) {
    if (contains(name, word)) return true;
  }
  return name == "big" || name == "mid" || name == "little" || name == "big0" || name == "big1" ||
         name == "midcore" || name == "tj-thermal";
}

Zone read_zone(SystemFiles& files, const std::string& type, const std::string& path, bool cpu) {
  const FileText read = files.read(path);
  Zone zone{type, path, read.text, parse_celsius(read.text), cpu, explain(read.error)};
  if (zone.why.empty() && !zone.temp_c) zone.why = "no temperature";
  return zone;
}

void add_hwmon_zones(SystemFiles& files, std::vector<Zone>& zones) {
  for (const std::string& name : files.list(kHwmon)) {
    const std::string folder = std::string(kHwmon) + "/" + name;
    const std::string chip = files.text(folder + "/name");
    if (chip != "coretemp" && chip != "k10temp" && chip != "zenpower") continue;
    const std::string label = files.text(folder + "/temp1_label");
    zones.push_back(
        read_zone(files, label.empty() ? chip : chip + " " + label, folder + "/temp1_input", true));
  }
}

// ---- power -------------------------------------------------------------------------------------

// Of a file that is there.
void add(SystemFiles& files, Sensor& sensor, const char* quantity, const char* unit,
         const std::string& path) {
  if (!files.exists(path)) return;
  const FileText read = files.read(path);
  sensor.readings.push_back({quantity, unit, path, read.text});
  if (read.error && sensor.why.empty()) sensor.why = explain(read.error);
  if (!read.error && read.text.empty() && sensor.why.empty()) sensor.why = "says nothing";
}

void keep(std::vector<Sensor>& sensors, Sensor sensor) {
  if (!sensor.readings.empty()) sensors.push_back(std::move(sensor));
}

// Chips on boards' supply rails; others measure graphics cards, drives or power supplies.
bool measures_rails(const std::string& chip) {
  for (const char* known : {"ina2", "ina3", "ltc29", "pac19", "power_meter", "macsmc"}) {
    if (chip.rfind(known, 0) == 0) return true;
  }
  return false;
}

bool is_total(const std::string& label) {
  return label == "VDD_IN" || label == "POM_5V_IN" || label == "Total System Power";
}

// inN, currN and powerN of one chip are of one rail, but where shunts are told as voltages: an
// INA3221 has three rails, and in7 of it is a sum of shunts; others have shunts in in0.
void add_chip(SystemFiles& files, const std::string& folder, const std::string& chip,
              std::vector<Sensor>& sensors) {
  const bool three = chip == "ina3221";
  for (int rail = 1; rail <= (three ? 3 : 16); rail++) {
    const std::string at = std::to_string(rail);
    std::string label;
    for (const std::string& name : {"/in" + at, "/power" + at, "/curr" + at}) {
      if (label.empty()) label = files.text(folder + name + "_label");
    }
    if (label.empty() && !three && rail == 1) label = files.text(folder + "/label");
    if (label == "NC") continue;
    Sensor sensor{"hwmon", chip, label, is_total(label), {}, std::nullopt, ""};
    add(files, sensor, "power", "uW", folder + "/power" + at + "_input");
    if (sensor.readings.empty())
      add(files, sensor, "power", "uW", folder + "/power" + at + "_average");
    add(files, sensor, "current", "mA", folder + "/curr" + at + "_input");
    if (sensor.readings.empty()) continue;  // a voltage alone is no power
    add(files, sensor, "voltage", "mV", folder + "/in" + at + "_input");
    add(files, sensor, "energy", "uJ", folder + "/energy" + at + "_input");
    keep(sensors, std::move(sensor));
  }
}

void add_hwmon(SystemFiles& files, std::vector<Sensor>& sensors) {
  for (const std::string& name : files.list(kHwmon)) {
    const std::string folder = std::string(kHwmon) + "/" + name;
    const std::string chip = files.text(folder + "/name");
    if (measures_rails(chip)) add_chip(files, folder, chip, sensors);
  }
}

// Rails between brackets: 'CH0(T=358356)[S10M_VDD_TPU], 3161249' or 'CH0[VSYS_PWR_MODEM]:CELLULAR'.
std::vector<std::string> find_rails(std::string_view text) {
  std::vector<std::string> rails;
  for (const std::string_view line : split(text, "\n")) {
    const size_t begin = line.find('['), end = line.find(']', begin);
    if (line.rfind("CH", 0) == 0 && end != line.npos)
      rails.emplace_back(line.substr(begin + 1, end - begin - 1));
  }
  return rails;
}

void add_odpm(SystemFiles& files, std::vector<Sensor>& sensors) {
  const std::string top = "/sys/bus/iio/devices";
  for (const std::string& name : files.list(top, "iio:device")) {
    const std::string folder = top + "/" + name;
    const std::string chip = files.text(folder + "/name");
    if (!contains(lower(chip), "odpm") && !files.exists(folder + "/energy_value")) continue;
    Sensor sensor{"odpm", chip, "", false, {}, std::nullopt, ""};
    add(files, sensor, "energy", "uJ", folder + "/energy_value");
    if (sensor.readings.empty()) continue;
    std::vector<std::string> rails = find_rails(sensor.readings[0].raw);
    if (rails.empty()) rails = find_rails(files.text(folder + "/enabled_rails"));
    if (rails.empty()) sensors.push_back(sensor);
    for (const std::string& rail : rails) {
      sensor.label = rail;
      sensors.push_back(sensor);
    }
  }
}

// Zones in zones: a package holds its cores and graphics; psys is the whole machine.
void add_powercap(SystemFiles& files, std::vector<Sensor>& sensors) {
  const std::string top = "/sys/class/powercap";
  const size_t first = sensors.size();
  for (const std::string& name : files.list(top)) {
    const std::string folder = top + "/" + name;
    if (!files.exists(folder + "/energy_uj")) continue;
    const std::string label = files.text(folder + "/name");
    const bool mmio = contains(name, "mmio");  // the same counters by another way
    if (mmio) continue;
    Sensor sensor{"powercap", name.substr(0, name.find(':')), label, label == "psys", {}, {}, ""};
    add(files, sensor, "energy", "uJ", folder + "/energy_uj");
    sensor.wraps_at = files.number(folder + "/max_energy_range_uj", 1, INT64_MAX);
    keep(sensors, std::move(sensor));
  }
  (void)first;
}

void add_batteries(SystemFiles& files, std::vector<Sensor>& sensors) {
  const std::string top = "/sys/class/power_supply";
  for (const std::string& name : files.list(top)) {
    const std::string folder = top + "/" + name;
    if (files.text(folder + "/type") != "Battery") continue;
    if (files.text(folder + "/scope") == "Device") continue;  // a mouse's
    if (files.text(folder + "/present") == "0") continue;
    Sensor sensor{"battery", name, files.text(folder + "/model_name"), true, {}, {}, ""};
    add(files, sensor, "power", "uW", folder + "/power_now");
    add(files, sensor, "current", "uA", folder + "/current_now");
    if (sensor.readings.empty()) {
      if (sensor.why.empty()) sensor.why = "neither power_now nor current_now";
      sensor.readings.push_back({"current", "uA", folder + "/current_now", ""});
    }
    add(files, sensor, "voltage", "uV", folder + "/voltage_now");
    add(files, sensor, "status", "", folder + "/status");
    keep(sensors, std::move(sensor));
  }
}

void add_pmic(SystemFiles& files, std::vector<Sensor>& sensors) {
  const std::string program = find_vcgencmd(files);
  Sensor sensor{"pmic", "rp1 pmic", "", false, {}, std::nullopt, ""};
  sensor.readings.push_back({"power", "", program.empty() ? "vcgencmd" : program, ""});
  if (program.empty()) sensor.why = "no vcgencmd";
  if (!program.empty() && !files.exists("/dev/vcio")) sensor.why = "no /dev/vcio";
  sensors.push_back(std::move(sensor));
}

}  // namespace

std::optional<double> parse_celsius(std::string_view text) {
  const std::vector<std::string_view> words = split(text);
  const std::optional<int64_t> value = words.empty() ? std::nullopt : parse_number(words[0]);
  if (!value || *value < -1'000'000 || *value > 1'000'000) return std::nullopt;
  const int64_t size = *value < 0 ? -*value : *value;
  const double celsius = static_cast<double>(*value) / (size >= 1000 ? 1e3 : size > 150 ? 10 : 1);
  return celsius >= -40 && celsius <= 200 ? std::optional(celsius) : std::nullopt;
}

std::vector<Zone> read_zones(SystemFiles& files) {
  const std::string top = "/sys/class/thermal";
  std::vector<Zone> zones;
  for (const std::string& name : files.list(top, "thermal_zone")) {
    const std::string type = files.text(top + "/" + name + "/type");
    zones.push_back(read_zone(files, type, top + "/" + name + "/temp", is_cpu_zone(type)));
  }
  const auto of_soc = [](const Zone& zone) { return contains(lower(zone.type), "soc"); };
  const auto of_cpu = [](const Zone& zone) { return zone.cpu; };
  if (std::none_of(zones.begin(), zones.end(), of_cpu)) {
    for (Zone& zone : zones) zone.cpu = of_soc(zone);
  }
  add_hwmon_zones(files, zones);
  return zones;
}

std::vector<Sensor> read_sensors(SystemFiles& files, bool pi) {
  std::vector<Sensor> sensors;
  add_odpm(files, sensors);
  add_hwmon(files, sensors);
  if (pi) add_pmic(files, sensors);
  add_powercap(files, sensors);
  add_batteries(files, sensors);
  return sensors;
}

std::string find_vcgencmd(const SystemFiles& files) {
  for (const char* path : {"/usr/bin/vcgencmd", "/opt/vc/bin/vcgencmd", "/bin/vcgencmd"}) {
    if (files.exists(path)) return path;
  }
  return "";
}

}  // namespace bve
