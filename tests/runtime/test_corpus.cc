// What the fuzzer of programs starts from.
#include <doctest/doctest.h>

#include <fstream>

#include "tiny_program.h"

namespace bve::test {
namespace {

std::string refuse(const std::string& path) {
  try {
    Program::open(path.c_str());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// `--no-skip -tc="seeds are written"` writes them anew where the format
// changed.
const std::string kCorpus = BVE_SOURCE_DIR "/tests/runtime/corpus/";

}  // namespace

TEST_CASE("seeds are written" * doctest::skip()) {
  const auto put = [](const char* name, Bytes& bytes, size_t count) {
    std::ofstream file(kCorpus + name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(count));
    CHECK(file.good());
  };
  Bytes tiny = make_tiny_program({bve_f32p, bve_f16p, bve_qc8p4, bve_qc8p8});
  put("valid_tiny.bve", tiny, tiny.count());
  put("bad_truncated.bve", tiny, 3000);
  tiny.header().version = kVersion + 1;
  put("bad_version.bve", tiny, 4096);
  ProgramBuilder builder;
  const uint32_t row = builder.add_matrix("row", 1, 2, {1, 2});
  builder.start_entry("main", 0, 1, 2);
  builder.add_op("fill", 0, 0, FillArgs{row, 1});
  Bytes smallest = builder.build();
  put("valid_smallest.bve", smallest, smallest.count());
}

TEST_CASE("seeds are what they are called") {
  for (const char* name : {"valid_tiny.bve", "valid_smallest.bve"}) {
    CHECK_MESSAGE(refuse(kCorpus + name) == "", name);
  }
  CHECK(has(refuse(kCorpus + "bad_truncated.bve"), "it is truncated"));
  CHECK(has(refuse(kCorpus + "bad_version.bve"), "update bigvit-edge"));
}

}  // namespace bve::test
