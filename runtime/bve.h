// bigvit-edge's core as a C library: open a .bve program, run images through it.
//
// No C++ exception leaves it. What fails returns null or a status other than 0 and writes a text
// into `error`: what was met, what was expected, what to do. A program may be shared by sessions of
// several threads; a session belongs to one thread at a time.
//
// A pointer may be null only where that is said, and any `error` may be: then there is no text.
//
// After a fork, a program and sessions of one thread work in both processes (the program starts no
// sessions in the child if another thread was in its bve_start). A session of several
// threads works only where it was started, for its threads are there: bve_run fails elsewhere, and
// bve_stop then frees all but the threads' few hundred bytes.
#ifndef BVE_H_
#define BVE_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BVE_API __attribute__((visibility("default")))
#define BVE_ABI_VERSION 2  // bve_start takes 1 too, whose options end with pin
#define BVE_ERROR_BYTES 512
#define BVE_LEAST_DIM 32            // of bve_dispatch, which works in x_out before it fills it
#define BVE_ISA_SCALAR 0x80000000u  // a bit that no CPU has

typedef struct bve_program bve_program;
typedef struct bve_session bve_session;

typedef struct bve_error {
  char text[BVE_ERROR_BYTES];  // UTF-8, ends with a 0
} bve_error;

typedef struct bve_options {
  uint32_t abi_version;     // BVE_ABI_VERSION
  uint32_t threads;         // 1 or more, at most bve_count_cores(); fewer work on an image while
                            // other sessions' threads have the cores
  uint32_t little_threads;  // of these, how many run the LITTLE lane on the LITTLE cluster; 0: all
                            // threads take work of either lane
  uint32_t isa;             // bve_isa bits it may use, of those the CPU has; 0: all;
                            // BVE_ISA_SCALAR: none
  uint32_t pin;             // 1: pin threads to cores, big ones first; 0: only where
                            // little_threads asks for it. bve_run pins its caller while it runs
  uint32_t spin_us;         // how long a thread watches for the next image before it sleeps: less
                            // saves energy, more saves the time to wake it. 0: what BVE_SPIN_US of
                            // the environment says, else 100
  uint32_t choose;          // 1: bve_start runs 7 images in each of up to four ways, keeps the
                            // fastest and frees the others: on one thread, on the big cores, on
                            // both clusters by lanes, and on `threads` that take work of either
                            // lane. bve_inspect says why. little_threads must be 0
} bve_options;

// What a thread did of an op at once, on CLOCK_MONOTONIC; Apple: CLOCK_UPTIME_RAW.
typedef struct bve_event {
  uint64_t start_ns, end_ns;
  uint32_t op;      // as bve_op_name counts them
  uint32_t thread;  // 0: bve_run's caller
  uint32_t tiles;   // pieces that the op is cut in
  int32_t core;     // where it ended; -1: the system does not say
} bve_event;

// The tokens of one image before a big.LITTLE layer, and its router. The outputs may overlap
// nothing else.
typedef struct bve_tokens {
  size_t count, selected;               // n and k, both 1 or more
  size_t dim, little_dim;               // C, at least BVE_LEAST_DIM, and c, at least 1
  const float *x, *z;                   // [n, C], [n, c]
  const float *gain, *offset, *weight;  // of the router's layer norm and Linear, [c]
  float bias, epsilon;
  float *x_out, *z_out;  // [n, C], [n, c]
  float* gate;           // [k]
  int32_t* order;        // [n]
} bve_tokens;

// Pixels of 8 bits a channel, sRGB, upright; rows one below the other.
// Bytes in this order, alpha not multiplied in. The last three are of frames only.
enum { BVE_RGB = 1, BVE_RGBA = 2, BVE_BGRA = 3, BVE_NV12 = 4, BVE_NV21 = 5, BVE_YUV420 = 6 };
typedef struct bve_picture {
  const void* pixels;      // the first row's
  size_t stride_bytes;     // from a row to the next
  uint32_t width, height;  // 1 to 2^24, together at most 100 megapixels
  uint32_t format;         // BVE_RGB, BVE_RGBA or BVE_BGRA
  uint32_t reserved;       // 0
} bve_picture;

