// Attention, in tiles: the scores of some queries at a time, never all of them.
#pragma once

#include "products.h"

namespace bve {

Cut cut_attention(const Frame& frame, const AttentionArgs& a, Phase phase);

// Tiles of a phase: heads, or in kAttend tiles of each head's queries. packed: measure_packed's
// bytes, all heads' keys and values; not used in kWhole.
void apply_attention(const Frame& frame, const AttentionArgs& a, Phase phase,
                     const Kernels& kernels, Range tiles, Bump& bump, std::byte* packed);

// Takes from bump what apply_attention takes.
void reserve_attention(const Frame& frame, const AttentionArgs& a, const Kernels& kernels,
                       Bump& bump);

size_t measure_packed(const Frame& frame, const AttentionArgs& a, const Kernels& kernels);

}  // namespace bve
