#include "execution.h"

#include <algorithm>
#include <cstring>

namespace bve {
namespace {

// Chosen on a Zen 4 with 1 MB of second-level cache, where blvit_s took within 3 % of the same time
// with 24 to 108 rows of an MLP at once; on CPUs with smaller caches nothing was tried.
constexpr size_t kRowsAtOnce = 48;         // of an MLP, with their hidden rows
constexpr size_t kLeftBytes = 256 * 1024;  // of a Linear's packed left side
constexpr size_t kQueriesAtOnce = 12;      // of a head, with their scores

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
size_t round_up(size_t a, size_t b) { return divide_up(a, b) * b; }

struct Range {
  size_t begin, end;
  size_t size() const { return end - begin; }
};

// A team member's share of `count` things that come in units.
Range share(size_t count, size_t unit, Team team) {
  const size_t chunk = round_up(divide_up(count, team.count), unit);
  return {std::min(count, team.index * chunk), std::min(count, (team.index + 1) * chunk)};
}

// The size of equal blocks, multiples of unit, of at most about `most` rows.
size_t choose_block(size_t rows, size_t most, size_t unit) {
  return round_up(divide_up(rows, divide_up(rows, std::max(most, unit))), unit);
}

// The left side of a product, being packed and used block by block.
struct Left {
  const bve_gemm_row& gemm;
  size_t k, stride_bytes;
  std::byte* data;
  bve_row* rows;
  float* scratch;

  Left(const bve_gemm_row& gemm, size_t m, size_t k, Bump& bump)
      : gemm(gemm),
        k(k),
        stride_bytes(bve_lhs_stride_bytes(gemm.lhs, k)),
        data(bump.take<std::byte>(divide_up(m, gemm.lhs.mr) * stride_bytes)),
        rows(bump.take<bve_row>(m)),
        scratch(bump.take<float>(round_up(k, 16))) {}
};

struct Norm {
  const float *gain, *offset;
};

// Rows `range` of src, or of those it lists, into a left side.
void pack(const Kernels& kernels, const Left& left, Range range, const float* src,
          size_t src_columns, const int32_t* src_rows, bve_before before, Norm norm = {}) {
  bve_pack args{};
  args.m = range.size();
  args.k = left.k;
  args.src = src_rows ? src : src + range.begin * src_columns;
  args.src_stride_bytes = src_columns * sizeof(float);
  args.src_rows = src_rows ? src_rows + range.begin : nullptr;
  args.before = before;
  args.gain = norm.gain;
  args.offset = norm.offset;
  args.epsilon = kLayerNormEpsilon;
  args.scratch = left.scratch;
  args.dst = left.data;
  args.lhs = left.gemm.lhs;
  args.rows = left.rows;
  kernels.packs[left.gemm.lhs.type]->run(&args);
}

// dst (+)= left * right, m rows.
void multiply(const Left& left, size_t m, const void* rhs, size_t n, float* dst, size_t dst_columns,
              const int32_t* dst_rows = nullptr, const float* gate = nullptr,
              bool accumulate = false) {
  bve_gemm args{};
  args.m = m;
  args.n = n;
  args.k = left.k;
  args.lhs = left.data;
  args.lhs_stride_bytes = left.stride_bytes;
  args.rows = left.rows;
  args.rhs = rhs;
  args.rhs_stride_bytes = bve_rhs_stride_bytes(left.gemm.packing, left.k);
  args.dst = dst;
  args.dst_stride_bytes = dst_columns * sizeof(float);
  args.dst_rows = dst_rows;
  args.gate = gate;
  args.accumulate = accumulate;
  left.gemm.run(&args);
}

const bve_gemm_row& gemm_for(const Frame& frame, const Kernels& kernels, uint32_t weight) {
  return *kernels.gemms[packing_of(frame.program.weights()[weight], kernels.int8)];
}

void cut_patches(const Frame& frame, const PatchesArgs& a, Team team) {
  const size_t size = frame.columns(a.image), side = size / a.patch;
  const size_t channels = frame.shapes[a.image].rows / size;
  const float* image = frame.floats(a.image);
  const Range patches = share(side * side, 1, team);
  for (size_t i = patches.begin; i < patches.end; i++) {
    float* row = frame.floats(a.dst) + i * frame.columns(a.dst);
    const float* corner = image + i / side * a.patch * size + i % side * a.patch;
    for (size_t c = 0; c < channels; c++) {
      for (size_t y = 0; y < a.patch; y++, row += a.patch) {
        std::memcpy(row, corner + (c * size + y) * size, a.patch * sizeof(float));
      }
    }
  }
}

void fill(const Frame& frame, const FillArgs& a, Team team) {
  const size_t columns = frame.columns(a.dst);
  const Range rows = share(frame.shapes[a.dst].rows, 1, team);
  std::memcpy(frame.floats(a.dst) + rows.begin * columns,
              frame.weights.floats(a.matrix) + rows.begin * columns,
              rows.size() * columns * sizeof(float));
}

// ---- Linear ------------------------------------------------------------------------------------

struct LinearScratch {
  size_t block;  // rows at once
  Left left;

