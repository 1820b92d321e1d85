#include "execution.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "attention.h"

namespace bve {
namespace {

// Chosen on a Zen 4 with 1 MB of second-level cache, where blvit_s took within 3 % of the same time
// with 24 to 108 rows of an MLP at once; on CPUs with smaller caches nothing was tried.
constexpr size_t kRowsAtOnce = 48;         // of an MLP, with their hidden rows
constexpr size_t kLeftBytes = 256 * 1024;  // of a Linear's packed left side
constexpr size_t kLeastRows = 12;          // of a tile, and queries of a head with their scores
constexpr size_t kLeastMacs = 1 << 19;     // of a tile of columns

const bve_gemm_row& gemm_for(const Frame& frame, const Kernels& kernels, uint32_t weight) {
  return *kernels.gemms[packing_of(frame.program.weights()[weight], kernels.int8)];
}

// ---- tiles -------------------------------------------------------------------------------------

Cut cut_rows(const Frame& frame, size_t rows, size_t macs_a_row) {
  return {divide_up(rows, frame.tile_rows), frame.tile_rows, macs_a_row * frame.tile_rows};
}

size_t depth_of(const Frame& frame, const LinearArgs& a) {
  return frame.program.weights()[a.linear].columns;
}

// Of few rows, tiles are of columns of all of them, and who takes some packs the rows for itself.
bool is_cut_by_columns(const Frame& frame, const LinearArgs& a) {
  return a.rows <= frame.tile_rows;
}

size_t choose_tile_columns(const Frame& frame, const LinearArgs& a) {
  return round_up(divide_up(kLeastMacs, a.rows * depth_of(frame, a)), BVE_PANEL);
}

// ---- copies ------------------------------------------------------------------------------------

void cut_patches(const Frame& frame, const PatchesArgs& a, Range patches) {
  const size_t size = frame.columns(a.image), side = size / a.patch;
  const size_t channels = frame.shapes[a.image].rows / size;
  const float* image = frame.floats(a.image);
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

void fill(const Frame& frame, const FillArgs& a, Range rows) {
  const size_t columns = frame.columns(a.dst);
  std::memcpy(frame.floats(a.dst) + rows.begin * columns,
              frame.weights.floats(a.matrix) + rows.begin * columns,
              rows.size() * columns * sizeof(float));
}

// ---- Linear ------------------------------------------------------------------------------------

struct LinearScratch {
  size_t most;  // rows at once
  Left left;

  LinearScratch(const Frame& frame, const LinearArgs& a, const Kernels& kernels, Bump& bump)
      : LinearScratch(a.rows, depth_of(frame, a), gemm_for(frame, kernels, a.linear), bump) {}

 private:
  LinearScratch(size_t rows, size_t k, const bve_gemm_row& gemm, Bump& bump)
      : most(choose_most(rows, kLeftBytes * gemm.lhs.mr / bve_lhs_stride_bytes(gemm.lhs, k),
                         gemm.tile_rows)),
        left(gemm, most, k, bump) {}
};

void apply_linear(const Frame& frame, const LinearArgs& a, const Kernels& kernels, Range tiles,
                  Bump& bump) {
  const LinearScratch scratch(frame, a, kernels, bump);
  const Left& left = scratch.left;
  const bool by_columns = is_cut_by_columns(frame, a);
  const Range rows = by_columns ? Range{0, a.rows} : rows_of(tiles, frame.tile_rows, a.rows);
  const Range columns =
      by_columns ? rows_of(tiles, choose_tile_columns(frame, a), a.columns) : Range{0, a.columns};

  const auto* rhs = static_cast<const std::byte*>(frame.weights.data(a.linear, kernels.int8)) +
                    (a.first_column + columns.begin) / BVE_PANEL *
                        bve_rhs_stride_bytes(left.gemm.packing, left.k);
  const int32_t *src_rows = frame.list(a.src_rows), *dst_rows = frame.list(a.dst_rows);
  const size_t dst_columns = frame.columns(a.dst);
  float* dst =
      frame.floats(a.dst) + a.dst_first_row * dst_columns + a.dst_first_column + columns.begin;
  const bool norm = a.before == bve_layernorm;
  const Norm with{norm ? frame.weights.floats(a.gain) : nullptr,
                  norm ? frame.weights.floats(a.offset) : nullptr};
  each_block(rows, scratch.most, left.gemm.tile_rows, [&](Range block) {
    pack(kernels, left, block, frame.floats(a.src), frame.columns(a.src), src_rows,
         static_cast<bve_before>(a.before), with);
    multiply(left, block.size(), rhs, columns.size(),
             dst_rows ? dst : dst + block.begin * dst_columns, dst_columns,
             dst_rows ? dst_rows + block.begin : nullptr,
             a.gate == kNone ? nullptr : frame.floats(a.gate) + block.begin, a.accumulate);
  });
}

// ---- MLP: the hidden rows are never stored whole -----------------------------------------------

struct MlpScratch {
  size_t most, hidden_columns;  // most: rows at once
  Left in, hidden;
  float* values;  // [most, hidden_columns]: what fc1 gives

  MlpScratch(const Frame& frame, const MlpArgs& a, const Kernels& kernels, Bump& bump)
      : MlpScratch(choose_most(a.rows, kRowsAtOnce, frame.tile_rows),
                   frame.program.weights()[a.fc1], gemm_for(frame, kernels, a.fc1),
                   gemm_for(frame, kernels, a.fc2), bump) {}

 private:
  MlpScratch(size_t most, const Weight& fc1, const bve_gemm_row& first, const bve_gemm_row& second,
             Bump& bump)
      : most(most),
        hidden_columns(fc1.rows),
        in(first, most, fc1.columns, bump),
        hidden(second, most, fc1.rows, bump),
        values(bump.take<float>(most * hidden_columns)) {}
};

void apply_mlp(const Frame& frame, const MlpArgs& a, const Kernels& kernels, Range rows,
               Bump& bump) {
  const MlpScratch scratch(frame, a, kernels, bump);
  const void* fc1 = frame.weights.data(a.fc1, kernels.int8);
  const void* fc2 = frame.weights.data(a.fc2, kernels.int8);
  const Norm norm{frame.weights.floats(a.gain), frame.weights.floats(a.offset)};
  const int32_t* list = frame.list(a.list);
  const size_t columns = frame.columns(a.data);
  float* data = frame.floats(a.data);
  each_block(rows, scratch.most, frame.tile_rows, [&](Range block) {
    const size_t i = block.begin;
    pack(kernels, scratch.in, block, data, columns, list, bve_layernorm, norm);
    multiply(scratch.in, block.size(), fc1, scratch.hidden_columns, scratch.values,
             scratch.hidden_columns);
    pack(kernels, scratch.hidden, {0, block.size()}, scratch.values, scratch.hidden_columns,
         nullptr, bve_gelu);
    multiply(scratch.hidden, block.size(), fc2, columns, list ? data : data + i * columns, columns,
             list ? list + i : nullptr, a.gate == kNone ? nullptr : frame.floats(a.gate) + i, true);
  });
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

size_t choose_tile_rows(const Kernels* kernels, size_t count) {
  size_t rows = 1;
  for (size_t i = 0; i < count; i++) {
    for (const bve_packing packing : {bve_f32p, bve_f16p, kernels[i].int8})
      rows = std::lcm(rows, kernels[i].gemms[packing]->tile_rows);
  }
  return round_up(kLeastRows, rows);
}

Cut cut(const Frame& frame, const Op& op, Phase phase) {
  switch (op.kind) {
    case OpKind::kPatches: {
      const auto a = get<PatchesArgs>(op);
      return cut_rows(frame, frame.shapes[a.dst].rows, frame.columns(a.dst) * kWorkOfFloat);
    }
    case OpKind::kFill: {
      const auto a = get<FillArgs>(op);
      return cut_rows(frame, frame.shapes[a.dst].rows, frame.columns(a.dst) * kWorkOfFloat);
    }
    case OpKind::kLinear: {
      const auto a = get<LinearArgs>(op);
      if (!is_cut_by_columns(frame, a))
        return cut_rows(frame, a.rows, size_t{a.columns} * depth_of(frame, a));
      const size_t columns = choose_tile_columns(frame, a);
      return {divide_up(a.columns, columns), 0,
              a.rows * std::min<size_t>(a.columns, columns) * depth_of(frame, a)};
    }
    case OpKind::kAttention:
      return cut_attention(frame, get<AttentionArgs>(op), phase);
    case OpKind::kMlp: {
      const auto a = get<MlpArgs>(op);
      const Weight& fc1 = frame.program.weights()[a.fc1];
      return cut_rows(frame, a.rows, size_t{2} * fc1.rows * fc1.columns);
    }
    case OpKind::kRoute: {
      const auto a = get<RouteArgs>(op);
      return {1, 0, size_t{frame.shapes[a.src].rows} * frame.columns(a.src) * kWorkOfFloat};
    }
    case OpKind::kList:
      break;
  }
  return {1, 0, 1};
}

void execute(const Frame& frame, const Op& op, Phase phase, Range tiles, const Kernels& kernels,
             std::byte* scratch, std::byte* packed) {
  Bump bump(scratch);
  const auto rows = [&](size_t count) { return rows_of(tiles, frame.tile_rows, count); };
  switch (op.kind) {
    case OpKind::kPatches: {
      const auto a = get<PatchesArgs>(op);
      return cut_patches(frame, a, rows(frame.shapes[a.dst].rows));
    }
    case OpKind::kList:
      *frame.list(get<ListArgs>(op).dst) = static_cast<int32_t>(get<ListArgs>(op).value);
      return;
    case OpKind::kFill: {
      const auto a = get<FillArgs>(op);
      return fill(frame, a, rows(frame.shapes[a.dst].rows));
    }
    case OpKind::kLinear:
      return apply_linear(frame, get<LinearArgs>(op), kernels, tiles, bump);
    case OpKind::kAttention:
      return apply_attention(frame, get<AttentionArgs>(op), phase, kernels, tiles, bump, packed);
    case OpKind::kRoute:
      return route(frame, get<RouteArgs>(op), kernels, bump);
    case OpKind::kMlp: {
      const auto a = get<MlpArgs>(op);
      return apply_mlp(frame, a, kernels, rows(a.rows), bump);
    }
  }
}

size_t measure_scratch(const Frame& frame, const Op& op, const Kernels& kernels) {
  Bump bump(nullptr);
  if (op.kind == OpKind::kLinear) LinearScratch(frame, get<LinearArgs>(op), kernels, bump);
  if (op.kind == OpKind::kAttention)
    reserve_attention(frame, get<AttentionArgs>(op), kernels, bump);
  if (op.kind == OpKind::kMlp) MlpScratch(frame, get<MlpArgs>(op), kernels, bump);
  if (op.kind == OpKind::kRoute)
    bump.take<float>(round_up(frame.shapes[get<RouteArgs>(op).src].rows, 16));
  return bump.used();
}

size_t measure_packed(const Frame& frame, const Op& op, const Kernels& kernels) {
  if (op.kind != OpKind::kAttention) return 0;
  return measure_packed(frame, get<AttentionArgs>(op), kernels);
}

const char* name_kind(OpKind kind) {
  static constexpr const char* kNames[] = {"patches",   "list",  "fill", "linear",
                                           "attention", "route", "mlp"};
  return kNames[static_cast<uint32_t>(kind)];
}

}  // namespace bve
