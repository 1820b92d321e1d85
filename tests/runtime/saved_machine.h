// Saved text of a machine, tests/runtime/machines, unpacked into a folder that is gone at the end.
#pragma once

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "system_files.h"

namespace bve::test {

class SavedMachine {
 public:
  SavedMachine() {
    const bool memory = std::filesystem::is_directory("/dev/shm");  // many small files
    root_ = memory ? "/dev/shm/bve-XXXXXX" : "/tmp/bve-XXXXXX";
    if (!mkdtemp(root_.data())) std::abort();
  }
  explicit SavedMachine(const std::filesystem::path& file) : SavedMachine() {
    std::ifstream stream(file);
    std::string line, path, numbers;
    std::vector<std::string> lines;
    while (std::getline(stream, line)) {
      if (line[0] == '|') lines.push_back(line.substr(std::min<size_t>(2, line.size())));
      if (line[0] != '/') continue;
      unpack(path, numbers, lines);
      const size_t colon = line.find(": ");
      std::istringstream(line.substr(0, std::min(colon, line.find_last_not_of(':') + 1))) >> path >>
          (numbers = "", numbers);
      lines.clear();
      if (colon != line.npos) lines.push_back(line.substr(colon + 2));
    }
    unpack(path, numbers, lines);
    for (const auto& [name, text] : files_) write(name, text);
  }
  ~SavedMachine() { std::filesystem::remove_all(root_); }
  SavedMachine(const SavedMachine&) = delete;

  const std::string& root() const { return root_; }
  const std::map<std::string, std::string>& files() const { return files_; }

  // A program where the path ends with !, a folder where with /.
  void write(const std::string& path, const std::string& text) const {
    if (path.back() == '/') {
      std::filesystem::create_directories(root_ + path);
      return;
    }
    const std::string file = root_ + path.substr(0, path.find_last_not_of('!') + 1);
    std::filesystem::create_directories(std::filesystem::path(file).parent_path());
    std::ofstream(file) << text;
    chmod(file.c_str(), path.back() == '!' ? 0755 : 0644);
  }

 private:
  void unpack(const std::string& path, const std::string& numbers,
              const std::vector<std::string>& lines) {
    if (path.empty()) return;
    if (numbers.empty()) add(path, lines, "");
    const std::vector<int> each = parse_cores(numbers).value();
    for (const int number : each) add(path, lines, std::to_string(number));
  }

  void add(const std::string& path, const std::vector<std::string>& lines,
           const std::string& number) {
    std::string& text = files_[replace(path, "{}", number)];
    for (const std::string& line : lines) {
      const std::string with = replace(replace(line, "{}", number), "\\0", std::string(1, '\0'));
      text += with.find('\0') == with.npos ? with + "\n" : with;
    }
  }

  static std::string replace(std::string text, const std::string& word, const std::string& by) {
    for (size_t at = 0; (at = text.find(word, at)) != text.npos; at += by.size())
      text.replace(at, word.size(), by);
    return text;
  }

  std::string root_;
  std::map<std::string, std::string> files_;
};

}  // namespace bve::test
