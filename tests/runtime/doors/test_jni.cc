// The door to Java through a JNIEnv of our own, which a JVM's arm64 build is not at hand for: what
// it hands Java, that it asks JNI for nothing it may not, and that it keeps nothing.
#include <jni.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "bve.h"
#include "doctest.h"
#include "json.h"
#include "tiny_program.h"

#define BVE_JNI(result, name, ...) \
  extern "C" result Java_dev_bigvit_edge_Bve_##name(JNIEnv*, jclass, __VA_ARGS__)
BVE_JNI(jlong, open, jbyteArray, jbyteArray);
BVE_JNI(jlong, openBytes, jbyteArray, jbyteArray);
BVE_JNI(void, close, jlong);
BVE_JNI(jboolean, verify, jlong, jbyteArray);
BVE_JNI(jbyteArray, describe, jlong);
BVE_JNI(jbyteArray, label, jlong, jint);
BVE_JNI(jfloatArray, keeps, jlong);
BVE_JNI(jlong, start, jlong, jfloat, jint, jbyteArray);
BVE_JNI(void, stop, jlong);
BVE_JNI(jint, countImage, jlong);
BVE_JNI(jint, countLogits, jlong);
BVE_JNI(jboolean, run, jlong, jfloatArray, jfloatArray, jbyteArray);
BVE_JNI(jboolean, runDirect, jlong, jobject, jint, jint, jobject, jint, jint, jbyteArray);
BVE_JNI(jboolean, prepare, jlong, jintArray, jint, jint, jfloatArray, jbyteArray);
BVE_JNI(jboolean, setBytes, jlong, jbyteArray, jint, jint, jint, jbyteArray);
BVE_JNI(jboolean, setPlanes, jlong, jint, jint, jint, jint, jobject, jint, jobject, jobject, jint,
        jint, jbyteArray);
#define CALL(name, ...) Java_dev_bigvit_edge_Bve_##name(java.env(), nullptr, __VA_ARGS__)

namespace bve::test {
namespace {

// An array of Java, or a direct buffer's memory.
struct Object {
  std::vector<char> bytes;
  size_t item;
};

void copy(const void* from, size_t item, jsize count, void* into) {
  if (count > 0) std::memcpy(into, from, static_cast<size_t>(count) * item);
}

// Java's side. Where it has no room, new arrays and held ones are null.
class Java {
 public:
  Java() {
    functions_.GetArrayLength = [](JNIEnv* env, jarray array) { return find(env).length(array); };
    functions_.NewByteArray = [](JNIEnv* env, jsize count) {
      return static_cast<jbyteArray>(find(env).make(count, 1));
    };
    functions_.NewFloatArray = [](JNIEnv* env, jsize count) {
      return static_cast<jfloatArray>(find(env).make(count, 4));
    };
    functions_.GetByteArrayRegion = [](JNIEnv* env, jbyteArray array, jsize start, jsize count,
                                       jbyte* into) {
      copy(find(env).reach(array, 1, start, count), 1, count, into);
    };
    functions_.SetByteArrayRegion = [](JNIEnv* env, jbyteArray array, jsize start, jsize count,
                                       const jbyte* from) {
      copy(from, 1, count, find(env).reach(array, 1, start, count));
    };
    functions_.GetFloatArrayRegion = [](JNIEnv* env, jfloatArray array, jsize start, jsize count,
                                        jfloat* into) {
      copy(find(env).reach(array, 4, start, count), 4, count, into);
    };
    functions_.SetFloatArrayRegion = [](JNIEnv* env, jfloatArray array, jsize start, jsize count,
                                        const jfloat* from) {
      copy(from, 4, count, find(env).reach(array, 4, start, count));
    };
    functions_.GetPrimitiveArrayCritical = [](JNIEnv* env, jarray array, jboolean*) -> void* {
      Java& java = find(env);
      if (!java.has_room) return nullptr;
      ++java.held_;
      return reinterpret_cast<Object*>(array)->bytes.data();
    };
    functions_.ReleasePrimitiveArrayCritical = [](JNIEnv* env, jarray, void*, jint) {
      --static_cast<Env*>(env)->java->held_;
    };
    functions_.GetDirectBufferAddress = [](JNIEnv* env, jobject buffer) -> void* {
      find(env);
      return buffer ? reinterpret_cast<Object*>(buffer)->bytes.data() : nullptr;
    };
    env_.functions = &functions_;
    env_.java = this;
  }
  ~Java() { CHECK(held_ == 0); }

  JNIEnv* env() { return &env_; }

