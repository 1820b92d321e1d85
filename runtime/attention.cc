#include "attention.h"

namespace bve {
namespace {

// A head's keys and values, packed as right sides.
struct Right {
  size_t tokens, dim, width;  // width: of a head
  bve_packing packing;
  std::byte *keys, *values;

  Right(const Frame& frame, const AttentionArgs& a, const Kernels& kernels, Bump& bump)
      : tokens(frame.shapes[a.qkv].rows),
        dim(frame.columns(a.qkv) / 3),
        width(dim / a.heads),
        packing(kernels.gemm(static_cast<bve_type>(a.type)).packing),
        keys(bump.take<std::byte>(divide_up(tokens, BVE_PANEL) *
                                  bve_rhs_stride_bytes(packing, width))),
        values(bump.take<std::byte>(divide_up(width, BVE_PANEL) *
                                    bve_rhs_stride_bytes(packing, tokens))) {}

  void pack(const Frame& frame, const AttentionArgs& a, const Kernels& kernels, size_t head) const {
    const float* const qkv = frame.floats(a.qkv) + head * width;
    pack_side(*kernels.keys, qkv + dim, keys);
    pack_side(*kernels.values, qkv + 2 * dim, values);
  }

 private:
  void pack_side(const bve_kernel_row<bve_pack_rhs_fn>& kernel, const float* src,
                 std::byte* dst) const {
    bve_pack_rhs args{};
    args.n = tokens;
    args.d = width;
    args.src = src;
    args.src_stride_bytes = 3 * dim * sizeof(float);
    args.dst = dst;
    args.packing = packing;
    kernel.run(&args);
  }
};

size_t measure_right(const Frame& frame, const AttentionArgs& a, const Kernels& kernels) {
  Bump bump(nullptr);
  Right(frame, a, kernels, bump);
  return bump.used();
}

Right right_of(const Frame& frame, const AttentionArgs& a, const Kernels& kernels, size_t head,
               std::byte* packed) {
  Bump bump(packed + head * measure_right(frame, a, kernels));
  return Right(frame, a, kernels, bump);
}

struct AttentionScratch {
  size_t padded;
  Left queries, scores;
  float* products;  // [tile rows, padded]: queries times keys

  AttentionScratch(const Frame& frame, const AttentionArgs& a, const Kernels& kernels, Bump& bump)
      : padded(round_up(frame.shapes[a.qkv].rows, 16)),
        queries(kernels.gemm(static_cast<bve_type>(a.type)), frame.tile_rows,
                frame.columns(a.qkv) / 3 / a.heads, bump),
        scores(queries.gemm, frame.tile_rows, frame.shapes[a.qkv].rows, bump),
        products(bump.take<float>(frame.tile_rows * padded)) {}
};

// A tile of a head's queries.
void attend(const Frame& frame, const AttentionArgs& a, const Kernels& kernels,
            const AttentionScratch& s, const Right& right, size_t head, size_t tile) {
  const Range rows = rows_of({tile, tile + 1}, frame.tile_rows, a.queries);
  const size_t first = head * right.width;
  pack(kernels, s.queries, rows, frame.floats(a.qkv) + first, 3 * right.dim, nullptr, bve_as_is);
  multiply(s.queries, rows.size(), right.keys, right.tokens, s.products, s.padded);
  bve_softmax args{};
  args.m = rows.size();
  args.n = right.tokens;
  args.scores = s.products;
  args.scores_stride_bytes = s.padded * sizeof(float);
  args.dst = s.scores.data;
  args.lhs = s.scores.gemm.lhs;
  args.rows = s.scores.rows;
  kernels.softmaxes[args.lhs.type]->run(&args);
  multiply(s.scores, rows.size(), right.values, right.width,
           frame.floats(a.dst) + rows.begin * right.dim + first, right.dim);
}

}  // namespace

void apply_attention(const Frame& frame, const AttentionArgs& a, Phase phase,
                     const Kernels& kernels, Range tiles, Bump& bump, std::byte* packed) {
  if (phase == Phase::kPack) {
    for (size_t head = tiles.begin; head < tiles.end; head++) {
      right_of(frame, a, kernels, head, packed).pack(frame, a, kernels, head);
    }
    return;
  }
  const AttentionScratch scratch(frame, a, kernels, bump);
  const size_t tiles_a_head = divide_up(a.queries, frame.tile_rows);
  if (phase == Phase::kAttend) {
    for (size_t i = tiles.begin; i < tiles.end; i++) {
      const size_t head = i / tiles_a_head;
      attend(frame, a, kernels, scratch, right_of(frame, a, kernels, head, packed), head,
             i % tiles_a_head);
    }
    return;
  }
  const Right right(frame, a, kernels, bump);
  for (size_t head = tiles.begin; head < tiles.end; head++) {
    right.pack(frame, a, kernels, head);
    for (size_t i = 0; i < tiles_a_head; i++) attend(frame, a, kernels, scratch, right, head, i);
  }
}

Cut cut_attention(const Frame& frame, const AttentionArgs& a, Phase phase) {
  const uint64_t floats =
      uint64_t{2} * frame.shapes[a.qkv].rows * frame.columns(a.qkv) / 3 / a.heads;
  if (phase == Phase::kPack) return {a.heads, 0, floats * kWorkOfFloat};
  if (phase == Phase::kWhole) return {a.heads, 0, floats * a.queries};
  return {a.heads * divide_up(a.queries, frame.tile_rows), 0, floats * frame.tile_rows};
}

void reserve_attention(const Frame& frame, const AttentionArgs& a, const Kernels& kernels,
                       Bump& bump) {
  AttentionScratch(frame, a, kernels, bump);
  Right(frame, a, kernels, bump);
}

size_t measure_packed(const Frame& frame, const AttentionArgs& a, const Kernels& kernels) {
  return a.heads * measure_right(frame, a, kernels);
}

}  // namespace bve
