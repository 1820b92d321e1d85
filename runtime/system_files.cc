#include "system_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace bve {
namespace {

constexpr size_t kMostNames = 65536, kMostUnread = 64;
constexpr int64_t kMostCores = 65536;
constexpr std::string_view kBlanks(" \t\r\n\0", 5);

}  // namespace

FileText SystemFiles::read(const std::string& path, size_t most) {
  FileText read{{}, 0};
  // A pipe in a file's place would else be waited for.
  const int file = open((root_ + path).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  char block[4096];
  while (file >= 0 && read.text.size() < most) {
    const ssize_t bytes = ::read(file, block, std::min(sizeof block, most - read.text.size()));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) read.error = errno;
    if (bytes <= 0) break;
    read.text.append(block, static_cast<size_t>(bytes));
  }
  if (file >= 0) {
    close(file);
  } else {
    read.error = errno;
  }
  if (read.error) note(path, read.error);
  read.text = trim(read.text);
  return read;
}

std::optional<int64_t> SystemFiles::number(const std::string& path, int64_t least, int64_t most) {
  const std::string text = read(path).text;
  const std::vector<std::string_view> words = split(text);
  const std::optional<int64_t> value = words.empty() ? std::nullopt : parse_number(words[0]);
  return value && *value >= least && *value <= most ? value : std::nullopt;
}

std::vector<std::string> SystemFiles::list(const std::string& folder, std::string_view prefix) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> opened(opendir((root_ + folder).c_str()), closedir);
  if (!opened) note(folder, errno);
  while (opened && names.size() < kMostNames) {
    const dirent* const entry = readdir(opened.get());
    if (!entry) break;
    const std::string_view name = entry->d_name;
    if (name[0] != '.' && name.substr(0, prefix.size()) == prefix) names.emplace_back(name);
  }
  std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  });
  return names;
}

bool SystemFiles::exists(const std::string& path) const {
  struct stat status;
  return stat((root_ + path).c_str(), &status) == 0;
}

void SystemFiles::note(const std::string& path, int error) {
  if (error == ENOENT || error == ENOTDIR || unread_.size() == kMostUnread) return;
  for (const Unread& other : unread_) {
    if (other.path == path) return;
  }
  unread_.push_back({path, error});
}

std::optional<int64_t> parse_number(std::string_view word) {
  const bool negative = !word.empty() && word[0] == '-';
  if (negative) word.remove_prefix(1);
  const bool hexadecimal = word.size() > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
  if (hexadecimal) word.remove_prefix(2);
  const int64_t base = hexadecimal ? 16 : 10;
  int64_t value = 0;
  for (const char c : word) {  // std::from_chars brings tables of 100 KB
    const int64_t digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : 16;
    if (digit >= base || value > (INT64_MAX - digit) / base) return std::nullopt;
    value = value * base + digit;
  }
  if (word.empty()) return std::nullopt;
  return negative ? -value : value;
}

std::optional<std::vector<int>> parse_cores(std::string_view text) {
  std::vector<int> cores;
  for (const std::string_view range : split(text, ", \n")) {
    const size_t dash = range.find('-');
    const std::optional<int64_t> first = parse_number(range.substr(0, dash));
    const std::optional<int64_t> last =
        dash == range.npos ? first : parse_number(range.substr(dash + 1));
    if (!first || !last || *first < 0 || *last < *first || *last >= kMostCores) return std::nullopt;
    for (int64_t core = *first; core <= *last; core++) cores.push_back(static_cast<int>(core));
    if (cores.size() > kMostCores) return std::nullopt;
  }
  std::sort(cores.begin(), cores.end());
  cores.erase(std::unique(cores.begin(), cores.end()), cores.end());
  return cores;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; (begin = text.find_first_not_of(separators, begin)) != text.npos;) {
    const size_t end = std::min(text.find_first_of(separators, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return parts;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kBlanks), end = text.find_last_not_of(kBlanks);
  return begin == text.npos ? std::string_view() : text.substr(begin, end - begin + 1);
}

}  // namespace bve
