// Programs that the delegates of one model share: each is opened once and closed with its last
// user.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "bve.h"

namespace bve {

class SharedPrograms {
 public:
  // Where a program's bytes are, as far as its runtime tells: two users of one key may use one
  // copy. The address is that of an object that outlives all users of the key.
  using Key = std::pair<const void*, std::string>;

  // The program of that key. If nobody uses it yet: open() -> std::shared_ptr<bve_program>, whose
  // deleter closes it and gives its bytes back; null, which is not kept, where it cannot be opened.
  template <typename Open>
  std::shared_ptr<bve_program> find_or_open(const Key& key, Open open) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = programs_.begin(); it != programs_.end();)
      it = it->second.expired() ? programs_.erase(it) : std::next(it);
    if (auto program = programs_[key].lock()) return program;
    auto program = open();
    programs_[key] = program;
    return program;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::weak_ptr<bve_program>> programs_;
};

}  // namespace bve
