// JSON text, put together from values that are JSON text already.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bve::json {

// Bytes of the UTF-8 letter that a text begins with; 0 if that is none.
inline size_t measure_letter(std::string_view text) {
  const auto byte = [&](size_t i) -> unsigned { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  const size_t bytes = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (bytes == 0 || bytes > text.size() || lead > 0xf4) return 0;
  for (size_t i = 1; i < bytes; i++) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  if ((lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xed && byte(1) > 0x9f)) return 0;
  if ((lead == 0xf0 && byte(1) < 0x90) || (lead == 0xf4 && byte(1) > 0x8f)) return 0;
  return bytes;
}

// What is no UTF-8 becomes U+FFFD, for JSON has no other text.
inline std::string quote(std::string_view text) {
  std::string quoted = "\"";
  for (size_t bytes; !text.empty(); text.remove_prefix(std::max<size_t>(1, bytes))) {
    const char c = text[0];
    bytes = measure_letter(text);
    if (bytes != 1) {
      quoted += bytes == 0 ? std::string_view("\\ufffd") : text.substr(0, bytes);
    } else if (c == '"' || c == '\\') {
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
