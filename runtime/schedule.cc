#include "schedule.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

namespace bve {
namespace {

constexpr size_t kMostPasts = 16;  // that are kept apart; the next step then waits for all of them
constexpr size_t kMostTilesByTile = 1 << 22;           // beyond, steps wait for whole ones
constexpr size_t kMostPackedBytes = size_t{64} << 20;  // beyond, a head is one thread's

// A rectangle of a buffer that a step touches.
struct Access {
  uint32_t buffer;
  bool writes;
  Range rows, columns;
  // Of rows by tile: tile i touches the i-th tile_rows of `count` rows and no others. They are
  // `rows` in their order, or those that a list names, as it is after so many writes.
  size_t count = 0;  // 0: any tile may touch any row
  uint32_t list = kNone, version = 0;
};

struct Past {
  uint32_t step;
  Access access;
};

// Of what a thread takes: to take it costs about 0.2 us, to compute it 2 us on a Zen 4.
constexpr uint64_t kLeastWork = 1 << 19;

uint32_t choose_grain(const Cut& how) {
  const uint64_t tiles = (kLeastWork + how.work - 1) / std::max<uint64_t>(how.work, 1);
  return static_cast<uint32_t>(std::min<uint64_t>(std::max<uint64_t>(tiles, 1), how.tiles));
}

bool overlap(Range a, Range b) { return a.begin < b.end && b.begin < a.end; }
bool covers(Range a, Range b) { return a.begin <= b.begin && b.end <= a.end; }

bool conflict(const Access& a, const Access& b) {
  return (a.writes || b.writes) && overlap(a.rows, b.rows) && overlap(a.columns, b.columns);
}

// Whether tile i of the one meets no tile of the other but its i-th.
bool is_by_tile(const Access& a, const Access& b) {
  return a.count > 0 && a.count == b.count && a.list == b.list && a.version == b.version &&
         a.rows.begin == b.rows.begin;
}

class Planner {
 public:
  Planner(const Frame& frame, const Entry& entry, const Arena& arena, bool shared)
      : frame_(frame),
        ops_(frame.program.ops(entry)),
        arena_(arena),
        states_(frame.shapes.count),
        shared_(shared) {}

  Schedule plan(const Kernels& kernels) {
    if (shared_) reserve_packed(kernels);
    for (uint32_t i = 0; i < ops_.count; i++) {
      if (is_split(ops_[i], kernels)) {
        add(i, Phase::kPack);
        add(i, Phase::kAttend);
      } else {
        add(i, Phase::kWhole);
      }
    }
    return std::move(schedule_);
  }

 private:
  struct State {
    std::vector<Past> pasts;  // what a later access may have to wait for
    uint32_t writes = 0;
    bool is_placed = false;
    bool joins = false;  // the step being added waits for all, and stands for them afterwards
  };
  struct Packed {
    uint32_t buffer;  // a number beyond the program's
    size_t offset, bytes;
  };

  // Attention over one buffer, layer after layer, packs into one place.
  void reserve_packed(const Kernels& kernels) {
    for (const Op& op : ops_) {
      if (op.kind != OpKind::kAttention) continue;
      const uint32_t qkv = get<AttentionArgs>(op).qkv;
      const size_t bytes = measure_packed(frame_, op, kernels);
      const auto known = packed_.find(qkv);
      const size_t before = known == packed_.end() ? 0 : known->second.bytes;
      const size_t more = bytes > before ? bytes - before : 0;
      if (cut(frame_, op, Phase::kAttend).tiles > kMostTiles ||
          schedule_.packed_bytes + more > kMostPackedBytes)
        continue;
      packed_[qkv].bytes = before + more;
      schedule_.packed_bytes += more;
    }
    size_t offset = 0;
    for (auto& [qkv, packed] : packed_) {
      packed.buffer = static_cast<uint32_t>(states_.size());
      packed.offset = offset;
      offset += packed.bytes;
      states_.emplace_back();
      states_.back().is_placed = true;
    }
  }

