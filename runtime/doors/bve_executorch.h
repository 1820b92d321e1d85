// Our core as an ExecuTorch backend, "libbve_executorch". It registers itself when the library is
// loaded; nothing here needs to be called but for files with the op bve::dispatch, which have no
// such backend.
//
// Link it into the program or library that has ExecuTorch in it: the symbols of ExecuTorch must be
// seen by the library, so to load it by itself (dlopen, System.loadLibrary) is not enough where
// they are those of another library. It stays loaded until the process ends.
//
// A delegate is [image] -> [logits], of the whole method or of the part that is ours; image is
// float [1, 3, size, size], or pixels, uint8 [1, size, size, 3] or [1, 3, size, size], which the
// core normalises as the program says. Its payload
// is the key of named data that are a .bve's bytes, which all methods of a program share, in the
// file and in memory; its compile spec "keep" (float32) is the entry's ratio, 0 the first entry.
// (Methods that the app loads with a NamedDataMap of its own share no memory: ExecuTorch makes a
// map of each.)
//
// Options: "threads" (int, 1 or more), of a program by its runtime specs or of all that are loaded
// from then on by set_option. Without: as many as ExecuTorch's own pool has, where the app has one
// that can be seen, and the process may use; else 1. "version" can be read: as below.
#ifndef BVE_EXECUTORCH_H_
#define BVE_EXECUTORCH_H_

#include "bve.h"

#define BVE_EXECUTORCH_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

// This library's version and that of the ExecuTorch whose headers it was built with, such as
// "0.1.0 for ExecuTorch 1.4.1".
BVE_EXECUTORCH_API const char* bve_executorch_version(void);

// Why this copy is not registered, if so; else what failed last on this thread, and from then on
// null until something fails again. ExecuTorch logs the same text. Lives until the thread fails
// again or ends.
BVE_EXECUTORCH_API const char* bve_executorch_error(void);

// Has the next delegate of ours that this thread executes take a frame in place of its image
// tensor, whatever that holds (but ExecuTorch wants each input set): turned, cropped, resized and
// normalised as the program says (bve_set_frame in bve.h). Used once. The struct is copied, the
// pixels are not: they stay as they are until that execution has returned. What is set before it is
// used replaces what was; null takes it back. A frame that cannot be read is told when it is used,
// as all that fails then. An execution that fails may have failed before our delegate, and then the
// frame waits for the next one on this thread: take it back with null after each that failed,
// before its memory goes.
BVE_EXECUTORCH_API void bve_executorch_set_frame(const bve_frame* frame);

// Registers the kernel of bve::dispatch, for files of --set dispatch=kernel: call it once before
// they are loaded, and while no other thread registers or loads. 0 if it is there afterwards, else
// ExecuTorch's error code. ExecuTorch ends the process where its table of kernels is full: an app
// whose build selects its ops (EXECUTORCH_SELECT_OPS_*) has to make it one larger, by
// MAX_KERNEL_NUM.
BVE_EXECUTORCH_API int bve_executorch_add_dispatch(void);

#ifdef __cplusplus
}
#endif
#endif  // BVE_EXECUTORCH_H_
