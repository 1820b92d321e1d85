// Text of /proc and /sys, of this machine or saved from another: whatever it says or lacks, reading
// it neither waits nor fails, and what was denied is remembered.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bve {

struct FileText {
  std::string text;  // without blanks and NULs at its ends
  int error;         // errno's, or 0
};

class Folder;

class SystemFiles {
 public:
  static constexpr size_t kMostBytes = 1 << 16;

  // root: where /proc and /sys lie; "" for this machine.
  explicit SystemFiles(std::string root) : root_(std::move(root)) {}
  SystemFiles(const SystemFiles&) = delete;

  // At most so many bytes of a file.
  FileText read(const std::string& path, size_t most = kMostBytes);
  // Its text, or "".
  std::string text(const std::string& path) { return read(path).text; }
  // A whole number from `least` to `most`, which it begins with; nothing where it says another.
  std::optional<int64_t> number(const std::string& path, int64_t least, int64_t most);
  // Folders, or links to such, whose names begin so: cpu2 before cpu10; at most 16384.
  std::vector<Folder> list(const std::string& path, std::string_view prefix = "");
  // 0 where it may be opened so, as of access(2), else why not.
  int check(const std::string& path, int mode) const;
  // Also what may not be looked at.
  bool exists(const std::string& path) const;

  bool here() const { return root_.empty(); }

  struct Unread {
    std::string path;
    int error;
  };
  // What there is but could not be read: the first 64.
  const std::vector<Unread>& unread() const { return unread_; }

 private:
  void note(const std::string& path, int error);

  std::string root_;
  std::vector<Unread> unread_;
};

// A folder of those files.
class Folder {
 public:
  Folder(SystemFiles& files, std::string path) : files_(&files), path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string path(std::string_view name) const;  // of a file in it
  std::string_view name() const { return std::string_view(path_).substr(path_.rfind('/') + 1); }
  FileText read(std::string_view name) const { return files_->read(path(name)); }
  std::string text(std::string_view name) const { return files_->text(path(name)); }
  bool has(std::string_view name) const { return files_->exists(path(name)); }
  std::optional<int64_t> number(std::string_view name, int64_t least, int64_t most) const {
    return files_->number(path(name), least, most);
  }

 private:
  SystemFiles* files_;
  std::string path_;
};

// What errno means; "" for 0.
std::string explain_errno(int error);
// The whole number in decimal, or hexadecimal after 0x, that is all of a word.
std::optional<int64_t> parse_number(std::string_view word);
// Numbers of a list such as 0-3,7, in rising order; nothing unless all of it is one, of cores below
// 65536. "" is an empty list.
std::optional<std::vector<int>> parse_cores(std::string_view text);
// Parts between blanks, or between the given letters; none is empty.
std::vector<std::string_view> split(std::string_view text, std::string_view separators = " \t\n");
std::string_view trim(std::string_view text);
bool contains(std::string_view text, std::string_view part);

}  // namespace bve