// A camera's frame, of 8 bits a channel. RGB, RGBA, BGRA: one plane; alpha is not looked at. NV12:
// Y, and U V in turns; NV21: Y, and V U in turns; YUV420: Y, U and V. Of the chroma's planes, one
// pixel stands for 2 x 2, for fewer on the far edges of odd sizes.
enum { BVE_BT601_FULL = 0, BVE_BT601 = 1, BVE_BT709_FULL = 2, BVE_BT709 = 3 };
typedef struct bve_frame {
  const void* planes[3];   // each one's first row; those that the format lacks are not looked at
  size_t stride_bytes[3];  // of each, from a row to the next
  uint32_t width, height;  // as it lies in memory; 1 to 2^24, together at most 100 megapixels
  uint32_t format;         // BVE_RGB to BVE_YUV420
  uint32_t rotation;       // degrees clockwise that turn it upright: 0, 90, 180, 270
  uint32_t matrix;         // of YUV: BVE_BT601_FULL as Android's cameras and JPEG have it, luma and
                           // chroma from 0 to 255; BVE_BT601: from 16 to 235 and 240
  uint32_t pixel_stride;   // of YUV420: bytes from a U (V) to the next, 1 or 2; of others 0
  uint32_t reserved[2];    // 0
} bve_frame;

// ABI version of the library: one that is no lower than BVE_ABI_VERSION of who calls it will do.
BVE_API uint32_t bve_version(void);

// Map a file, or take bytes that stay valid and unchanged until the program is closed (64-byte
// aligned, or they are copied). Everything but the weights' own bytes is validated before this
// returns: header and tables by their checksum and field by field, so that no file can make a
// session do anything but compute. The weights are not read: bve_verify does that.
BVE_API bve_program* bve_open(const char* path, bve_error* error);
BVE_API bve_program* bve_open_bytes(const void* data, size_t bytes, bve_error* error);
// Frees a program whose sessions are all destroyed.
BVE_API void bve_close(bve_program* program);

// Reads all weights and compares them with their checksums: 0 if they are as exported. `error` else
// names the first damaged one and where it lies in the file.
BVE_API int bve_verify(const bve_program* program, bve_error* error);

// JSON about the program: entries, shapes, metadata, precision, packing. Lives as long as it does.
BVE_API const char* bve_describe(const bve_program* program);

// How many entries the program has, and the keep ratios of the first `count` of them (null: none
// wanted); 0 of a model without one.
BVE_API size_t bve_keeps(const bve_program* program, float* keeps, size_t count);

// The name of a class, UTF-8; null beyond the last, and where the file names none. Lives as long as
// the program.
BVE_API const char* bve_label(const bve_program* program, size_t index);

// A picture as the model takes it, float [3, size, size] for bve_run: cropped, resized and
// normalised as the program's metadata says, to the bits that Pillow and numpy give
// (bigvit_edge/preprocessing.py has the words). What is transparent is laid on white, on black
// where white would hide all of it. Reads the rows' pixels and nothing behind them. 0 if all went
// well.
BVE_API int bve_prepare(const bve_program* program, const bve_picture* picture, float* image,
                        size_t image_count, bve_error* error);

// The same by a program's metadata alone, JSON of texts: {"preprocessing": "{\"size\": 224, ...}"},
// for models of other formats, whose own metadata or the bundle's manifest has these words. Refuses
// those of a file that takes pixels (dtype uint8), which normalises them itself.
BVE_API int bve_prepare_by(const char* metadata, const bve_picture* picture, float* image,
                           size_t image_count, bve_error* error);

// A frame as the model sees it: turned upright, cropped and resized with antialiasing as the
// program's metadata says, RGB, uint8 [size, size, 3]. Within a level of what Pillow makes of the
// same frame in RGB, of noise but for two in ten thousand. Reads the rows' pixels and nothing
// behind them. 0 if all went well.
BVE_API int bve_read_frame(const bve_program* program, const bve_frame* frame, uint8_t* pixels,
                           size_t count, bve_error* error);

// The same by a program's metadata alone, as bve_prepare_by, of any dtype and layout: the pixels
// are [size, size, 3] all the same, so for layout NCHW move the channels to the front, and for
// dtype float32 do color, scale, mean and std too. Reads the words and plans the frame anew each
// time, where bve_set_frame keeps its plan.
BVE_API int bve_read_frame_by(const char* metadata, const bve_frame* frame, uint8_t* pixels,
                              size_t count, bve_error* error);

// Bytes of weights that the program's sessions have packed anew so far, in memory of their own,
// because the CPU's kernels want the other packing; 0 where they use the program's bytes alone.
BVE_API size_t bve_repacked_bytes(const bve_program* program);

// Cores that may be used: those that the calling thread's affinity leaves it, or as many as its
// cgroup's quota is worth if that is fewer. A session keeps to what there was when it was started.
BVE_API uint32_t bve_count_cores(void);

// JSON about the machine whose /proc, /sys and /etc lie below root; null or "": this one. Cores and
// their clusters, clocks, limits, temperatures, power sensors and what could not be read, in the
// fields that bigvit_edge/machine.py explains. Lives until the calling thread's next call. Null
// when out of memory.
BVE_API const char* bve_probe(const char* root);