  LinearScratch(const Frame& frame, const LinearArgs& a, const Kernels& kernels, Bump& bump)
      : LinearScratch(a.rows, frame.program.weights()[a.linear].columns,
                      gemm_for(frame, kernels, a.linear), bump) {}

 private:
  LinearScratch(size_t rows, size_t k, const bve_gemm_row& gemm, Bump& bump)
      : block(choose_block(rows, kLeftBytes * gemm.lhs.mr / bve_lhs_stride_bytes(gemm.lhs, k),
                           gemm.tile_rows)),
        left(gemm, block, k, bump) {}
};

void apply_linear(const Frame& frame, const LinearArgs& a, const Kernels& kernels, Team team,
                  Bump& bump) {
  const LinearScratch scratch(frame, a, kernels, bump);
  const Left& left = scratch.left;
  const size_t rhs_stride_bytes = bve_rhs_stride_bytes(left.gemm.packing, left.k);
  // few rows: each thread takes some columns of all, and packs the rows for itself
  const bool by_columns = a.rows <= left.gemm.tile_rows * (team.count - 1);
  const Range rows = by_columns ? Range{0, a.rows} : share(a.rows, left.gemm.tile_rows, team);
  const Range columns = by_columns ? share(a.columns, BVE_PANEL, team) : Range{0, a.columns};
  if (columns.size() == 0) return;

  const auto* rhs = static_cast<const std::byte*>(frame.weights.data(a.linear, kernels.int8)) +
                    (a.first_column + columns.begin) / BVE_PANEL * rhs_stride_bytes;
  const int32_t *src_rows = frame.list(a.src_rows), *dst_rows = frame.list(a.dst_rows);
  const size_t dst_columns = frame.columns(a.dst);
  float* dst =
      frame.floats(a.dst) + a.dst_first_row * dst_columns + a.dst_first_column + columns.begin;
  const bool norm = a.before == bve_layernorm;
  const Norm with{norm ? frame.weights.floats(a.gain) : nullptr,
                  norm ? frame.weights.floats(a.offset) : nullptr};
  for (size_t i = rows.begin; i < rows.end; i += scratch.block) {
    const Range block{i, std::min(i + scratch.block, rows.end)};
    pack(kernels, left, block, frame.floats(a.src), frame.columns(a.src), src_rows,
         static_cast<bve_before>(a.before), with);
    multiply(left, block.size(), rhs, columns.size(), dst_rows ? dst : dst + i * dst_columns,
             dst_columns, dst_rows ? dst_rows + i : nullptr,
             a.gate == kNone ? nullptr : frame.floats(a.gate) + i, a.accumulate);
  }
}

// ---- MLP: the hidden rows are never stored whole -----------------------------------------------

struct MlpScratch {
  size_t block, hidden_columns;
  Left in, hidden;
  float* values;  // [block, hidden_columns]: what fc1 gives

