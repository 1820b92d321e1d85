#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>

#include "tiny_program.h"

using namespace bve;
using namespace bve::test;

namespace {

const std::vector<bve_packing> kAllPackings = {bve_f32p, bve_f16p, bve_qc8p4, bve_qc8p8};

Bytes make_tiny() { return make_tiny_program(kAllPackings); }

// What open says of these bytes, or "" where they are good.
std::string refuse(Bytes& bytes) {
  try {
    Program::open(bytes.data(), bytes.count());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A file that is there as long as this is.
class TemporaryFile {
 public:
  TemporaryFile(const void* data, size_t count) {
    const int file = mkstemps(path_, 4);
    REQUIRE(file >= 0);
    REQUIRE(write(file, data, count) == static_cast<ssize_t>(count));
    close(file);
  }
  ~TemporaryFile() { unlink(path_); }
  const char* path() const { return path_; }
  std::string name() const { return std::string(path_).substr(5); }

 private:
  char path_[32] = "/tmp/bve_XXXXXX.bve";
};

std::string refuse_path(const char* path) {
  try {
    Program::open(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("checksum is that of zlib") {
  const auto compute = [](const char* text) {
    return compute_checksum(reinterpret_cast<const std::byte*>(text), std::strlen(text));
  };
  CHECK(compute("") == 0);
  CHECK(compute("123456789") == 0xcbf43926);  // the check value in every CRC catalogue
  CHECK(compute("The quick brown fox jumps over the lazy dog") == 0x414fa339);
  const auto* const digits = reinterpret_cast<const std::byte*>("123456789");
  CHECK(compute_checksum(digits + 4, 5, compute_checksum(digits, 4)) == 0xcbf43926);
}

TEST_CASE("text is UTF-8 without control characters") {
  for (const char* good : {"", "layers.0.p", "\xc3\x84", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
                           "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    CHECK_MESSAGE(is_text(good), good);
  }
  for (const char* bad :
       {"\n", "\x1f", "\x7f", "\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xe2\x82", "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "a\xff"}) {
    CHECK_FALSE(is_text(bad));
  }
}

TEST_CASE("a program gives back what was built") {
  Bytes bytes = make_tiny();
  const auto program = Program::open(bytes.data(), bytes.count());
  REQUIRE(program->entries().count == 2);
  const Entry& half = program->find(0.5f);
  CHECK(&half == &program->entries()[1]);
  CHECK(&program->find(0) == &program->entries()[0]);
  CHECK(program->text(half.name) == "keep_0_5");
  CHECK(program->buffers(half).count == half.buffers);
  CHECK(program->buffers(half)[0].rows == 12);
  CHECK(program->buffers(half)[6].columns == 3);  // selected: ceil(0.5 * 5)
  const auto ops = program->ops(half);
  REQUIRE(ops.count == half.ops);
  CHECK(program->ops(program->entries()[0]).count == half.ops - 1);  // none is skipped
  CHECK(program->text(ops[2].name) == "embed");
  CHECK(get<LinearArgs>(ops[2]).dst_first_row == 1);
  CHECK(program->text(ops[ops.count - 1].name) == "head");

  const Weight& gain = program->weights()[0];
  CHECK(program->text(gain.name) == "gain16");
  const std::vector<float> expected = Noise(1).take(16);
  CHECK(std::memcmp(program->weight_data(0), expected.data(), 64) == 0);
  for (uint32_t i = 0; i < program->weights().count; ++i) {
    CHECK(reinterpret_cast<uintptr_t>(program->weight_data(i)) % 64 == 0);
  }
  CHECK(
      program->describe() ==
      "{\"name\": \"\", \"precision\": \"int8\", \"packing\": [\"f32p\", \"f16p\", \"qc8p4\", "
      "\"qc8p8\"], \"file_bytes\": " +
          std::to_string(bytes.count()) +
          ", \"weights_bytes\": " + std::to_string(bytes.count() - bytes.header().weights_offset) +
          ", \"entries\": [{\"name\": \"keep_1\", \"keep\": 1, \"image_size\": 4, \"classes\": 3, "
          "\"macs\": 0, \"ops\": 18, \"buffers\": 12}, {\"name\": \"keep_0_5\", \"keep\": 0.5, "
          "\"image_size\": 4, \"classes\": 3, \"macs\": 0, \"ops\": 19, \"buffers\": 13}], "
          "\"metadata\": {\"model\": \"tiny\", \"note\": \"\\\"quoted\\\" \\u00e9 Ä\"}}");
}

TEST_CASE("bytes are taken where they lie, or copied where that is on no multiple of 64") {
  Bytes bytes = make_tiny();
  const auto taken = Program::open(bytes.data(), bytes.count());
  CHECK(static_cast<const void*>(&taken->header()) == bytes.data());
  std::vector<std::byte> shifted(bytes.count() + 128);
  const size_t start = 64 - reinterpret_cast<uintptr_t>(shifted.data()) % 64 + 8;
  std::memcpy(shifted.data() + start, bytes.data(), bytes.count());
  const auto copied = Program::open(shifted.data() + start, bytes.count());
  shifted.assign(shifted.size(), std::byte{0});
  CHECK(copied->describe() == taken->describe());
  CHECK(reinterpret_cast<uintptr_t>(copied->weight_data(0)) % 64 == 0);
}

TEST_CASE("a file is mapped and named") {
  Bytes bytes = make_tiny();
  const TemporaryFile file(bytes.data(), bytes.count());
  const auto program = Program::open(file.path());
  CHECK(has(program->describe(), "{\"name\": \"" + file.name() + "\", "));
  CHECK(std::memcmp(&program->header(), bytes.data(), bytes.count()) == 0);
}

TEST_CASE("what is no program is refused by name") {
  CHECK(has(refuse_path("/no/such.bve"), "/no/such.bve: cannot be opened: No such file"));
  CHECK(has(refuse_path("/tmp"), "/tmp: is not a file"));
  const TemporaryFile empty("", 0);
  CHECK(has(refuse_path(empty.path()), "has 0 bytes, expected at least the header's 128"));
  const TemporaryFile text(std::string(200, 'x').data(), 200);
  CHECK(has(refuse_path(text.path()), text.name() + ": magic at offset 0 is not 'BVE1'"));
  CHECK_THROWS_AS(Program::open(nullptr, 1000), Error);

  Bytes newer = make_tiny();
  newer.header().version = 2;
  CHECK(has(refuse(newer), "version at offset 4 is 2, this library reads 1: update bigvit-edge"));
  Bytes older = make_tiny();
  older.header().version = 0;
  CHECK(has(refuse(older), "is 0, this library reads 1: export it again"));
}

TEST_CASE("an unknown keep ratio is told which there are") {
  Bytes bytes = make_tiny();
  const auto program = Program::open(bytes.data(), bytes.count());
  CHECK_THROWS_WITH_AS(program->find(0.3f),
                       "keep ratio 0.3 is not in the program; ask for one of 1, 0.5, or 0 for the "
                       "first, or export with it",
                       Error);
  CHECK_THROWS_AS(program->find(NAN), Error);
  ProgramBuilder thirds;
  add_tiny_entry(thirds, add_tiny_weights(thirds, {bve_f32p}), "third", 1.0f / 3);
  Bytes few = thirds.build();
  const auto third = Program::open(few.data(), few.count());
  CHECK(0.333333f != 1.0f / 3);
  CHECK(&third->find(0.333333f) == &third->entries()[0]);
  CHECK_THROWS_AS(third->find(0.33333f), Error);
  ProgramBuilder builder;
  const TinyWeights weights = add_tiny_weights(builder, {bve_f32p});
  add_tiny_entry(builder, weights, "main", 1);
  Bytes dense = builder.build();
  dense.at<Entry>(&Header::entries, 0).keep = 0;
  dense.seal();
  const auto main = Program::open(dense.data(), dense.count());
  CHECK(&main->find(0) == &main->entries()[0]);
  CHECK_THROWS_WITH_AS(main->find(0.5f), "keep ratio 0.5 of a program that has none; ask for 0",
                       Error);
}

TEST_CASE("a truncated or longer file is refused, wherever it is cut") {
  Bytes whole = make_tiny();
  for (size_t count = 0; count < whole.count(); count += count < 200 ? 1 : 97) {
    Bytes cut(whole.data(), count);
    CHECK(refuse(cut) != "");
  }
  Bytes cut(whole.data(), 5000);
  CHECK(has(refuse(cut), "has 5000 bytes, expected " + std::to_string(whole.count()) +
                             " (file_bytes at offset 8): it is truncated"));
  std::vector<std::byte> longer(whole.data(), whole.data() + whole.count());
  longer.resize(whole.count() + 64);
  Bytes more(longer.data(), longer.size());
  CHECK(has(refuse(more), "it is longer than it says"));
}

TEST_CASE("any flipped bit before the weights is noticed") {
  Bytes whole = make_tiny();
  for (size_t bit = 0; bit < whole.header().weights_offset * 8; bit += bit < 1024 ? 1 : 13) {
    whole.data()[bit / 8] ^= std::byte{1} << bit % 8;
    CHECK_MESSAGE(refuse(whole) != "", bit);
    whole.data()[bit / 8] ^= std::byte{1} << bit % 8;
  }
  CHECK(refuse(whole) == "");
}

TEST_CASE("any flipped bit of a weight is noticed by who asks, and named") {
  Bytes whole = make_tiny();
  const auto verify = [&]() -> std::string {
    try {
      Program::open(whole.data(), whole.count())->verify();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(verify() == "");
  for (uint32_t i = 0; i < whole.header().weights.count; ++i) {
    const Weight& weight = whole.at<Weight>(&Header::weights, i);
    const uint64_t start = whole.header().weights_offset + weight.offset;
    for (const uint64_t byte : {start, start + weight.bytes / 2, start + weight.bytes - 1}) {
      whole.data()[byte] ^= std::byte{0x10};
      const std::string name(&whole.at<char>(&Header::strings, weight.name.offset),
                             weight.name.bytes);
      CHECK(has(verify(), "weight " + name + " at offset " + std::to_string(start) + " has the"));
      whole.data()[byte] ^= std::byte{0x10};
    }
  }
}

TEST_CASE("metadata is a JSON object of strings") {
  const auto refuse_metadata = [](const std::string& metadata) {
    ProgramBuilder builder;
    add_tiny_entry(builder, add_tiny_weights(builder, {bve_f32p}), "main", 1);
    builder.metadata = metadata;
    Bytes bytes = builder.build();
    return refuse(bytes);
  };
  for (const char* good : {"{}", " {\n} ", R"({"a": "b"})", R"({"a":"\u00E4\n\\","":""})"}) {
    CHECK_MESSAGE(refuse_metadata(good) == "", good);
  }
  for (const char* bad : {"", "[]", "{", "{\"a\"}", "{\"a\": 1}", "{\"a\": \"b\",}", "{} x",
                          "{\"a\": \"\n\"}", "{\"a\": \"\\x\"}", "{\"a\": \"\\u12g4\"}",
                          "{\"a\": \"\\", "{\"a\": \"\xff\"}", "{\"a\": \"b"}) {
    CHECK_MESSAGE(has(refuse_metadata(bad), "metadata is no JSON object of strings at offset "),
                  bad);
  }
}

TEST_CASE(
    "each field of header, weights, entries and buffers is checked, and named with its offset") {
  struct Case {
    const char* expected;
    std::function<const void*(Bytes&)> damage;  // returns where
  };
  // damage(&field, value): sets it.
  const auto set = [](auto& field, auto value) -> const void* {
    field = static_cast<std::decay_t<decltype(field)>>(value);
    return &field;
  };
  const auto weight = [](Bytes& b, uint32_t i) -> Weight& {
    return b.at<Weight>(&Header::weights, i);
  };
  const auto entry = [](Bytes& b, uint32_t i) -> Entry& {
    return b.at<Entry>(&Header::entries, i);
  };
  const auto buffer = [](Bytes& b, uint32_t i) -> Buffer& {
    return b.at<Buffer>(&Header::buffers, i);
  };
  const std::vector<Case> cases = {
      {"weights_offset", [&](Bytes& b) { return set(b.header().weights_offset, 4097); }},
      {"weights_offset", [&](Bytes& b) { return set(b.header().weights_offset, 1ull << 63); }},
      {"weights_offset", [&](Bytes& b) { return set(b.header().weights_offset, 0); }},
      {"precision", [&](Bytes& b) { return set(b.header().precision, 3); }},
      {"strings.offset", [&](Bytes& b) { return set(b.header().strings.offset, 120); }},
      {"weights.offset", [&](Bytes& b) { return set(b.header().weights.offset, 132); }},
      {"ops.offset", [&](Bytes& b) { return set(b.header().ops.offset, ~7ull); }},
      {"ops.count", [&](Bytes& b) { return set(b.header().ops.count, 0xffffffff); }},
      {"ops.count", [&](Bytes& b) { return set(b.header().ops.count, 103); }},
      {"metadata.count", [&](Bytes& b) { return set(b.header().metadata.count, 1 << 20); }},
      {"buffers.reserved", [&](Bytes& b) { return set(b.header().buffers.reserved, 1); }},
      {"entries.count", [&](Bytes& b) { return set(b.header().entries.count, 0); }},
      {"weights[0].name.offset", [&](Bytes& b) { return set(weight(b, 0).name.offset, 1 << 30); }},
      {"weights[0].name.bytes", [&](Bytes& b) { return set(weight(b, 0).name.bytes, 0xffffffff); }},
      {"weights[1].name.bytes", [&](Bytes& b) { return set(weight(b, 1).name.bytes, 256); }},
      {"weights[2].type", [&](Bytes& b) { return set(weight(b, 2).type, 6); }},
      {"weights[2].rows", [&](Bytes& b) { return set(weight(b, 2).rows, 2); }},
      {"weights[7].rows", [&](Bytes& b) { return set(weight(b, 7).rows, 0); }},
      {"weights[7].columns", [&](Bytes& b) { return set(weight(b, 7).columns, kMaxDim + 1); }},
      {"weights[7].bytes",
       [&](Bytes& b) {
         weight(b, 7).columns += 1;
         return &weight(b, 7).bytes;
       }},
      {"weights[8].bytes",
       [&](Bytes& b) {
         weight(b, 8).type = WeightType::kF32;
         return &weight(b, 8).bytes;
       }},
      {"weights[3].offset", [&](Bytes& b) { return set(weight(b, 3).offset, 32); }},
      {"weights[3].offset", [&](Bytes& b) { return set(weight(b, 3).offset, ~63ull); }},
      {"weights[3].bytes",
       [&](Bytes& b) {
         weight(b, 3).offset = (b.count() - b.header().weights_offset) / 64 * 64;
         return &weight(b, 3).bytes;
       }},
      {"entries[0].keep", [&](Bytes& b) { return set(entry(b, 0).keep, 1.5f); }},
      {"entries[0].keep", [&](Bytes& b) { return set(entry(b, 0).keep, NAN); }},
      {"entries[0].keep", [&](Bytes& b) { return set(entry(b, 0).keep, 0.f); }},
      {"entries[1].keep", [&](Bytes& b) { return set(entry(b, 1).keep, 1.f); }},
      {"entries[1].keep", [&](Bytes& b) { return set(entry(b, 1).keep, 0.f); }},
      {"entries[1].keep", [&](Bytes& b) { return set(entry(b, 1).keep, -INFINITY); }},
      {"entries[1].first_op", [&](Bytes& b) { return set(entry(b, 1).first_op, 900); }},
      {"entries[1].first_buffer", [&](Bytes& b) { return set(entry(b, 1).first_buffer, 11); }},
      {"entries[0].ops", [&](Bytes& b) { return set(entry(b, 0).ops, 0xffffffff); }},
      {"entries[1].ops", [&](Bytes& b) { return set(entry(b, 1).ops, 18); }},
      {"entries[1].buffers", [&](Bytes& b) { return set(entry(b, 1).buffers, 14); }},
      {"entries[0].buffers", [&](Bytes& b) { return set(entry(b, 0).buffers, 1); }},
      {"entries[0].image_size", [&](Bytes& b) { return set(entry(b, 0).image_size, 0); }},
      {"entries[0].classes", [&](Bytes& b) { return set(entry(b, 0).classes, kMaxDim + 1); }},
      {"entries[1].reserved", [&](Bytes& b) { return set(entry(b, 1).reserved, 1); }},
      {"buffers[2].type", [&](Bytes& b) { return set(buffer(b, 2).type, 2); }},
      {"buffers[2].rows", [&](Bytes& b) { return set(buffer(b, 2).rows, 0); }},
      {"buffers[2].columns", [&](Bytes& b) { return set(buffer(b, 2).columns, kMaxDim + 1); }},
      {"buffers[14].reserved", [&](Bytes& b) { return set(buffer(b, 14).reserved, 1); }},
      {"buffers[2].rows",
       [&](Bytes& b) {
         buffer(b, 2).columns = kMaxDim;
         return set(buffer(b, 2).rows, kMaxDim);
       }},
      {"buffers[0].type",
       [&](Bytes& b) {
         buffer(b, 0).columns = 5;
         return &buffer(b, 0).type;
       }},
      {"buffers[1].type", [&](Bytes& b) { return set(buffer(b, 1).type, BufferType::kI32); }},
  };
  for (const Case& test : cases) {
    Bytes bytes = make_tiny();
    const auto end = bytes.header().weights_offset;
    const auto where = static_cast<const std::byte*>(test.damage(bytes)) - bytes.data();
    if (bytes.header().weights_offset == end) bytes.seal();
    const std::string expected = std::string(test.expected) + " at offset " + std::to_string(where);
    CHECK_MESSAGE(has(refuse(bytes), expected + " is "), expected << " in: " << refuse(bytes));
    CHECK(has(refuse(bytes), "; the file is damaged or was made by another program: export it"));
  }
}

// The fuzzer's seeds. `--no-skip -tc="seeds are written"` writes them anew where the format
// changed.
const std::string kCorpus = BVE_SOURCE_DIR "/tests/runtime/corpus/";

TEST_CASE("seeds are written" * doctest::skip()) {
  const auto put = [](const char* name, Bytes& bytes, size_t count) {
    std::ofstream file(kCorpus + name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(count));
    CHECK(file.good());
  };
  Bytes tiny = make_tiny();
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
    CHECK_MESSAGE(refuse_path((kCorpus + name).c_str()) == "", name);
  }
  CHECK(has(refuse_path((kCorpus + "bad_truncated.bve").c_str()), "it is truncated"));
  CHECK(has(refuse_path((kCorpus + "bad_version.bve").c_str()), "update bigvit-edge"));
}