  bool is_split(const Op& op, const Kernels& kernels) const {
    if (op.kind != OpKind::kAttention) return false;
    const auto found = packed_.find(get<AttentionArgs>(op).qkv);
    return found != packed_.end() && measure_packed(frame_, op, kernels) <= found->second.bytes &&
           cut(frame_, op, Phase::kAttend).tiles <= kMostTiles;
  }

  void add(uint32_t op, Phase phase) {
    Cut how = cut(frame_, ops_[op], phase);
    if (schedule_.tiles + how.tiles > kMostTilesByTile) how.rows = 0;
    const auto number = static_cast<uint32_t>(schedule_.steps.size());
    first_need_ = schedule_.needs.size();
    const std::vector<Access> accesses = list_accesses(ops_[op], phase, how);
    for (const Access& access : accesses) wait_for(access);
    for (const Access& access : accesses) leave({number, access});
    const bool packs = phase != Phase::kWhole;
    schedule_.steps.push_back({op, phase, ops_[op].lane, static_cast<uint32_t>(how.tiles),
                               choose_grain(how), how.rows > 0 ? schedule_.tiles : kNone, how.work,
                               static_cast<uint32_t>(first_need_),
                               static_cast<uint32_t>(schedule_.needs.size() - first_need_),
                               packs ? packed_.at(get<AttentionArgs>(ops_[op]).qkv).offset : 0});
    if (how.rows > 0) schedule_.tiles += static_cast<uint32_t>(how.tiles);
  }

  std::vector<Access> list_accesses(const Op& op, Phase phase, const Cut& how) const {
    std::vector<Access> accesses;
    const auto whole = [&](uint32_t buffer, bool writes) {
      if (buffer == kNone) return;
      const Buffer& shape = frame_.shapes[buffer];
      accesses.push_back({buffer, writes, {0, shape.rows}, {0, shape.columns}});
    };
    const auto rows = [&](uint32_t buffer, bool writes, uint32_t list, size_t first, size_t count,
                          Range columns) {
      Access access{buffer, writes, {first, first + count}, columns, how.rows ? count : 0, list};
      if (list != kNone) {
        access.rows = {0, frame_.shapes[buffer].rows};
        access.version = states_[list].writes;
        whole(list, false);
      }
      accesses.push_back(access);
    };
    switch (op.kind) {
      case OpKind::kPatches: {
        const auto a = get<PatchesArgs>(op);
        whole(a.image, false);
        rows(a.dst, true, kNone, 0, frame_.shapes[a.dst].rows, {0, frame_.columns(a.dst)});
        break;
      }
      case OpKind::kList:
        whole(get<ListArgs>(op).dst, true);
        break;
      case OpKind::kFill: {
        const auto a = get<FillArgs>(op);
        rows(a.dst, true, kNone, 0, frame_.shapes[a.dst].rows, {0, frame_.columns(a.dst)});
        break;
      }
      case OpKind::kLinear: {
        const auto a = get<LinearArgs>(op);
        rows(a.src, false, a.src_rows, 0, a.rows, {0, frame_.columns(a.src)});
        rows(a.dst, true, a.dst_rows, a.dst_first_row, a.rows,
             {a.dst_first_column, size_t{a.dst_first_column} + a.columns});
        whole(a.gate, false);
        break;
      }
      case OpKind::kAttention: {
        const auto a = get<AttentionArgs>(op);
        const size_t dim = frame_.columns(a.qkv) / 3, tokens = frame_.shapes[a.qkv].rows;
        if (phase != Phase::kAttend)
          accesses.push_back({a.qkv, false, {0, tokens}, {dim, 3 * dim}});
        if (phase != Phase::kWhole)
          accesses.push_back({packed_.at(a.qkv).buffer, phase == Phase::kPack, {0, 1}, {0, 1}});
        if (phase != Phase::kPack) {
          accesses.push_back({a.qkv, false, {0, a.queries}, {0, dim}});
          accesses.push_back({a.dst, true, {0, a.queries}, {0, dim}});
        }
        break;
      }
      case OpKind::kRoute: {
        const auto a = get<RouteArgs>(op);
        whole(a.src, false);
        for (const uint32_t made : {a.selected, a.skipped, a.gate}) whole(made, true);
        break;
      }
      case OpKind::kMlp: {
        const auto a = get<MlpArgs>(op);
        rows(a.data, true, a.list, 0, a.rows, {0, frame_.columns(a.data)});
        whole(a.gate, false);
        break;
      }
    }
    return accesses;
  }