  MlpScratch(const Frame& frame, const MlpArgs& a, const Kernels& kernels, size_t threads,
             Bump& bump)
      : MlpScratch(a.rows, frame.program.weights()[a.fc1], gemm_for(frame, kernels, a.fc1),
                   gemm_for(frame, kernels, a.fc2), threads, bump) {}

 private:
  MlpScratch(size_t rows, const Weight& fc1, const bve_gemm_row& first, const bve_gemm_row& second,
             size_t threads, Bump& bump)
      : block(choose_block(divide_up(rows, threads), kRowsAtOnce,
                           std::max(first.tile_rows, second.tile_rows))),
        hidden_columns(fc1.rows),
        in(first, block, fc1.columns, bump),
        hidden(second, block, fc1.rows, bump),
        values(bump.take<float>(block * hidden_columns)) {}
};

void apply_mlp(const Frame& frame, const MlpArgs& a, const Kernels& kernels, Team team,
               Bump& bump) {
  const MlpScratch scratch(frame, a, kernels, team.count, bump);
  const void* fc1 = frame.weights.data(a.fc1, kernels.int8);
  const void* fc2 = frame.weights.data(a.fc2, kernels.int8);
  const Norm norm{frame.weights.floats(a.gain), frame.weights.floats(a.offset)};
  const int32_t* list = frame.list(a.list);
  const size_t columns = frame.columns(a.data);
  float* data = frame.floats(a.data);
  const Range rows = share(a.rows, scratch.block, team);
  for (size_t i = rows.begin; i < rows.end; i += scratch.block) {
    const Range block{i, std::min(i + scratch.block, rows.end)};
    pack(kernels, scratch.in, block, data, columns, list, bve_layernorm, norm);
    multiply(scratch.in, block.size(), fc1, scratch.hidden_columns, scratch.values,
             scratch.hidden_columns);
    pack(kernels, scratch.hidden, {0, block.size()}, scratch.values, scratch.hidden_columns,
         nullptr, bve_gelu);
    multiply(scratch.hidden, block.size(), fc2, columns, list ? data : data + i * columns, columns,
             list ? list + i : nullptr, a.gate == kNone ? nullptr : frame.floats(a.gate) + i, true);
  }
}

// ---- attention: the scores of some queries at a time, never all of them ------------------------

struct AttentionScratch {
  size_t tokens, dim, width, padded, block;  // width: of a head
  bve_packing packing;
  Left queries, scores;
  std::byte *keys, *values;
  float* products;  // [block, padded]: queries times keys

