// The door to Java: the functions of runtime/java/dev/bigvit/edge/Bve.java. Handles are pointers.
// Texts are bytes of UTF-8, for JNI's own strings are in another encoding; a reason goes into the
// caller's array, and Java throws.
#include <jni.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "bve.h"

#define BVE_JNI(result, name) extern "C" JNIEXPORT result JNICALL Java_dev_bigvit_edge_Bve_##name

namespace {

constexpr size_t kAlign = 64;  // of bytes that bve_open_bytes takes as they are
constexpr char kNoMemory[] = "no memory left; close other programs";

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

struct Program {
  bve_program* program;
  std::unique_ptr<void, Free> bytes;  // null: a file's
};

// Its arrays are what Java's are copied to and from: a run is too long to hold those.
struct Session {
  bve_program* program;
  bve_session* session;
  std::vector<float> image, logits;
};

template <typename Handle>
Handle* find(jlong handle) {
  return reinterpret_cast<Handle*>(static_cast<intptr_t>(handle));
}
jlong hand_out(const void* handle) {
  return static_cast<jlong>(reinterpret_cast<intptr_t>(handle));
}

void tell(JNIEnv* env, jbyteArray into, const char* text) {
  const auto bytes = static_cast<jsize>(std::strlen(text) + 1);
  env->SetByteArrayRegion(into, 0, std::min(bytes, env->GetArrayLength(into)),
                          reinterpret_cast<const jbyte*>(text));
}

// work's result, or failed with the reason in `reason`.
template <typename Result, typename Work>
Result guard(JNIEnv* env, jbyteArray reason, Result failed, Work work) {
  try {
    bve_error error{};
    const Result result = work(&error);
    if (result == failed) tell(env, reason, error.text);
    return result;
  } catch (const std::bad_alloc&) {
    tell(env, reason, kNoMemory);
  }
  return failed;
}

// Null with OutOfMemoryError pending if there is no room.
jbyteArray copy_text(JNIEnv* env, const char* text) {
  const auto bytes = static_cast<jsize>(std::strlen(text));
  const jbyteArray copied = env->NewByteArray(bytes);
  if (copied) env->SetByteArrayRegion(copied, 0, bytes, reinterpret_cast<const jbyte*>(text));
  return copied;
}

jlong hold(bve_program* program, std::unique_ptr<void, Free> bytes) {
  if (!program) return 0;
  auto* const held = new (std::nothrow) Program{program, std::move(bytes)};
  if (!held) {
    bve_close(program);
    throw std::bad_alloc();
  }
  return hand_out(held);
}

}  // namespace

BVE_JNI(jlong, open)(JNIEnv* env, jclass, jbyteArray path, jbyteArray reason) {
  return guard<jlong>(env, reason, 0, [&](bve_error* error) {
    std::string text(static_cast<size_t>(env->GetArrayLength(path)), '\0');
    env->GetByteArrayRegion(path, 0, static_cast<jsize>(text.size()),
                            reinterpret_cast<jbyte*>(text.data()));
    return hold(bve_open(text.c_str(), error), nullptr);
  });
}

BVE_JNI(jlong, openBytes)(JNIEnv* env, jclass, jbyteArray bytes, jbyteArray reason) {
  return guard<jlong>(env, reason, 0, [&](bve_error* error) {
    const jsize count = env->GetArrayLength(bytes);
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlign, std::max<size_t>(1, static_cast<size_t>(count))) != 0) {
      throw std::bad_alloc();
    }
    std::unique_ptr<void, Free> copied(memory);
    env->GetByteArrayRegion(bytes, 0, count, static_cast<jbyte*>(memory));
    return hold(bve_open_bytes(memory, static_cast<size_t>(count), error), std::move(copied));
  });
}

BVE_JNI(void, close)(JNIEnv*, jclass, jlong program) {
  const std::unique_ptr<Program> held(find<Program>(program));
  bve_close(held->program);
}

BVE_JNI(jboolean, verify)(JNIEnv* env, jclass, jlong program, jbyteArray reason) {
  return guard<jboolean>(env, reason, JNI_FALSE, [&](bve_error* error) -> jboolean {
    return bve_verify(find<Program>(program)->program, error) == 0;
  });
}

