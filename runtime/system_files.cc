#include "system_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace bve {
namespace {

constexpr size_t kMostNames = 16384, kMostUnread = 64;
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

std::vector<Folder> SystemFiles::list(const std::string& path, std::string_view prefix) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> opened(opendir((root_ + path).c_str()), closedir);
  if (!opened) note(path, errno);
  while (opened && names.size() < kMostNames) {
    const dirent* const entry = readdir(opened.get());
    if (!entry) break;
    const std::string_view name = entry->d_name;
    if (entry->d_type == DT_REG) continue;
    if (name[0] != '.' && name.substr(0, prefix.size()) == prefix) names.emplace_back(name);
  }
  std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  });
  std::vector<Folder> folders;
  for (const std::string& name : names) folders.emplace_back(*this, Folder(*this, path).path(name));
  return folders;
}

int SystemFiles::check(const std::string& path, int mode) const {
  return access((root_ + path).c_str(), mode) == 0 ? 0 : errno;
}

bool SystemFiles::exists(const std::string& path) const {
  const int error = check(path, F_OK);
  return error != ENOENT && error != ENOTDIR;
}

void SystemFiles::note(const std::string& path, int error) {
  if (error == ENOENT || error == ENOTDIR || unread_.size() == kMostUnread) return;
  for (const Unread& other : unread_) {
    if (other.path == path) return;
  }
  unread_.push_back({path, error});
}

std::string Folder::path(std::string_view name) const {
  return std::string(path_).append("/").append(name);
}

std::string explain_errno(int error) { return error ? std::strerror(error) : ""; }

std::optional<int64_t> parse_number(std::string_view word) {
  const bool negative = !word.empty() && word[0] == '-';
  if (negative) word.remove_prefix(1);
  const bool hexadecimal = word.size() > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
  if (hexadecimal) word.remove_prefix(2);
  int64_t value = 0;
  const char* const end = word.data() + word.size();
  const auto [stopped, error] = std::from_chars(word.data(), end, value, hexadecimal ? 16 : 10);
  if (error != std::errc() || stopped != end || word[0] == '-') return std::nullopt;  // a 2nd sign
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

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

}  // namespace bve