  template <typename Value>
  jobject add(const std::vector<Value>& values) {
    const auto* const from = reinterpret_cast<const char*>(values.data());
    objects_.push_back(std::make_unique<Object>(
        Object{{from, from + values.size() * sizeof(Value)}, sizeof(Value)}));
    return reinterpret_cast<jobject>(objects_.back().get());
  }
  jbyteArray add_text(const std::string& text) {
    return static_cast<jbyteArray>(add(std::vector<char>(text.begin(), text.end())));
  }
  template <typename Value>
  std::vector<Value> read(jobject array) {
    const std::vector<char>& bytes = reinterpret_cast<Object*>(array)->bytes;
    std::vector<Value> values(bytes.size() / sizeof(Value));
    copy(bytes.data(), 1, static_cast<jsize>(bytes.size()), values.data());
    return values;
  }
  // Up to the first zero.
  std::string read_text(jobject array) {
    const std::vector<char> bytes = read<char>(array);
    return std::string(bytes.begin(), std::find(bytes.begin(), bytes.end(), '\0'));
  }
  size_t count_made() const { return made_; }

  bool has_room = true;

 private:
  struct Env : JNIEnv {
    Java* java;
  };

  // Of any call but a release: none may be made while an array is held.
  static Java& find(JNIEnv* env) {
    Java& java = *static_cast<Env*>(env)->java;
    REQUIRE(java.held_ == 0);
    return java;
  }
  jsize length(jobject array) const {
    const Object& object = *reinterpret_cast<Object*>(array);
    return static_cast<jsize>(object.bytes.size() / object.item);
  }
  char* reach(jobject array, size_t item, jsize start, jsize count) const {
    Object& object = *reinterpret_cast<Object*>(array);
    REQUIRE(object.item == item);
    REQUIRE((start >= 0 && count >= 0 && count <= length(array) - start));
    return object.bytes.data() + static_cast<size_t>(start) * item;
  }
  jobject make(jsize count, size_t item) {
    if (!has_room) return nullptr;
    ++made_;
    objects_.push_back(std::make_unique<Object>(
        Object{std::vector<char>(static_cast<size_t>(count) * item), item}));
    return reinterpret_cast<jobject>(objects_.back().get());
  }

  JNINativeInterface_ functions_{};
  Env env_{};
  std::vector<std::unique_ptr<Object>> objects_;
  size_t made_ = 0;
  int held_ = 0;
};

constexpr uint32_t kSize = 4;
constexpr size_t kImage = 3 * kSize * kSize;

Bytes make_program() {
  ProgramBuilder builder;
  add_tiny_entry(builder, add_tiny_weights(builder, {bve_f32p}), "main", 1);
  builder.metadata = json::object(
      {{"labels", json::quote(R"(["ein", "zw\u00f6lf", "\ud83e\udd8a"])")},
       {"preprocessing", json::quote(R"({"size": 4, "mean": [0, 0, 0], "std": [1, 1, 1]})")}});
  return builder.build();
}

// What the C ABI says to the same.
struct Expected {
  Bytes bytes = make_program();
  bve_program* program = bve_open_bytes(bytes.data(), bytes.count(), nullptr);
  bve_session* session = bve_start(program, 0, nullptr, nullptr);

  ~Expected() {
    bve_stop(session);
    bve_close(program);
  }
  std::vector<float> run(const std::vector<float>& image) const {
    std::vector<float> logits(bve_logits_count(session));
    REQUIRE(bve_run(session, image.data(), image.size(), logits.data(), logits.size(), nullptr) ==
            0);
    return logits;
  }
};

struct Opened {
  Java java;
  jbyteArray reason = java.add_text(std::string(BVE_ERROR_BYTES, '\0'));
  jlong program = 0, session = 0;

