// Thermometers and power sensors: by what they are called, never by their numbers, which change
// between boots.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "system_files.h"

namespace bve {

struct Zone {
  std::string type, path, raw;
  std::optional<double> temp_c;
  bool cpu;
  std::string why;  // it has no temperature
};

// Degrees of what a thermal zone says: thousandths from 1000 on, tenths above 150, else whole, for
// drivers differ. Nothing where that is outside of -40 to 200 degrees.
std::optional<double> parse_celsius(std::string_view text);

// /sys/class/thermal, and of hwmon those of x86's CPUs, which may have no zone.
std::vector<Zone> read_zones(SystemFiles& files);

struct Reading {
  const char* quantity;  // power, energy, voltage, current, status
  const char* unit;      // as the driver documents it; "" for a word
  std::string path, raw;
};

struct Sensor {
  const char* kind;  // odpm, hwmon (rails' chips, by any driver), pmic, powercap, battery
  std::string chip, label = {};
  bool total = false;  // it sees all that the machine takes
  std::vector<Reading> readings = {};
  std::optional<int64_t> wraps_at = {};  // of an energy counter
  std::string why = {};                  // it cannot be read; "" if it can
};

// pi5: a Raspberry Pi 5, whose PMIC is read by a program.
std::vector<Sensor> read_sensors(SystemFiles& files, bool pi5);

// Where the Raspberry Pi's program lies, or "".
std::string find_vcgencmd(const SystemFiles& files);

}  // namespace bve
