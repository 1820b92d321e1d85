// What validate() says of ops: each case damages one op of the tiny program's second entry.
#include <doctest/doctest.h>

#include <functional>

#include "tiny_program.h"

using namespace bve;
using namespace bve::test;

namespace {

// The second entry's buffers, as add_tiny_entry numbers them.
enum : uint32_t {
  kImage,
  kLogits,
  kPatches,
  kX,
  kZ,
  kFirst,
  kSelected,
  kSkipped,
  kGate,
  kQkv,
  kMixed,
  kLittleQkv,
  kLittleMixed,
  kBuffers,
};

std::string refuse(Bytes& bytes) {
  bytes.seal();
  try {
    Program::open(bytes.data(), bytes.count());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Index in the ops table of the second entry's op of that name.
uint32_t find(Bytes& bytes, const std::string& name) {
  const Entry& entry = bytes.at<Entry>(&Header::entries, 1);
  for (uint32_t i = entry.first_op; i < entry.first_op + entry.ops; ++i) {
    const Text text = bytes.at<Op>(&Header::ops, i).name;
    const char* const first = &bytes.at<char>(&Header::strings, text.offset);
    if (std::string(first, text.bytes) == name) return i;
  }
  FAIL("there is no op " << name);
  return 0;
}

uint32_t find_weight(Bytes& bytes, const std::string& name) {
  for (uint32_t i = 0; i < bytes.header().weights.count; ++i) {
    const Text text = bytes.at<Weight>(&Header::weights, i).name;
    const char* const first = &bytes.at<char>(&Header::strings, text.offset);
    if (std::string(first, text.bytes) == name) return i;
  }
  FAIL("there is no weight " << name);
  return 0;
}

struct Case {
  const char* op;
  uint32_t argument;
  uint32_t value;
  const char* parameter;  // as it is called in the error
  const char* expected;
};

void check(const Case& test, uint32_t value) {
  Bytes bytes = make_tiny_program({bve_qc8p4});
  REQUIRE(refuse(bytes) == "");
  const uint32_t index = find(bytes, test.op);
  uint32_t& argument = bytes.at<Op>(&Header::ops, index).args[test.argument];
  argument = value;
  const auto offset = reinterpret_cast<std::byte*>(&argument) - bytes.data();
  const std::string expected = "ops[" + std::to_string(index) + "].args[" +
                               std::to_string(test.argument) + "], " + test.parameter +
                               " at offset " + std::to_string(offset) + " is " +
                               std::to_string(value) + ", expected " + test.expected;
  const std::string met = refuse(bytes);
  CHECK_MESSAGE(met.find(expected) != std::string::npos, expected << " in: " << met);
}

}  // namespace

TEST_CASE("arguments are in range, and buffers of the type and shape asked for") {
  const Case cases[] = {
      {"patches", 0, kX, "PATCHES's image", "a buffer that an op before it has written"},
      {"patches", 1, kX, "PATCHES's dst", "a buffer [4, 12], and it is [5, 16]"},
      {"patches", 1, kImage, "PATCHES's dst", "another than buffer 0"},
      {"patches", 1, kBuffers, "PATCHES's dst", "a buffer, of which there are 13"},
      {"patches", 2, 0, "PATCHES's patch", "at least 1"},
      {"patches", 2, 3, "PATCHES's patch", "a divisor of 4"},
      {"patches", 3, 1, "PATCHES's end", "0"},
      {"patches", 15, kNone, "PATCHES's end", "0"},
      {"positions", 0, 1000, "FILL's matrix", "a weight, of which there are 21"},
      {"positions", 1, kZ, "FILL's dst", "a buffer [5, 16], and it is [5, 8]"},
      {"first", 0, kX, "LIST's dst", "a buffer of type 1"},
      {"first", 0, kSelected, "LIST's dst", "a buffer [1, 1], and it is [1, 3]"},
      {"first", 1, kMaxDim, "LIST's value", "less than 65536"},
      {"q", 0, kNone, "LINEAR's src", "a buffer, of which there are 13"},
      {"q", 1, kX, "LINEAR's src_rows", "a buffer of type 1"},
      {"q", 1, kFirst, "LINEAR's src_rows", "a buffer that an op before it has written"},
      {"q", 2, 0, "LINEAR's rows", "at least 1"},
      {"q", 2, 4, "LINEAR's rows", "at most 3, as its src_rows has"},
      {"shrink", 2, 6, "LINEAR's rows", "at most 5, of its src's rows from 0 on"},
      {"q", 3, 3, "LINEAR's before", "0, 1 or 2"},
      {"q", 4, kNone, "LINEAR's gain", "a vector where before is 1"},
      {"shrink", 5, 0, "LINEAR's offset", "a vector where before is 1, layernorm, and none"},
      {"q", 7, 8, "LINEAR's first_column", "a multiple of 16"},
      {"q", 8, 49, "LINEAR's columns", "with first_column at most 48"},
      {"kv", 8, 33, "LINEAR's columns", "with first_column at most 48"},
      {"kv", 11, 17, "LINEAR's dst_first_column", "with columns at most 48"},
      {"kv", 11, kNone, "LINEAR's dst_first_column", "at most 65536"},
      {"project", 10, 1, "LINEAR's dst_first_row", "0 where there are dst_rows"},
      {"project", 13, kLogits, "LINEAR's gate", "a buffer that an op before it has written"},
      {"project", 13, kZ, "LINEAR's gate", "a buffer [1, 3 or more], and it is [5, 8]"},
      {"project", 14, 2, "LINEAR's accumulate", "0 or 1"},
      {"attention", 0, kX, "ATTENTION's qkv", "a buffer of 3 * dim columns, and it has 16"},
      {"attention", 1, 6, "ATTENTION's queries", "at most 5, of its qkv's rows from 0 on"},
      {"attention", 1, 4, "ATTENTION's queries", "at most 3, of its dst's rows from 0 on"},
      {"attention", 2, 3, "ATTENTION's heads", "a divisor of dim, 16"},
      {"attention", 4, 3, "ATTENTION's type", "0, 1 or 2"},
      {"route", 5, 6, "ROUTE's k", "at most 5, its src's rows"},
      {"route", 6, kX, "ROUTE's selected", "a buffer of type 1"},
      {"route", 6, kSkipped, "ROUTE's selected", "a buffer that is none of its other arguments"},
      {"route", 7, kNone, "ROUTE's skipped", "a buffer where k, 3, is less than 5"},
      {"route", 7, kFirst, "ROUTE's skipped", "a buffer [1, 2], and it is [1, 1]"},
      {"mlp", 1, kGate, "MLP's list", "a buffer of type 1"},
      {"mlp", 2, 4, "MLP's rows", "at most 3, as its list has"},
      {"little.mlp", 2, 6, "MLP's rows", "at most 5, of its data's rows from 0 on"},
      {"attention", 3, kLittleMixed, "ATTENTION's dst", "a buffer of 16 columns, and it has 8"},
  };
  for (const Case& test : cases) check(test, test.value);
}

TEST_CASE("arguments fit each other") {
  // What is refused is another argument than the one that is changed.
  const Case cases[] = {
      {"embed", 10, 2, "LINEAR's rows", "at most 3, of its dst's rows from 2 on"},
      {"keys_values", 10, 4, "LINEAR's rows", "at most 1, of its dst's rows from 4 on"},
      {"project", 12, kSkipped, "LINEAR's rows", "at most 2, as its dst_rows has"},
      {"q", 0, kZ, "LINEAR's linear", "a weight with 8 columns, as its src has, and it has 16"},
      {"q", 3, bve_gelu, "LINEAR's gain", "a vector where before is 1, layernorm, and none"},
      {"q", 7, 48, "LINEAR's columns", "with first_column at most 48"},
      {"q", 14, 1, "LINEAR's dst", "a buffer that an op before it has written"},
      {"up", 0, kX, "LINEAR's dst", "a buffer that is none of its other arguments"},
      {"mlp", 0, kMixed, "MLP's list", "a row list below 3, its data's rows, and it is below 5"},
      {"mlp", 7, kX, "MLP's data", "a buffer that is none of its other arguments"},
      {"route", 5, 2, "ROUTE's selected", "a buffer [1, 2], and it is [1, 3]"},
  };
  for (const Case& test : cases) {
    Bytes bytes = make_tiny_program({bve_qc8p4});
    bytes.at<Op>(&Header::ops, find(bytes, test.op)).args[test.argument] = test.value;
    const std::string met = refuse(bytes);
    CHECK_MESSAGE(met.find(std::string(test.parameter) + " at offset") != std::string::npos, met);
    CHECK_MESSAGE(met.find(std::string("expected ") + test.expected) != std::string::npos, met);
  }
}

TEST_CASE("weights are of the type and shape asked for") {
  struct {
    const char* op;
    uint32_t argument;
    const char* weight;
    const char* parameter;
    const char* expected;
  } const cases[] = {
      {"positions", 0, "embed", "FILL's matrix", "a weight of type matrix"},
      {"q", 6, "positions", "LINEAR's linear", "a weight of a packed type"},
      {"q", 4, "qkv", "LINEAR's gain", "a weight of type vector"},
      {"q", 5, "gain8", "LINEAR's offset", "a vector of 16, and it is one of 8"},
      {"q", 6, "up", "LINEAR's linear", "a weight with 16 columns, as its src has, and it has 8"},
      {"route", 3, "gain16", "ROUTE's weight", "a vector of 8, and it is one of 16"},
      {"route", 4, "gain8", "ROUTE's bias", "a vector of 1, and it is one of 8"},
      {"mlp", 3, "gain8", "MLP's gain", "a vector of 16"},
      {"mlp", 5, "little_fc1", "MLP's fc1", "a weight with 16 columns, and it has 8"},
      {"mlp", 6, "head", "MLP's fc2", "a weight with 20 columns, as fc1 has rows; it has 16"},
  };
  for (const auto& test : cases) {
    Bytes bytes = make_tiny_program({bve_qc8p4});
    check({test.op, test.argument, 0, test.parameter, test.expected},
          find_weight(bytes, test.weight));
  }
  // [20, 16], then [48, 20] instead of [16, 20].
  ProgramBuilder builder;
  TinyWeights weights = add_tiny_weights(builder, {bve_f32p});
  weights.fc2 = builder.add_linear("wide", bve_f32p, 48, 20, std::vector<float>(48 * 20), {});
  add_tiny_entry(builder, weights, "main", 1);
  Bytes bytes = builder.build();
  CHECK(refuse(bytes).find("expected a weight with 16 rows, and it has 48") != std::string::npos);
}

TEST_CASE("an image has three channels, and a row list one row") {
  Bytes bytes = make_tiny_program({bve_f32p});
  const uint32_t first = bytes.at<Entry>(&Header::entries, 1).first_buffer;
  bytes.at<Buffer>(&Header::buffers, first + kSelected).rows = 2;
  CHECK(refuse(bytes).find("expected a row list, of one row") != std::string::npos);

  ProgramBuilder builder;
  const uint32_t matrix = builder.add_matrix("matrix", 4, 4, std::vector<float>(16));
  builder.start_entry("main", 0, 4, 4);
  const uint32_t square = builder.add_buffer(4, 4), patches = builder.add_buffer(4, 12);
  builder.add_op("fill", 0, 0, FillArgs{matrix, square});
  builder.add_op("patches", 0, 0, PatchesArgs{square, patches, 2});
  Bytes other = builder.build();
  CHECK(refuse(other).find("PATCHES's image at offset") != std::string::npos);
}

TEST_CASE("row lists stay below the rows they are used on") {
  // 5, where x has the rows 0 to 4.
  Bytes bytes = make_tiny_program({bve_f32p});
  bytes.at<Op>(&Header::ops, find(bytes, "first")).args[1] = 5;
  CHECK(refuse(bytes).find("expected a row list below 5, its src's rows, and it is below 6") !=
        std::string::npos);
  bytes.at<Op>(&Header::ops, find(bytes, "first")).args[1] = 4;
  CHECK(refuse(bytes) == "");
  // The tokens of x, on the three rows of attention's output.
  bytes.at<Op>(&Header::ops, find(bytes, "project")).args[1] = kSelected;
  CHECK(refuse(bytes).find("LINEAR's src_rows at offset") != std::string::npos);
}

TEST_CASE("lanes of a stage are independent, and stages in order") {
  const auto refuse_with = [](const char* name, const std::function<void(Op&)>& damage) {
    Bytes bytes = make_tiny_program({bve_f32p});
    damage(bytes.at<Op>(&Header::ops, find(bytes, name)));
    return refuse(bytes);
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(refuse_with("positions", [](Op& op) { op.lane = 1; }) == "");
  CHECK(has(refuse_with("kv", [](Op& op) { op.lane = 1; }),
            "a buffer that lane 0 of stage 4 does not write"));  // both write qkv
  CHECK(has(refuse_with("embed", [](Op& op) { op.stage = 0, op.lane = 1; }),
            "a buffer that lane 0 of stage 0 does not write"));  // embed reads and writes x
  CHECK(has(refuse_with("route", [](Op& op) { op.stage = 2, op.lane = 1; }),
            "a buffer that lane 0 of stage 2 does not write"));  // route reads z
  CHECK(has(refuse_with("little.qkv", [](Op& op) { op.args[9] = kX; }),
            "a buffer that lane 0 of stage 4 does not read"));  // q and kv read x
  CHECK(has(refuse_with("down", [](Op& op) { op.stage = 10; }),
            "a buffer that lane 0 of stage 10 does not read"));  // down accumulates on z
  CHECK(has(refuse_with("little.attention", [](Op& op) { op.stage = 4; }),
            "is 4, expected at least 5, the stage of the op before it"));
  CHECK(has(refuse_with("q", [](Op& op) { op.lane = 2; }), "].lane at offset"));
  CHECK(has(refuse_with("q", [](Op& op) { op.reserved = 1; }), "].reserved at offset"));
  CHECK(
      has(refuse_with("q", [](Op& op) { op.kind = static_cast<OpKind>(7); }), "].kind at offset"));
  CHECK(has(refuse_with("q", [](Op& op) { op.name.offset = 1 << 30; }), "].name.offset at offset"));
}

TEST_CASE("the logits are written, and nothing is read before that") {
  ProgramBuilder builder;
  const uint32_t row = builder.add_matrix("row", 1, 2, {1, 2});
  builder.start_entry("main", 0, 1, 2);
  const uint32_t other = builder.add_buffer(1, 2);
  builder.add_op("fill", 0, 0, FillArgs{row, other});
  Bytes bytes = builder.build();
  CHECK(refuse(bytes).find("entries[0].ops at offset") != std::string::npos);
  bytes.at<Op>(&Header::ops, 0).args[1] = 1;
  CHECK(refuse(bytes) == "");
}