  Opened() {
    Bytes bytes = make_program();
    const auto* const from = reinterpret_cast<const char*>(bytes.data());
    const auto given = java.add_text({from, from + bytes.count()});
    program = CALL(openBytes, given, reason);
    REQUIRE_MESSAGE(program != 0, java.read_text(reason));
    std::memset(reinterpret_cast<Object*>(given)->bytes.data(), 0, bytes.count());
    session = CALL(start, program, 0, 1, reason);
    REQUIRE_MESSAGE(session != 0, java.read_text(reason));
  }
  ~Opened() {
    CALL(stop, session);
    CALL(close, program);
  }
  std::string why() { return java.read_text(reason); }
};

TEST_CASE("a program tells what it is, in bytes of UTF-8") {
  Opened opened;
  Java& java = opened.java;
  Expected expected;
  CHECK(java.read_text(CALL(describe, opened.program)) == bve_describe(expected.program));
  CHECK(java.read_text(CALL(label, opened.program, 1)) == "zwölf");
  CHECK(java.read_text(CALL(label, opened.program, 2)) == "\xf0\x9f\xa6\x8a");
  CHECK(CALL(label, opened.program, 3) == nullptr);
  CHECK(CALL(label, opened.program, -1) == nullptr);
  CHECK(java.read<float>(CALL(keeps, opened.program)) == std::vector<float>{1});
  CHECK(CALL(verify, opened.program, opened.reason) == JNI_TRUE);
  CHECK(CALL(countImage, opened.session) == kImage);
  CHECK(CALL(countLogits, opened.session) == 3);
  CHECK(java.count_made() == 4);  // what it returned, and no array besides
}

TEST_CASE("a file is opened by its path's bytes") {
  Java java;
  const jbyteArray reason = java.add_text(std::string(BVE_ERROR_BYTES, '\0'));
  const auto path = std::filesystem::temp_directory_path() /
                    ("bve \xc3\xa4 " + std::to_string(reinterpret_cast<uintptr_t>(&java)) + ".bve");
  Bytes bytes = make_program();
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.count()));
  const jlong program = CALL(open, java.add_text(path.string()), reason);
  CHECK_MESSAGE(program != 0, java.read_text(reason));
  std::filesystem::remove(path);
  if (program) CALL(close, program);
  CHECK(CALL(open, java.add_text(path.string()), reason) == 0);
  CHECK(java.read_text(reason).find(".bve") != std::string::npos);
}

TEST_CASE("runs answer as the C ABI does, from arrays and from direct buffers") {
  Opened opened;
  Java& java = opened.java;
  const std::vector<float> image = Noise(3).take(kImage);
  const std::vector<float> expected = Expected().run(image);
  const auto logits = static_cast<jfloatArray>(java.add(std::vector<float>(3)));
  CHECK(CALL(run, opened.session, static_cast<jfloatArray>(java.add(image)), logits,
             opened.reason) == JNI_TRUE);
  CHECK(java.read<float>(logits) == expected);

  std::vector<float> shifted(2 + kImage);
  std::copy(image.begin(), image.end(), shifted.begin() + 2);
  const jobject out = java.add(std::vector<float>(5, -1));
  CHECK(CALL(runDirect, opened.session, java.add(shifted), 2, kImage, out, 1, 3, opened.reason) ==
        JNI_TRUE);
  const std::vector<float> found = java.read<float>(out);
  CHECK(std::vector<float>(found.begin() + 1, found.begin() + 4) == expected);
  CHECK((found[0] == -1 && found[4] == -1));
}

TEST_CASE("pixels are ints of Java, and held no longer than they are read") {
  Opened opened;
  Java& java = opened.java;
  std::vector<uint32_t> argb(6 * 5);
  std::vector<uint8_t> rgb;
  for (size_t i = 0; i < argb.size(); ++i) {
    const auto red = static_cast<uint8_t>(i * 7), green = static_cast<uint8_t>(i * 5 + 3),
               blue = static_cast<uint8_t>(255 - i);
    argb[i] = 0xff000000u | uint32_t{red} << 16 | uint32_t{green} << 8 | blue;
    rgb.insert(rgb.end(), {red, green, blue});
  }
  Expected expected;
  std::vector<float> image(kImage);
  const bve_picture picture{rgb.data(), 18, 6, 5, BVE_RGB, 0};
  REQUIRE(bve_prepare(expected.program, &picture, image.data(), kImage, nullptr) == 0);
  const auto found = static_cast<jfloatArray>(java.add(std::vector<float>(kImage)));
  const auto pixels = static_cast<jintArray>(java.add(argb));
  CHECK(CALL(prepare, opened.session, pixels, 6, 5, found, opened.reason) == JNI_TRUE);
  CHECK(java.read<float>(found) == image);
  CHECK(CALL(prepare, opened.session, pixels, 0, 5, found, opened.reason) == JNI_FALSE);
  CHECK(opened.why().rfind("a picture of 0 x 5 pixels, expected ", 0) == 0);
}