BVE_JNI(jbyteArray, describe)(JNIEnv* env, jclass, jlong program) {
  return copy_text(env, bve_describe(find<Program>(program)->program));
}

BVE_JNI(jbyteArray, label)(JNIEnv* env, jclass, jlong program, jint index) {
  const char* const label =
      bve_label(find<Program>(program)->program, static_cast<uint32_t>(index));
  return label ? copy_text(env, label) : nullptr;
}

BVE_JNI(jfloatArray, keeps)(JNIEnv* env, jclass, jlong program) {
  const bve_program* const from = find<Program>(program)->program;
  const size_t count = bve_keeps(from, nullptr, 0);
  const jfloatArray keeps = env->NewFloatArray(static_cast<jsize>(count));
  if (!keeps) return nullptr;
  void* const into = env->GetPrimitiveArrayCritical(keeps, nullptr);
  if (!into) return nullptr;
  bve_keeps(from, static_cast<float*>(into), count);
  env->ReleasePrimitiveArrayCritical(keeps, into, 0);
  return keeps;
}

BVE_JNI(jlong, start)(JNIEnv* env, jclass, jlong program, jfloat keep, jint threads,
                      jbyteArray reason) {
  return guard<jlong>(env, reason, 0, [&](bve_error* error) -> jlong {
    bve_program* const from = find<Program>(program)->program;
    const bve_options options{
        BVE_ABI_VERSION, static_cast<uint32_t>(std::max(0, threads)), 0, 0, 0, 0, 0};
    std::unique_ptr<bve_session, decltype(&bve_stop)> session(
        bve_start(from, keep, &options, error), bve_stop);
    if (!session) return 0;
    auto held = std::make_unique<Session>();
    held->program = from;
    held->image.resize(bve_image_count(session.get()));
    held->logits.resize(bve_logits_count(session.get()));
    held->session = session.release();
    return hand_out(held.release());
  });
}

BVE_JNI(void, stop)(JNIEnv*, jclass, jlong session) {
  const std::unique_ptr<Session> held(find<Session>(session));
  bve_stop(held->session);
}

BVE_JNI(jint, countImage)(JNIEnv*, jclass, jlong session) {
  return static_cast<jint>(find<Session>(session)->image.size());
}

BVE_JNI(jint, countLogits)(JNIEnv*, jclass, jlong session) {
  return static_cast<jint>(find<Session>(session)->logits.size());
}

// Counts go on to the core as they are: it refuses others than its own.
BVE_JNI(jboolean, run)(JNIEnv* env, jclass, jlong session, jfloatArray image, jfloatArray logits,
                       jbyteArray reason) {
  return guard<jboolean>(env, reason, JNI_FALSE, [&](bve_error* error) -> jboolean {
    Session& held = *find<Session>(session);
    const auto given = image ? static_cast<size_t>(env->GetArrayLength(image)) : 0;
    const auto wanted = static_cast<size_t>(env->GetArrayLength(logits));
    if (image) {
      env->GetFloatArrayRegion(image, 0, static_cast<jsize>(std::min(given, held.image.size())),
                               held.image.data());
    }
    const float* const from = image ? held.image.data() : nullptr;
    if (bve_run(held.session, from, given, held.logits.data(), wanted, error) != 0) {
      return JNI_FALSE;
    }
    env->SetFloatArrayRegion(logits, 0, static_cast<jsize>(wanted), held.logits.data());
    return JNI_TRUE;
  });
}

BVE_JNI(jboolean, runDirect)(JNIEnv* env, jclass, jlong session, jobject image, jint image_offset,
                             jint image_count, jobject logits, jint logits_offset,
                             jint logits_count, jbyteArray reason) {
  return guard<jboolean>(env, reason, JNI_FALSE, [&](bve_error* error) -> jboolean {
    const auto* const from = static_cast<const float*>(env->GetDirectBufferAddress(image));
    auto* const into = static_cast<float*>(env->GetDirectBufferAddress(logits));
    for (const void* memory : {static_cast<const void*>(from), static_cast<const void*>(into)}) {
      if (memory && reinterpret_cast<uintptr_t>(memory) % alignof(float) == 0) continue;
      std::strcpy(error->text,
                  "a buffer that starts within a float or nowhere, expected a direct one of "
                  "floats; allocate it by ByteBuffer.allocateDirect");
      return JNI_FALSE;
    }
    return bve_run(find<Session>(session)->session, from + image_offset,
                   static_cast<size_t>(image_count), into + logits_offset,
                   static_cast<size_t>(logits_count), error) == 0;
  });
}

