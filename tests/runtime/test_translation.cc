// Files of version 1: what they are taken for, and what is said of damaged ones.
#include <doctest/doctest.h>

#include <fstream>
#include <functional>

#include "program_builder.h"

namespace bve::test {
namespace {

std::string refuse(Bytes& bytes) {
  try {
    Program::open(bytes.data(), bytes.count());
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// As the program that wrote it left it.
std::vector<std::byte> read_former(const char* name) {
  std::ifstream file(std::string(BVE_SOURCE_DIR "/tests/runtime/files/") + name,
                     std::ios::binary | std::ios::ate);
  REQUIRE(file.good());
  std::vector<std::byte> bytes(static_cast<size_t>(file.tellg()));
  file.seekg(0).read(reinterpret_cast<char*>(bytes.data()),
                     static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

}  // namespace

TEST_CASE("a file of version 1 has the ports and arguments that it is said to have") {
  const std::vector<std::byte> file = read_former("version1_blvit_fp32.bve");
  Bytes bytes(file.data(), file.size());
  const auto program = Program::open(bytes.data(), bytes.count());
  CHECK(program->header().version == 1);
  for (const Entry& entry : program->entries()) {
    CHECK(program->image_size(entry) == 16);
    CHECK(program->classes(entry) == 5);
    CHECK(program->text(program->ports(entry)[0].name) == "image");
    CHECK(program->text(program->ports(entry)[1].name) == "logits");
    for (const Op& op : program->ops(entry)) {
      if (op.kind == OpKind::kMlp) CHECK(get<MlpArgs>(op).epsilon == 1e-6f);
      if (op.kind == OpKind::kLinear) CHECK(get<LinearArgs>(op).epsilon == 1e-6f);
    }
  }
  // Mapped as it is: nothing of the weights is copied.
  CHECK(program->weight_data(0) ==
        bytes.data() + bytes.header().weights_offset + program->weights()[0].offset);
  program->verify();
}

TEST_CASE("what version 1 has not is refused in its files, and named where it lies there") {
  const std::vector<std::byte> file = read_former("version1_blvit_fp32.bve");
  const auto damage = [&](const char* expected, const std::function<const void*(Bytes&)>& change) {
    Bytes bytes(file.data(), file.size());
    const auto where = static_cast<const std::byte*>(change(bytes)) - bytes.data();
    bytes.seal();
    const std::string met = refuse(bytes);
    CHECK_MESSAGE(has(met, expected + std::string(" at offset ") + std::to_string(where) + " is "),
                  met);
  };
  const auto find = [](Bytes& bytes, OpKind kind) {
    uint32_t i = 0;
    while (bytes.at<Op>(&Header::ops, i).kind != kind) i++;
    return i;
  };
  damage("entries[0].image_size", [](Bytes& b) {
    Entry& entry = b.at<Entry>(&Header::entries, 0);
    entry.first_port = 0;
    return &entry.first_port;
  });
  damage("ops[0].kind", [](Bytes& b) {
    Op& op = b.at<Op>(&Header::ops, 0);
    op.kind = OpKind::kRows;
    return &op.kind;
  });
  damage("weights[1].type", [](Bytes& b) {
    Weight& weight = b.at<Weight>(&Header::weights, 1);
    weight.type = WeightType::kRows;
    return &weight.type;
  });
  Bytes bytes(file.data(), file.size());
  const uint32_t mlp = find(bytes, OpKind::kMlp);
  damage(("ops[" + std::to_string(mlp) + "].args[8]").c_str(), [&](Bytes& b) {
    uint32_t& argument = b.at<Op>(&Header::ops, mlp).args[8];
    argument = 1;
    return &argument;
  });
  damage(("ops[" + std::to_string(mlp) + "].args[2], MLP's rows").c_str(), [&](Bytes& b) {
    uint32_t& argument = b.at<Op>(&Header::ops, mlp).args[2];
    argument = 60;
    return &argument;
  });
}

TEST_CASE("any flipped bit of version 1's tables is noticed") {
  const std::vector<std::byte> file = read_former("version1_vit_int8_dot.bve");
  Bytes whole(file.data(), file.size());
  for (size_t bit = 0; bit < whole.header().weights_offset * 8; bit += bit < 1024 ? 1 : 13) {
    whole.data()[bit / 8] ^= std::byte{1} << bit % 8;
    CHECK_MESSAGE(refuse(whole) != "", bit);
    whole.data()[bit / 8] ^= std::byte{1} << bit % 8;
  }
  CHECK(refuse(whole) == "");
}

}  // namespace bve::test