  AttentionScratch(const Frame& frame, const AttentionArgs& a, const Kernels& kernels, Bump& bump)
      : tokens(frame.shapes[a.qkv].rows),
        dim(frame.columns(a.qkv) / 3),
        width(dim / a.heads),
        padded(round_up(tokens, 16)),
        block(choose_block(a.queries, kQueriesAtOnce,
                           kernels.gemm(static_cast<bve_type>(a.type)).tile_rows)),
        packing(kernels.gemm(static_cast<bve_type>(a.type)).packing),
        queries(kernels.gemm(static_cast<bve_type>(a.type)), block, width, bump),
        scores(queries.gemm, block, tokens, bump),
        keys(bump.take<std::byte>(divide_up(tokens, BVE_PANEL) *
                                  bve_rhs_stride_bytes(packing, width))),
        values(bump.take<std::byte>(divide_up(width, BVE_PANEL) *
                                    bve_rhs_stride_bytes(packing, tokens))),
        products(bump.take<float>(block * padded)) {}
};

void pack_rhs(const bve_kernel_row<bve_pack_rhs_fn>& kernel, const AttentionScratch& s,
              const float* src, std::byte* dst) {
  bve_pack_rhs args{};
  args.n = s.tokens;
  args.d = s.width;
  args.src = src;
  args.src_stride_bytes = 3 * s.dim * sizeof(float);
  args.dst = dst;
  args.packing = s.packing;
  kernel.run(&args);
}

void attend(const Frame& frame, const AttentionArgs& a, const Kernels& kernels, Team team,
            Bump& bump) {
  const AttentionScratch s(frame, a, kernels, bump);
  const Range heads = share(a.heads, 1, team);
  for (size_t h = heads.begin; h < heads.end; h++) {
    const float* qkv = frame.floats(a.qkv) + h * s.width;
    float* dst = frame.floats(a.dst) + h * s.width;
    pack_rhs(*kernels.keys, s, qkv + s.dim, s.keys);
    pack_rhs(*kernels.values, s, qkv + 2 * s.dim, s.values);
    for (size_t i = 0; i < a.queries; i += s.block) {
      const Range block{i, std::min<size_t>(i + s.block, a.queries)};
      pack(kernels, s.queries, block, qkv, 3 * s.dim, nullptr, bve_as_is);
      multiply(s.queries, block.size(), s.keys, s.tokens, s.products, s.padded);
      bve_softmax args{};
      args.m = block.size();
      args.n = s.tokens;
      args.scores = s.products;
      args.scores_stride_bytes = s.padded * sizeof(float);
      args.dst = s.scores.data;
      args.lhs = s.scores.gemm.lhs;
      args.rows = s.scores.rows;
      kernels.softmaxes[args.lhs.type]->run(&args);
      multiply(s.scores, block.size(), s.values, s.width, dst + i * s.dim, s.dim);
    }
  }
}

void route(const Frame& frame, const RouteArgs& a, const Kernels& kernels, Bump& bump) {
  bve_route args{};
  args.n = frame.shapes[a.src].rows;
  args.c = frame.columns(a.src);
  args.k = a.k;
  args.src = frame.floats(a.src);
  args.src_stride_bytes = args.c * sizeof(float);
  args.gain = frame.weights.floats(a.gain);
  args.offset = frame.weights.floats(a.offset);
  args.weight = frame.weights.floats(a.weight);
  args.bias = *frame.weights.floats(a.bias);
  args.epsilon = kLayerNormEpsilon;
  args.scratch = bump.take<float>(round_up(args.n, 16));
  args.selected = frame.list(a.selected);
  args.skipped = frame.list(a.skipped);
  args.gate = frame.floats(a.gate);
  kernels.route->run(&args);
}

}  // namespace

void execute(const Frame& frame, const Op& op, const Kernels& kernels, Team team,
             std::byte* scratch) {
  Bump bump(scratch);
  switch (op.kind) {
    case OpKind::kPatches:
      return cut_patches(frame, get<PatchesArgs>(op), team);
    case OpKind::kList:
      if (team.index == 0)
        *frame.list(get<ListArgs>(op).dst) = static_cast<int32_t>(get<ListArgs>(op).value);
      return;
    case OpKind::kFill:
      return fill(frame, get<FillArgs>(op), team);
    case OpKind::kLinear:
      return apply_linear(frame, get<LinearArgs>(op), kernels, team, bump);
    case OpKind::kAttention:
      return attend(frame, get<AttentionArgs>(op), kernels, team, bump);
    case OpKind::kRoute:
      if (team.index == 0) route(frame, get<RouteArgs>(op), kernels, bump);
      return;
    case OpKind::kMlp:
      return apply_mlp(frame, get<MlpArgs>(op), kernels, team, bump);
  }
}

size_t measure_scratch(const Frame& frame, const Op& op, const Kernels& kernels, size_t threads) {
  Bump bump(nullptr);
  if (op.kind == OpKind::kLinear) LinearScratch(frame, get<LinearArgs>(op), kernels, bump);
  if (op.kind == OpKind::kAttention) AttentionScratch(frame, get<AttentionArgs>(op), kernels, bump);
  if (op.kind == OpKind::kMlp) MlpScratch(frame, get<MlpArgs>(op), kernels, threads, bump);
  if (op.kind == OpKind::kRoute)
    bump.take<float>(round_up(frame.shapes[get<RouteArgs>(op).src].rows, 16));
  return bump.used();
}

const char* name_kind(OpKind kind) {
  static constexpr const char* kNames[] = {"patches",   "list",  "fill", "linear",
                                           "attention", "route", "mlp"};
  return kNames[static_cast<uint32_t>(kind)];
}

}  // namespace bve
