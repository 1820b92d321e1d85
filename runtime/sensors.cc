#include "sensors.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>

namespace bve {
namespace {

constexpr const char* kHwmon = "/sys/class/hwmon";
constexpr const char* kIio = "/sys/bus/iio/devices";

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool is_one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

// ---- temperature -------------------------------------------------------------------------------

// Samsung and Google name a zone as the cluster, Rockchip with core, others say cpu.
bool is_cpu_zone(const std::string& type) {
  const std::string name = lower(type);
  return contains(name, "cpu") || contains(name, "bigcore") || contains(name, "littlecore") ||
         is_one_of(name, {"x86_pkg_temp", "big", "mid", "midh", "midl", "little"});
}

Zone read_zone(const Folder& folder, const char* file, const std::string& type, bool cpu) {
  const FileText read = folder.read(file);
  Zone zone{type, folder.path(file),        read.text, parse_celsius(read.text),
            cpu,  explain_errno(read.error)};
  if (zone.why.empty() && !zone.temp_c) zone.why = "no temperature";
  return zone;
}

// ---- power -------------------------------------------------------------------------------------

// Of a file that is there.
void add(Sensor& sensor, const Folder& folder, const char* quantity, const char* unit,
         const std::string& file) {
  if (!folder.has(file)) return;
  const FileText read = folder.read(file);
  sensor.readings.push_back({quantity, unit, folder.path(file), read.text});
  if (!sensor.why.empty()) return;
  sensor.why = explain_errno(read.error);
  if (!read.error && read.text.empty()) sensor.why = "says nothing";
}

// Of readings that suffice for its power, only those that could be read; else all, and why not.
void settle(Sensor& sensor) {
  const auto reads = [&](std::string_view quantity) {
    return std::any_of(sensor.readings.begin(), sensor.readings.end(), [&](const Reading& reading) {
      return reading.quantity == quantity && !reading.raw.empty();
    });
  };
  if (reads("power") || reads("energy") || (reads("current") && reads("voltage"))) {
    const auto is_unread = [](const Reading& reading) { return reading.raw.empty(); };
    sensor.readings.erase(std::remove_if(sensor.readings.begin(), sensor.readings.end(), is_unread),
                          sensor.readings.end());
    sensor.why.clear();
  } else if (sensor.why.empty()) {
    sensor.why = "neither power nor current and voltage";
  }
}

// Chips on boards' supply rails; others measure graphics cards, drives or power supplies.
bool measures_rails(std::string_view chip) {
  for (const std::string_view known : {"ina2", "ina3", "ltc29", "pac19", "power_meter", "macsmc"}) {
    if (chip.substr(0, known.size()) == known) return true;
  }
  return false;
}

bool is_total(std::string_view label) {
  return is_one_of(label, {"VDD_IN", "POM_5V_IN", "Total System Power"});
}

// inN, currN and powerN are of one rail. An INA3221 has three, and its in4 to in7 are shunts.
void add_hwmon(const Folder& folder, std::vector<Sensor>& sensors) {
  const std::string chip = folder.text("name");
  if (!measures_rails(chip)) return;
  const int rails = chip == "ina3221" ? 3 : 16;
  for (int rail = 1; rail <= rails; rail++) {
    const std::string in = "in" + std::to_string(rail), curr = "curr" + std::to_string(rail),
                      power = "power" + std::to_string(rail);
    Sensor sensor{"hwmon", chip};
    add(sensor, folder, "power", "uW", power + "_input");
    if (sensor.readings.empty()) add(sensor, folder, "power", "uW", power + "_average");
    add(sensor, folder, "current", "mA", curr + "_input");
    if (sensor.readings.empty()) continue;  // a voltage alone is no power
    add(sensor, folder, "voltage", "mV", in + "_input");
    for (const std::string& name : {in, power, curr}) {
      if (sensor.label.empty()) sensor.label = folder.text(name + "_label");
    }
    if (sensor.label.empty() && rails > 3) sensor.label = folder.text("label");
    sensor.total = is_total(sensor.label);
    if (sensor.label != "NC") sensors.push_back(std::move(sensor));
  }
}

// The same chip by NVIDIA's older driver: 'rail_name_0', 'in_power0_input'.
void add_iio_rails(const Folder& folder, std::vector<Sensor>& sensors) {
  for (const char* rail : {"0", "1", "2"}) {
    const std::string label = folder.text(std::string("rail_name_") + rail);
    Sensor sensor{"hwmon", folder.text("name"), label, is_total(label)};
    add(sensor, folder, "power", "mW", std::string("in_power") + rail + "_input");
    add(sensor, folder, "current", "mA", std::string("in_current") + rail + "_input");
    add(sensor, folder, "voltage", "mV", std::string("in_voltage") + rail + "_input");
    if (!label.empty() && label != "NC" && !sensor.readings.empty())
      sensors.push_back(std::move(sensor));
  }
}

// Rails between brackets: 'CH0(T=358356)[S10M_VDD_TPU], 3161249' or 'CH0[VSYS_PWR_MODEM]:CELLULAR'.
std::vector<std::string> find_rails(std::string_view text) {
  std::vector<std::string> rails;
  for (const std::string_view line : split(text, "\n")) {
    const size_t begin = line.find('['), end = line.find(']', begin);
    if (line.substr(0, 2) == "CH" && end != line.npos)
      rails.emplace_back(line.substr(begin + 1, end - begin - 1));
  }
  return rails;
}

void add_odpm(const Folder& folder, std::vector<Sensor>& sensors) {
  Sensor sensor{"odpm", folder.text("name")};
  add(sensor, folder, "energy", "uJ", "energy_value");
  if (sensor.readings.empty()) return;
  std::vector<std::string> rails = find_rails(sensor.readings[0].raw);
  if (rails.empty()) rails = find_rails(folder.text("enabled_rails"));
  if (rails.empty()) rails.emplace_back();
  for (const std::string& rail : rails) {
    sensor.label = rail;
    sensors.push_back(sensor);
  }
}

// Zones lie within zones: a package holds its cores and graphics; psys is the whole machine. mmio
// are the same counters by another way.
void add_powercap(const Folder& folder, std::vector<Sensor>& sensors) {
  const std::string_view name = folder.name();
  if (contains(name, "mmio")) return;
  const std::string label = folder.text("name");
  Sensor sensor{"powercap", std::string(name.substr(0, name.find(':'))), label, label == "psys"};
  add(sensor, folder, "energy", "uJ", "energy_uj");
  sensor.wraps_at = folder.number("max_energy_range_uj", 1, INT64_MAX);
  if (!sensor.readings.empty()) sensors.push_back(std::move(sensor));
}

// Not a mouse's, and none that was taken out.
void add_battery(const Folder& folder, std::vector<Sensor>& sensors) {
  if (folder.text("type") != "Battery" || folder.text("scope") == "Device" ||
      folder.text("present") == "0")
    return;
  Sensor sensor{"battery", std::string(folder.name()), folder.text("model_name"), true};
  add(sensor, folder, "power", "uW", "power_now");
  add(sensor, folder, "current", "uA", "current_now");
  add(sensor, folder, "voltage", "uV", "voltage_now");
  add(sensor, folder, "status", "", "status");
  sensors.push_back(std::move(sensor));
}

void add_pmic(const SystemFiles& files, std::vector<Sensor>& sensors) {
  const std::string program = find_vcgencmd(files);
  Sensor sensor{"pmic", "da9091"};
  if (program.empty()) {
    sensor.why = "no vcgencmd";
  } else {
    sensor.readings.push_back({"power", "", program, ""});
    sensor.why = explain_errno(files.check("/dev/vcio", R_OK | W_OK));
  }
  sensors.push_back(std::move(sensor));
}

}  // namespace

std::optional<double> parse_celsius(std::string_view text) {
  const std::vector<std::string_view> words = split(text);
  const std::optional<int64_t> value = words.empty() ? std::nullopt : parse_number(words[0]);
  if (!value || *value < -1'000'000 || *value > 1'000'000) return std::nullopt;
  const int64_t size = *value < 0 ? -*value : *value;
  const double celsius = static_cast<double>(*value) / (size >= 1000 ? 1000 : size > 150 ? 10 : 1);
  return celsius >= -40 && celsius <= 200 ? std::optional(celsius) : std::nullopt;
}

std::vector<Zone> read_zones(SystemFiles& files) {
  std::vector<Zone> zones;
  for (const Folder& folder : files.list("/sys/class/thermal", "thermal_zone")) {
    const std::string type = folder.text("type");
    zones.push_back(read_zone(folder, "temp", type, is_cpu_zone(type)));
  }
  for (const Folder& folder : files.list(kHwmon)) {
    const std::string chip = folder.text("name"), label = folder.text("temp1_label");
    if (is_one_of(chip, {"coretemp", "k10temp", "zenpower"}))
      zones.push_back(
          read_zone(folder, "temp1_input", chip + (label.empty() ? "" : " ") + label, true));
  }
  if (std::none_of(zones.begin(), zones.end(), [](const Zone& zone) { return zone.cpu; })) {
    for (Zone& zone : zones) zone.cpu = contains(lower(zone.type), "soc");
  }
  return zones;
}

std::vector<Sensor> read_sensors(SystemFiles& files, bool pi5) {
  std::vector<Sensor> sensors;
  for (const Folder& folder : files.list(kIio, "iio:device")) {
    add_odpm(folder, sensors);
    add_iio_rails(folder, sensors);
  }
  for (const Folder& folder : files.list(kHwmon)) add_hwmon(folder, sensors);
  for (const Folder& folder : files.list("/sys/class/powercap")) add_powercap(folder, sensors);
  for (const Folder& folder : files.list("/sys/class/power_supply")) add_battery(folder, sensors);
  for (Sensor& sensor : sensors) settle(sensor);
  if (pi5) add_pmic(files, sensors);
  return sensors;
}

std::string find_vcgencmd(const SystemFiles& files) {
  for (const char* path : {"/usr/bin/vcgencmd", "/opt/vc/bin/vcgencmd", "/bin/vcgencmd"}) {
    if (files.check(path, X_OK) == 0) return path;
  }
  return "";
}

}  // namespace bve
