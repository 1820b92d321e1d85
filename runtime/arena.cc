#include "arena.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace bve {
namespace {

constexpr size_t kAlign = 64;

struct Life {
  uint32_t first = UINT32_MAX, last = 0;
};

// The arena while it is planned: which of it is free now. Every call takes O(log holes).
class Room {
 public:
  size_t bytes() const { return bytes_; }

  // The smallest hole that is large enough; else the end, and the hole that may lie there.
  size_t take(size_t size) {
    const auto hole = by_size_.lower_bound({size, 0});
    if (hole != by_size_.end()) {
      const auto [found, offset] = *hole;
      fill(offset, found);
      if (found > size) open(offset + size, found - size);
      return offset;
    }
    size_t offset = bytes_;
    if (const auto last = by_offset_.rbegin();
        last != by_offset_.rend() && last->first + last->second == bytes_) {
      offset = last->first;
      fill(offset, bytes_ - offset);
    }
    bytes_ = offset + size;
    return offset;
  }

  // Holes that touch become one.
  void give(size_t offset, size_t size) {
    const auto after = by_offset_.find(offset + size);
    if (after != by_offset_.end()) {
      const size_t more = after->second;
      fill(offset + size, more);
      size += more;
    }
    const auto next = by_offset_.lower_bound(offset);
    if (next != by_offset_.begin()) {
      const auto [start, length] = *std::prev(next);
      if (start + length == offset) {
        fill(start, length);
        offset = start;
        size += length;
      }
    }
    open(offset, size);
  }

 private:
  void open(size_t offset, size_t size) {
    by_offset_.emplace(offset, size);
    by_size_.emplace(size, offset);
  }
  void fill(size_t offset, size_t size) {
    by_offset_.erase(offset);
    by_size_.erase({size, offset});
  }

  std::map<size_t, size_t> by_offset_;
  std::set<std::pair<size_t, size_t>> by_size_;
  size_t bytes_ = 0;
};

}  // namespace

Operands list_operands(const Op& op) {
  Operands operands;
  const auto add = [&](auto... buffers) { (operands.add(buffers), ...); };
  switch (op.kind) {
    case OpKind::kPatches: {
      const auto a = get<PatchesArgs>(op);
      add(a.image, a.dst);
      break;
    }
    case OpKind::kList:
      add(get<ListArgs>(op).dst);
      break;
    case OpKind::kFill:
      add(get<FillArgs>(op).dst);
      break;
    case OpKind::kLinear: {
      const auto a = get<LinearArgs>(op);
      add(a.src, a.src_rows, a.dst, a.dst_rows, a.gate);
      break;
    }
    case OpKind::kAttention: {
      const auto a = get<AttentionArgs>(op);
      add(a.qkv, a.dst);
      break;
    }
    case OpKind::kRoute: {
      const auto a = get<RouteArgs>(op);
      add(a.src, a.selected, a.skipped, a.gate);
      break;
    }
    case OpKind::kMlp: {
      const auto a = get<MlpArgs>(op);
      add(a.data, a.list, a.gate);
      break;
    }
  }
  return operands;
}

Arena plan_arena(const Program& program, const Entry& entry) {
  const Records<Buffer> buffers = program.buffers(entry);
  std::vector<Life> lives(buffers.count);
  for (const Op& op : program.ops(entry)) {
    const Operands operands = list_operands(op);
    for (size_t i = 0; i < operands.count; i++) {
      Life& life = lives[operands.buffers[i]];
      life.first = std::min<uint32_t>(life.first, op.stage);
      life.last = std::max<uint32_t>(life.last, op.stage);
    }
  }
  const auto size_of = [&](uint32_t b) {
    return (size_t{buffers[b].rows} * buffers[b].columns * 4 + kAlign - 1) / kAlign * kAlign;
  };
  std::vector<uint32_t> by_first;
  for (uint32_t b = 2; b < buffers.count; b++) {                 // 0 and 1 are the caller's
    if (lives[b].first <= lives[b].last) by_first.push_back(b);  // else nothing names it
  }
  std::vector<uint32_t> by_last = by_first;
  std::sort(by_last.begin(), by_last.end(), [&](uint32_t a, uint32_t b) {
    return std::tuple(lives[a].last, a) < std::tuple(lives[b].last, b);
  });
  std::sort(by_first.begin(), by_first.end(), [&](uint32_t a, uint32_t b) {
    return std::tuple(lives[a].first, lives[b].last, size_of(b), a) <
           std::tuple(lives[b].first, lives[a].last, size_of(a), b);
  });

  Arena arena{std::vector<size_t>(buffers.count), 0};
  Room room;
  auto dead = by_last.begin();
  for (uint32_t buffer : by_first) {
    for (; lives[*dead].last < lives[buffer].first; ++dead) {
      room.give(arena.offsets[*dead], size_of(*dead));
    }
    arena.offsets[buffer] = room.take(size_of(buffer));
  }
  arena.bytes = room.bytes();
  return arena;
}

}  // namespace bve
