// A big.LITTLE ViT of one layer, in both lanes: every kind of op and every kind of argument, small
// enough to read. 4 px, patches of 2, 5 tokens, widths 16 (two heads) and 8 (one), 3 classes; or a
// larger image, of as many more tokens.
#pragma once

#include <cmath>

#include "program_builder.h"

namespace bve::test {

struct TinyWeights {
  uint32_t gain16, offset16, gain8, offset8, score, score_bias, positions;
  uint32_t embed, shrink, qkv, keys_values, little_qkv, project, little_project, up, down;
  uint32_t fc1, fc2, little_fc1, little_fc2, head;
};

// The packing of each Linear is the next of `packings`, in turn.
inline TinyWeights add_tiny_weights(ProgramBuilder& builder,
                                    const std::vector<bve_packing>& packings, uint32_t size = 4) {
  const uint32_t tokens = size * size / 4 + 1;
  Noise noise(1);
  size_t linears = 0;
  const auto vector = [&](const char* name, size_t count) {
    return builder.add_vector(name, noise.take(count));
  };
  const auto linear = [&](const char* name, size_t n, size_t k) {
    return builder.add_linear(name, packings[linears++ % packings.size()], n, k, noise.take(n * k),
                              noise.take(n));
  };
  TinyWeights weights{};
  weights.gain16 = vector("gain16", 16);
  weights.offset16 = vector("offset16", 16);
  weights.gain8 = vector("gain8", 8);
  weights.offset8 = vector("offset8", 8);
  weights.score = vector("score", 8);
  weights.score_bias = vector("score_bias", 1);
  weights.positions = builder.add_matrix("positions", tokens, 16, noise.take(tokens * 16));
  weights.embed = linear("embed", 16, 12);
  weights.shrink = linear("shrink", 8, 16);
  weights.qkv = linear("qkv", 48, 16);
  weights.keys_values = linear("keys_values", 32, 8);
  weights.little_qkv = linear("little_qkv", 24, 8);
  weights.project = linear("project", 16, 16);
  weights.little_project = linear("little_project", 8, 8);
  weights.up = linear("up", 16, 8);
  weights.down = linear("down", 8, 16);
  weights.fc1 = linear("fc1", 20, 16);
  weights.fc2 = linear("fc2", 16, 20);
  weights.little_fc1 = linear("little_fc1", 10, 8);
  weights.little_fc2 = linear("little_fc2", 8, 10);
  weights.head = linear("head", 3, 16);
  return weights;
}

inline void add_tiny_entry(ProgramBuilder& builder, const TinyWeights& w, const std::string& name,
                           float keep, uint32_t size = 4) {
  const uint32_t n = size * size / 4 + 1, k = static_cast<uint32_t>(std::ceil(keep * n));
  builder.start_entry(name, keep, size, 3);
  const uint32_t image = 0, logits = 1;
  const uint32_t patches = builder.add_buffer(n - 1, 12), x = builder.add_buffer(n, 16);
  const uint32_t z = builder.add_buffer(n, 8), first = builder.add_list(1);
  const uint32_t selected = builder.add_list(k), skipped = k < n ? builder.add_list(n - k) : kNone;
  const uint32_t gate = builder.add_buffer(1, k), qkv = builder.add_buffer(n, 48);
  const uint32_t mixed = builder.add_buffer(k, 16), little_qkv = builder.add_buffer(n, 24);
  const uint32_t little_mixed = builder.add_buffer(n, 8);

  // The defaults of a Linear: all rows, as they are, all columns, from the first on.
  const auto linear = [](uint32_t src, uint32_t rows, uint32_t weight, uint32_t columns,
                         uint32_t dst) {
    return LinearArgs{src,     kNone, rows, bve_as_is, kNone, kNone, weight, 0,
                      columns, dst,   0,    0,         kNone, kNone, 0};
  };
  builder.add_op("patches", 0, 0, PatchesArgs{image, patches, 2});
  builder.add_op("positions", 0, 0, FillArgs{w.positions, x});
  LinearArgs args = linear(patches, n - 1, w.embed, 16, x);
  args.dst_first_row = 1;
  args.accumulate = 1;
  builder.add_op("embed", 1, 0, args);
  args = linear(x, n, w.shrink, 8, z);
  args.before = bve_gelu;
  builder.add_op("shrink", 2, 0, args);
  builder.add_op(
      "route", 3, 0,
      RouteArgs{z, w.gain8, w.offset8, w.score, w.score_bias, k, selected, skipped, gate});

  args = linear(x, k, w.qkv, 16, qkv);
  args.src_rows = selected;
  args.before = bve_layernorm;
  args.gain = w.gain16;
  args.offset = w.offset16;
  builder.add_op("q", 4, 0, args);
  args.first_column = 16;
  args.columns = 32;
  args.dst_first_column = 16;
  builder.add_op("kv", 4, 0, args);
  args = linear(z, n, w.little_qkv, 24, little_qkv);
  args.before = bve_layernorm;
  args.gain = w.gain8;
  args.offset = w.offset8;
  builder.add_op("little.qkv", 4, 1, args);
  if (skipped != kNone) {
    args = linear(z, n - k, w.keys_values, 32, qkv);
    args.src_rows = skipped;
    args.dst_first_row = k;
    args.dst_first_column = 16;
    builder.add_op("keys_values", 5, 0, args);
  }
  builder.add_op("little.attention", 5, 1, AttentionArgs{little_qkv, n, 1, little_mixed, bve_f32});
  builder.add_op("attention", 6, 0, AttentionArgs{qkv, k, 2, mixed, bve_qd8});
  args = linear(little_mixed, n, w.little_project, 8, z);
  args.accumulate = 1;
  builder.add_op("little.project", 6, 1, args);

  args = linear(mixed, k, w.project, 16, x);
  args.dst_rows = selected;
  args.gate = gate;
  args.accumulate = 1;
  builder.add_op("project", 7, 0, args);
  args = linear(z, k, w.up, 16, x);
  args.src_rows = args.dst_rows = selected;
  args.accumulate = 1;
  builder.add_op("up", 8, 0, args);
  args = linear(x, k, w.down, 8, z);
  args.src_rows = args.dst_rows = selected;
  args.accumulate = 1;
  builder.add_op("down", 9, 0, args);
  builder.add_op("mlp", 10, 0, MlpArgs{x, selected, k, w.gain16, w.offset16, w.fc1, w.fc2, gate});
  builder.add_op("little.mlp", 10, 1,
                 MlpArgs{z, kNone, n, w.gain8, w.offset8, w.little_fc1, w.little_fc2, kNone});

  builder.add_op("first", 11, 0, ListArgs{first, 0});
  args = linear(x, 1, w.head, 3, logits);
  args.src_rows = first;
  args.before = bve_layernorm;
  args.gain = w.gain16;
  args.offset = w.offset16;
  builder.add_op("head", 12, 0, args);
}

// Keep ratios 1 and 0.5.
inline Bytes make_tiny_program(const std::vector<bve_packing>& packings, uint32_t size = 4) {
  ProgramBuilder builder;
  builder.metadata = R"({"model": "tiny", "note": "\"quoted\" \u00e9 Ä"})";
  builder.precision = packings == std::vector<bve_packing>{bve_f32p} ? 0 : 2;
  const TinyWeights weights = add_tiny_weights(builder, packings, size);
  add_tiny_entry(builder, weights, "keep_1", 1.0f, size);
  add_tiny_entry(builder, weights, "keep_0_5", 0.5f, size);
  return builder.build();
}

}  // namespace bve::test
