#include "arena.h"

#include <algorithm>
#include <numeric>

namespace bve {
namespace {

constexpr size_t kAlign = 64;

struct Life {
  uint32_t first = UINT32_MAX, last = 0;
  bool meets(const Life& other) const { return first <= other.last && other.first <= last; }
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
  std::vector<uint32_t> order(buffers.count > 2 ? buffers.count - 2 : 0);
  std::iota(order.begin(), order.end(), 2);  // 0 and 1 are the caller's
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return size_of(a) != size_of(b) ? size_of(a) > size_of(b) : a < b;
  });

  Arena arena{std::vector<size_t>(buffers.count), 0};
  std::vector<uint32_t> placed;  // by offset
  for (uint32_t buffer : order) {
    if (lives[buffer].first > lives[buffer].last) continue;  // nothing names it
    size_t offset = 0;
    for (uint32_t other : placed) {
      if (!lives[buffer].meets(lives[other])) continue;
      if (offset + size_of(buffer) <= arena.offsets[other]) break;
      offset = std::max(offset, arena.offsets[other] + size_of(other));
    }
    arena.offsets[buffer] = offset;
    arena.bytes = std::max(arena.bytes, offset + size_of(buffer));
    placed.insert(std::upper_bound(placed.begin(), placed.end(), offset,
                                   [&](size_t o, uint32_t p) { return o < arena.offsets[p]; }),
                  buffer);
  }
  return arena;
}

}  // namespace bve
