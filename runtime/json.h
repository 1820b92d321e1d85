// JSON text, put together from values that are JSON text already.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bve::json {

inline std::string quote(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      quoted += escape;
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

// As %.*g writes it; what is no number becomes null, as JSON has no word for it.
inline std::string print(double value, int digits = 6) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.*g", digits, value);
  return text;
}

inline std::string print_whole(uint64_t value) { return std::to_string(value); }

inline const char* print_bool(bool value) { return value ? "true" : "false"; }

// One item a line, so that a person can read it too.
inline std::string list(const std::vector<std::string>& items, const char* separator = ",\n  ") {
  std::string text = "[";
  for (size_t i = 0; i < items.size(); ++i) text += (i ? separator : "") + items[i];
  return text + "]";
}

inline std::string object(const std::vector<std::pair<const char*, std::string>>& fields,
                          const char* separator = ", ") {
  std::string text = "{";
  for (size_t i = 0; i < fields.size(); ++i) {
    text += (i ? separator : "") + quote(fields[i].first) + ": " + fields[i].second;
  }
  return text + "}";
}

}  // namespace bve::json