BVE_JNI(jboolean, prepare)(JNIEnv* env, jclass, jlong session, jintArray argb, jint width,
                           jint height, jfloatArray image, jbyteArray reason) {
  return guard<jboolean>(env, reason, JNI_FALSE, [&](bve_error* error) -> jboolean {
    Session& held = *find<Session>(session);
    // Too large to copy. Until it is released nothing below calls Java or waits.
    void* const pixels = env->GetPrimitiveArrayCritical(argb, nullptr);
    if (!pixels) throw std::bad_alloc();
    const bve_picture picture{pixels,
                              static_cast<uint32_t>(width) * size_t{4},
                              static_cast<uint32_t>(width),
                              static_cast<uint32_t>(height),
                              BVE_BGRA,  // an int of Java, in little-endian memory
                              0};
    const int status =
        bve_prepare(held.program, &picture, held.image.data(), held.image.size(), error);
    env->ReleasePrimitiveArrayCritical(argb, pixels, JNI_ABORT);
    if (status != 0) return JNI_FALSE;
    env->SetFloatArrayRegion(image, 0, static_cast<jsize>(held.image.size()), held.image.data());
    return JNI_TRUE;
  });
}

BVE_JNI(jboolean, setBytes)(JNIEnv* env, jclass, jlong session, jbyteArray nv21, jint width,
                            jint height, jint rotation, jbyteArray reason) {
  return guard<jboolean>(env, reason, JNI_FALSE, [&](bve_error* error) -> jboolean {
    bve_frame frame{};
    frame.width = static_cast<uint32_t>(width);
    frame.height = static_cast<uint32_t>(height);
    frame.format = BVE_NV21;
    frame.rotation = static_cast<uint32_t>(rotation);
    frame.stride_bytes[0] = frame.width;
    frame.stride_bytes[1] = size_t{2} * ((frame.width + 1) / 2);
    // Too large to copy. Until it is released nothing below calls Java or waits.
    void* const bytes = env->GetPrimitiveArrayCritical(nv21, nullptr);
    if (!bytes) throw std::bad_alloc();
    frame.planes[0] = bytes;
    frame.planes[1] = static_cast<const char*>(bytes) + size_t{frame.width} * frame.height;
    const int status = bve_set_frame(find<Session>(session)->session, &frame, error);
    env->ReleasePrimitiveArrayCritical(nv21, bytes, JNI_ABORT);
    return status == 0;
  });
}

BVE_JNI(jboolean, setPlanes)(JNIEnv* env, jclass, jlong session, jint format, jint width,
                             jint height, jint rotation, jobject first, jint first_stride,
                             jobject second, jobject third, jint other_stride, jint pixel_stride,
                             jbyteArray reason) {
  return guard<jboolean>(env, reason, JNI_FALSE, [&](bve_error* error) -> jboolean {
    const auto find_plane = [&](jobject buffer) -> const void* {
      return buffer ? env->GetDirectBufferAddress(buffer) : nullptr;
    };
    bve_frame frame{};
    frame.planes[0] = find_plane(first);
    frame.planes[1] = find_plane(second);
    frame.planes[2] = find_plane(third);
    frame.stride_bytes[0] = static_cast<size_t>(first_stride);
    frame.stride_bytes[1] = frame.stride_bytes[2] = static_cast<size_t>(other_stride);
    frame.width = static_cast<uint32_t>(width);
    frame.height = static_cast<uint32_t>(height);
    frame.format = static_cast<uint32_t>(format);
    frame.rotation = static_cast<uint32_t>(rotation);
    frame.pixel_stride = static_cast<uint32_t>(pixel_stride);
    return bve_set_frame(find<Session>(session)->session, &frame, error) == 0;
  });
}