// A session for the entry of that keep ratio, to six digits; 0: the program's first. All its memory
// is allocated here. options: null for one thread.
BVE_API bve_session* bve_start(bve_program* program, float keep, const bve_options* options,
                               bve_error* error);
BVE_API void bve_stop(bve_session* session);

// Floats of an image and of the logits, for the session's entry.
BVE_API size_t bve_image_count(const bve_session* session);
BVE_API size_t bve_logits_count(const bve_session* session);

// The image of the next bve_run whose own is null, made of a frame as bve_read_frame does and
// normalised. The frame's memory is the caller's again afterwards. Works on the calling thread;
// allocates where a frame's size, format or rotation differs from the last one's. 0 if all went
// well; if not, what was set before stays.
BVE_API int bve_set_frame(bve_session* session, const bve_frame* frame, bve_error* error);

// The same of pixels that are turned, cropped and resized already, as bve_read_frame writes them:
// RGB, uint8 [size, size, 3], or [3, size, size] where is_planar is not 0. count: size * size * 3.
BVE_API int bve_set_pixels(bve_session* session, const uint8_t* pixels, size_t count,
                           uint32_t is_planar, bve_error* error);

// One image, float [3, size, size], to logits, float [classes]. Counts are of floats and must be
// the entry's. Null, of 0 floats: the frame that was set since the last run, which is gone
// afterwards, whichever image was run. 0 if all went well. Allocates nothing.
BVE_API int bve_run(bve_session* session, const float* image, size_t image_count, float* logits,
                    size_t logits_count, bve_error* error);

// JSON about the session: CPU flags, kernels chosen, threads and the cores they may run on, why
// they were chosen, bytes of the arena, what was repacked; of each op its kind, lane, the
// multiply-accumulates, the bytes it has to read and write at least, and what it multiplies in
// (f32, f16, qd8); of one that routes, among how many tokens. With bve_trace switched on, also the
// last run's nanoseconds of each op. Lives until the next call for this session. Null when out of
// memory.
BVE_API const char* bve_inspect(bve_session* session);
// Whether runs from now on are traced: memory for that is allocated here, and without it they are
// not. A traced run takes longer by two readings of a clock an event.
BVE_API void bve_trace(bve_session* session, int on);

// Of the last run, if it was traced: how many events there are, a thread's one after the other; the
// first `count` of them (null: none wanted); lost (may be null): those beyond the 65,536 a thread
// that there is room for.
BVE_API size_t bve_events(const bve_session* session, bve_event* events, size_t count,
                          size_t* lost);

// Of the last run, if it was traced, and an op that routes: how many tokens it chose, and the first
// `count` of them in rising order (null: none wanted). 0 is the class token, patch i is i + 1.
BVE_API size_t bve_rows(const bve_session* session, size_t op, int32_t* rows, size_t count);

// Nanoseconds of CPU time that the session's runs have taken so far: its caller's inside bve_run,
// and all of its other threads', their watching included.
BVE_API uint64_t bve_cpu_time(const bve_session* session);

// The session's ops, in order: how many; the traced nanoseconds of the last run for the first
// `count` of them, summed over threads (0 where bve_trace was off; null: none wanted); and an op's
// name, null beyond the last, which lives as long as the session.
BVE_API size_t bve_times(const bve_session* session, uint64_t* nanoseconds, size_t count);
BVE_API const char* bve_op_name(const bve_session* session, size_t index);

// JSON of this machine's limits, measured now on so many threads at once (1 to bve_count_cores()),
// half a second long: the most multiply-accumulates a second of each type, and bytes read a second
// from a core's cache and from memory. For bve_free; null, with a text in `error`, if it fails.
BVE_API char* bve_measure(uint32_t threads, bve_error* error);
BVE_API void bve_free(char* text);

// The kernel's counters (cycles, instructions, cache and branch misses, CPU time, page faults) of
// the calling thread and all threads that it starts afterwards, so before bve_start. Their reading
// is JSON, for bve_free: a list of counts so far, or why one is missing. root: before /sys, ""
// usually. Null without memory.
typedef struct bve_counters bve_counters;
BVE_API bve_counters* bve_count(const char* root);
BVE_API char* bve_read(const bve_counters* counters);
BVE_API void bve_uncount(bve_counters* counters);

// Token dispatch by itself, for models whose other ops run elsewhere: the k tokens of the highest
// scores (softmax over tokens of dot(layernorm(z), weight) + bias), token 0 always among them, come
// first and the others behind, both in rising order; `order` says which token came to each place.
// Of equal scores the earlier token wins. gate = 2 s / (1 + s), with s = n * score, of the k. By
// the best kernel that the CPU has, on the calling thread. 0 if all went well. Allocates nothing.
BVE_API int bve_dispatch(const bve_tokens* tokens, bve_error* error);

#ifdef __cplusplus
}
#endif
#endif  // BVE_H_
