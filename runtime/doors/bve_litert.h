// bigvit-edge as an external delegate of LiteRT (TensorFlow Lite): libbve_litert.so.
//
// A .tflite of bigvit-edge (--set backend=native) has one custom op, "libbve_litert", in each of
// its subgraphs: inputs [image, keep], output logits, custom options the bytes of a .bve program.
// image is float32 [1, 3, size, size], or pixels, uint8 [1, size, size, 3] or [1, 3, size, size],
// which the core normalises as the program says; keep a constant float32 (0: the program's first
// entry), logits float32 [1, classes]. The delegate takes each such op; whatever else the file has
// stays with the runtime. Ops and interpreters that look at the same bytes share one program; each
// subgraph gets a session of its own, started when its tensors are first allocated.
//
// What fails is told by the interpreter's error reporter (in Python a RuntimeError): a program that
// cannot be opened when the delegate is applied, threads that cannot be had when tensors are
// allocated. An interpreter that refused a delegate can only be deleted.
#ifndef BVE_LITERT_H_
#define BVE_LITERT_H_

#include <stddef.h>

#include "bve.h"

#ifdef __cplusplus
extern "C" {
#endif

struct TfLiteDelegate;

// Options, each a key and a value in decimal digits:
//   threads         1 or more, at most bve_count_cores(); without it what the interpreter was given
//                   (SetNumThreads) when tensors are first allocated, or as many cores as there
//                   are if that is fewer; and if it was given nothing, 1
//   little_threads  of these, how many run the LITTLE lane on the LITTLE cluster; 0 if left out
//   pin             1: threads stay on their cores; 0 if left out
//   spin_us, choose as bve_options in bve.h has them; 0 if left out
// Null if an option is not one of these or not such a number: report_error, which may be null, has
// been given a text. The names are those that LiteRT's loader of external delegates looks for.
__attribute__((visibility("default"))) struct TfLiteDelegate* tflite_plugin_create_delegate(
    const char* const* options_keys, const char* const* options_values, size_t num_options,
    void (*report_error)(const char*));

// Has the next op of ours that an interpreter of this delegate runs take a frame in place of its
// image tensor, whatever that holds: turned, cropped, resized and normalised as the program says
// (bve_set_frame in bve.h). Used once. The struct is copied, the pixels are not: they stay as they
// are until that Invoke has returned. What is set before it is used replaces what was; null takes
// it back. A frame that cannot be read is told when it is used, as all that fails then. An Invoke
// that fails may have failed before our op, and then the frame waits for the next one: take it back
// with null after each that failed, before its memory goes.
// From any thread; but where several interpreters share a delegate, whichever runs first takes it:
// give each a delegate of its own.
__attribute__((visibility("default"))) void bve_litert_set_frame(struct TfLiteDelegate* delegate,
                                                                 const bve_frame* frame);

// After the last interpreter that uses it is deleted.
__attribute__((visibility("default"))) void tflite_plugin_destroy_delegate(
    struct TfLiteDelegate* delegate);

#ifdef __cplusplus
}
#endif
#endif  // BVE_LITERT_H_
