// What an op does: one file for each row of ops.inc, ops/NAME.cc, defines these functions, and
// nothing else in the runtime knows of a kind what its row does not say. An op whose file lacks one
// does not link.
#pragma once

#include "accesses.h"
#include "cost.h"
#include "op_validation.h"
#include "products.h"

namespace bve {

// Bytes that an op needs, in any phase. packed: what kPack leaves to kAttend, which depends on the
// first buffer that it names alone; 0: it has but one phase, kWhole.
struct Space {
  size_t scratch, packed;  // of one thread; of all together
};

// Some tiles to be done, and in what memory: as `measure` asks for it.
struct Work {
  Phase phase;
  Range tiles;
  const Kernels& kernels;
  std::byte *scratch, *packed;
};

// check: whether its arguments fit each other, which are in range and of their type by then.
// cut: how a phase is cut in tiles. touch: what a phase touches in part; the rest it touches
// wholly. execute: the tiles. measure: what that needs. measure_cost: what it has to do at least.
#define BVE_OP(number, name, ...)                                                    \
  struct name##Op {                                                                  \
    using Args = name##Args;                                                         \
    static void check(OpValidator& validator, const Args& args);                     \
    static Cut cut(const Frame& frame, const Args& args, Phase phase);               \
    static void touch(const Frame& frame, const Args& args, Phase phase, Accesses&); \
    static Space measure(const Frame& frame, const Args& args, const Kernels&);      \
    static void execute(const Frame& frame, const Args& args, const Work& work);     \
    static Cost measure_cost(const Frame& frame, const Args& args);                  \
  };
#include "ops.inc"

// The same of any kind: the op's are its arguments.
struct OpFunctions {
  void (*check)(OpValidator&, const Op&);
  Cut (*cut)(const Frame&, const Op&, Phase);
  void (*touch)(const Frame&, const Op&, Phase, Accesses&);
  Space (*measure)(const Frame&, const Op&, const Kernels&);
  void (*execute)(const Frame&, const Op&, const Work&);
  Cost (*measure_cost)(const Frame&, const Op&);
};

const OpFunctions& functions_of(OpKind kind);

}  // namespace bve
