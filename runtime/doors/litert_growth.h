// What makes one library fit any runtime from TensorFlow Lite 2.x to LiteRT 2.x: structs of the C
// interface have grown at their end since the header was written.
#pragma once

#include <cstdint>

#include "tensorflow/lite/c/common.h"

namespace bve {

// Of another header these tails would stand in the wrong place, and no call would tell.
static_assert(sizeof(void*) == 8 && sizeof(TfLiteRegistration) == 64 &&
                  sizeof(TfLiteDelegate) == 48,
              "expected the C interface of TensorFlow Lite 2.x before it grew, on 64 bits");

// TfLiteDelegate as newer runtimes have it: a pointer longer, opaque_delegate_builder, which they
// read behind the delegate they were handed. Null: made by what is in the header.
struct GrownDelegate {
  TfLiteDelegate delegate;
  void* tail;
};

// TfLiteRegistration as newer runtimes have it: two pointers and a uint64_t longer than in the
// header. It is passed by value, and such a runtime reads the tail wherever the caller's ends; an
// older one does not look there. Zero: no other registration, no asynchronous kernel, no op that
// may work in place.
struct GrownRegistration {
  TfLiteRegistration registration;
  void* tail[2];
  uint64_t flags;
};

inline TfLiteStatus replace_node(TfLiteContext* context, const TfLiteRegistration& registration,
                                 int index, TfLiteDelegate* delegate) {
  using Replace =
      TfLiteStatus (*)(TfLiteContext*, GrownRegistration, const TfLiteIntArray*, TfLiteDelegate*);
  const auto replace = reinterpret_cast<Replace>(
      reinterpret_cast<void (*)()>(context->ReplaceNodeSubsetsWithDelegateKernels));
  const int one[2] = {1, index};  // a TfLiteIntArray, whose maker runtimes do not export
  return replace(context, {registration, {nullptr, nullptr}, 0},
                 reinterpret_cast<const TfLiteIntArray*>(one), delegate);
}

}  // namespace bve