  void wait_for(const Access& access) {
    State& state = states_[access.buffer];
    if (!state.is_placed) place(access.buffer);
    state.joins = state.pasts.size() >= kMostPasts;
    for (const Past& past : state.pasts) {
      if (state.joins || conflict(past.access, access))
        need({past.step, !state.joins && is_by_tile(past.access, access)});
    }
  }

  // Who writes a rectangle waits for all that touched it before: later steps need but wait for it.
  void leave(const Past& past) {
    const Access& access = past.access;
    State& state = states_[access.buffer];
    std::vector<Past>& pasts = state.pasts;
    state.writes += access.writes;
    if (state.joins) {
      pasts = {touch_all(past.step, access.buffer)};
      return;
    }
    const auto is_behind = [&](const Past& other) {
      return access.writes && other.step != past.step && covers(access.rows, other.access.rows) &&
             covers(access.columns, other.access.columns);
    };
    pasts.erase(std::remove_if(pasts.begin(), pasts.end(), is_behind), pasts.end());
    pasts.push_back(past);
  }

  // A step that touched all of a buffer, whatever it did.
  static Past touch_all(uint32_t step, uint32_t buffer) {
    return {step, {buffer, true, {0, SIZE_MAX}, {0, SIZE_MAX}}};
  }

  // Who touches any of a buffer waits for all that touched those whose memory it takes over.
  void place(uint32_t buffer) {
    states_[buffer].is_placed = true;
    const Buffer& shape = frame_.shapes[buffer];
    const size_t begin = arena_.offsets[buffer],
                 end = begin + size_t{4} * shape.rows * shape.columns;
    if (buffer < 2) return;  // the image and the logits are the caller's
    auto owner = owners_.upper_bound(begin);
    if (owner != owners_.begin()) --owner;
    while (owner != owners_.end() && owner->first < end) {
      const auto [from, old] = *owner;
      if (old.end <= begin) {
        ++owner;
        continue;
      }
      for (const Past& past : states_[old.buffer].pasts)
        states_[buffer].pasts.push_back(touch_all(past.step, buffer));
      owner = owners_.erase(owner);
      if (from < begin) owners_[from] = {begin, old.buffer};
      if (old.end > end) owner = std::next(owners_.insert_or_assign(end, old).first);
    }
    owners_[begin] = {end, buffer};
  }

  void need(const Need& need) {
    if (place_of_.size() <= need.step) place_of_.resize(need.step + 1, {kNone, 0});
    auto& [number, place] = place_of_[need.step];
    if (number == schedule_.steps.size()) {
      schedule_.needs[place].by_tile &= need.by_tile;
      return;
    }
    number = static_cast<uint32_t>(schedule_.steps.size());
    place = schedule_.needs.size();
    schedule_.needs.push_back(need);
  }

  struct Owner {
    size_t end;
    uint32_t buffer;
  };

  const Frame& frame_;
  const Records<Op> ops_;
  const Arena& arena_;
  std::vector<State> states_;  // by buffer, packed ones behind
  const bool shared_;
  std::map<uint32_t, Packed> packed_;  // by qkv
  std::map<size_t, Owner> owners_;     // of the arena's bytes, by where theirs begin
  Schedule schedule_;
  size_t first_need_ = 0;                              // of the step being added
  std::vector<std::pair<uint32_t, size_t>> place_of_;  // by step: who needed it last, and where
};

}  // namespace

Schedule plan_schedule(const Frame& frame, const Entry& entry, const Arena& arena,
                       const Kernels& kernels, bool shared) {
  return Planner(frame, entry, arena, shared).plan(kernels);
}

}  // namespace bve