TEST_CASE("a frame is run as the C ABI does, from an array and from direct buffers") {
  Opened opened;
  Java& java = opened.java;
  constexpr size_t kLuma = 7 * 5, kRow = 8;  // 7 x 5 pixels; chroma of 4 x 3
  std::vector<uint8_t> nv21(kLuma + kRow * 3);
  for (size_t i = 0; i < nv21.size(); ++i) nv21[i] = static_cast<uint8_t>(i * 37 + 11);
  bve_frame frame{};
  frame.planes[0] = nv21.data();
  frame.planes[1] = nv21.data() + kLuma;
  frame.stride_bytes[0] = 7;
  frame.stride_bytes[1] = kRow;
  frame.width = 7;
  frame.height = 5;
  frame.format = BVE_NV21;
  frame.rotation = 90;
  Expected expected;
  std::vector<float> answer(3);
  REQUIRE(bve_set_frame(expected.session, &frame, nullptr) == 0);
  REQUIRE(bve_run(expected.session, nullptr, 0, answer.data(), 3, nullptr) == 0);

  const auto logits = static_cast<jfloatArray>(java.add(std::vector<float>(3)));
  const auto bytes = static_cast<jbyteArray>(java.add(nv21));
  REQUIRE(CALL(setBytes, opened.session, bytes, 7, 5, 90, opened.reason) == JNI_TRUE);
  CHECK(CALL(run, opened.session, nullptr, logits, opened.reason) == JNI_TRUE);
  CHECK(java.read<float>(logits) == answer);
  CHECK(CALL(run, opened.session, nullptr, logits, opened.reason) == JNI_FALSE);  // it is gone

  const std::vector<uint8_t> luma(nv21.begin(), nv21.begin() + kLuma);
  const jobject v = java.add(std::vector<uint8_t>(nv21.begin() + kLuma, nv21.end()));
  const jobject u = java.add(std::vector<uint8_t>(nv21.begin() + kLuma + 1, nv21.end()));
  CHECK(CALL(setPlanes, opened.session, BVE_YUV420, 7, 5, 90, java.add(luma), 7, u, v, kRow, 2,
             opened.reason) == JNI_TRUE);
  CHECK(CALL(run, opened.session, nullptr, logits, opened.reason) == JNI_TRUE);
  CHECK(java.read<float>(logits) == answer);

  CHECK(CALL(setBytes, opened.session, bytes, 7, 5, 45, opened.reason) == JNI_FALSE);
  CHECK(opened.why().find("45") != std::string::npos);
  CHECK(CALL(setPlanes, opened.session, BVE_YUV420, 7, 5, 0, nullptr, 7, u, v, kRow, 2,
             opened.reason) == JNI_FALSE);
  CHECK(opened.why().find("null") != std::string::npos);
}

TEST_CASE("what fails gives its reason, cut where there is less room") {
  Opened opened;
  Java& java = opened.java;
  const auto floats = [&](size_t count) {
    return static_cast<jfloatArray>(java.add(std::vector<float>(count)));
  };
  CHECK(CALL(run, opened.session, floats(kImage + 1), floats(3), opened.reason) == JNI_FALSE);
  CHECK(opened.why().find("49") != std::string::npos);
  CHECK(CALL(run, opened.session, floats(0), floats(3), opened.reason) == JNI_FALSE);
  CHECK(CALL(run, opened.session, floats(kImage), floats(4), opened.reason) == JNI_FALSE);
  CHECK(CALL(runDirect, opened.session, nullptr, 0, kImage, floats(3), 0, 3, opened.reason) ==
        JNI_FALSE);
  CHECK(opened.why().find("expected a direct one") != std::string::npos);
  CHECK(CALL(start, opened.program, 0.25f, 1, opened.reason) == 0);
  CHECK(opened.why().find("keep ratio 0.25") != std::string::npos);
  CHECK(CALL(start, opened.program, 0, -1, opened.reason) == 0);
  CHECK(CALL(openBytes, java.add_text(std::string(100, 'x')), opened.reason) == 0);
  CHECK(CALL(openBytes, java.add_text(""), opened.reason) == 0);
  const jbyteArray small = java.add_text(std::string(8, '\0'));
  CHECK(CALL(openBytes, java.add_text(""), small) == 0);
  CHECK(java.read_text(small).size() == 8);
}

TEST_CASE("without room Java's own error is left to be thrown, or one is told") {
  Opened opened;
  Java& java = opened.java;
  const auto pixels = static_cast<jintArray>(java.add(std::vector<uint32_t>(1)));
  const auto image = static_cast<jfloatArray>(java.add(std::vector<float>(kImage)));
  java.has_room = false;
  CHECK(CALL(describe, opened.program) == nullptr);
  CHECK(CALL(label, opened.program, 0) == nullptr);
  CHECK(CALL(keeps, opened.program) == nullptr);
  CHECK(CALL(prepare, opened.session, pixels, 1, 1, image, opened.reason) == JNI_FALSE);
  CHECK(opened.why() == "no memory left; close other programs");
  CHECK(CALL(setBytes, opened.session, java.add_text("abcdef"), 2, 2, 0, opened.reason) ==
        JNI_FALSE);
}

}  // namespace
}  // namespace bve::test
