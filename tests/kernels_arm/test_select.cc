// The list, its names, and what is chosen from it.
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "kit.h"

namespace {

struct Row {
  std::string name;
  uint32_t isa;
};

template <typename List>
void append(std::vector<Row>& all, const List& list) {
  for (const auto& row : list) all.push_back({row.name, row.isa});
}

std::vector<Row> all_rows() {
  std::vector<Row> all;
  append(all, bve_list_gemms());
  append(all, bve_list_packs());
  append(all, bve_list_softmaxes());
  append(all, bve_list_keys());
  append(all, bve_list_values());
  append(all, bve_list_routes());
  append(all, bve_list_yuvs());
  append(all, bve_list_rgbs());
  append(all, bve_list_downs());
  append(all, bve_list_acrosses());
  return all;
}

const std::vector<std::pair<std::string, uint32_t>> kIsas = {
    {"scalar", bve_scalar},        {"neon", bve_neon},         {"neonfp16", bve_neonfp16},
    {"neondot", bve_neondot},      {"neoni8mm", bve_neoni8mm}, {"avx2", bve_avx2},
    {"avx512vnni", bve_avx512vnni}};

uint32_t isa_of(const std::string& name) {
  for (const auto& [known, bit] : kIsas)
    if (known == name) return bit;
  return ~0u;
}

std::string word(bve_type type) {
  return type == bve_f32 ? "f32" : type == bve_f16 ? "f16" : "qd8";
}

// bve_<op>_<types>_<tile>_<isa>[_<core>], as kernels_arm/README.md says.
struct Name {
  std::string op, types, tile, isa, core;
};

Name parse(const std::string& name) {
  static const std::regex grammar(
      "bve_(gemm|pack|softmax|keys|values|route|yuv|rgb|down|across)"
      "((?:_(?:f32|f16|u8|i16|qd8|qc8)p?){1,3})"
      "_(u[0-9]+|[0-9]+x[0-9]+(?:x[0-9]+)?)"
      "_(scalar|neon|neonfp16|neondot|neoni8mm|avx2|avx512vnni)(?:_(a55|a510))?");
  std::smatch match;
  if (!std::regex_match(name, match, grammar)) return {};
  return {match[1], match[2], match[3], match[4], match[5]};
}

}  // namespace

TEST_CASE("names follow the grammar and say what the row says") {
  std::set<std::string> seen;
  for (const Row& row : all_rows()) {
    CAPTURE(row.name);
    const Name name = parse(row.name);
    CHECK(!name.op.empty());
    CHECK(seen.insert(row.name).second);
    // neondot stands for neon too, and may say so or not.
    CHECK((isa_of(name.isa) & ~row.isa) == 0);
    CHECK((row.isa == 0) == (name.isa == "scalar"));
  }
  for (const auto& row : bve_list_gemms()) {
    CAPTURE(std::string(row.name));
    const Name name = parse(row.name);
    const bool is_int8 = row.packing == bve_qc8p4 || row.packing == bve_qc8p8;
    CHECK(name.op == "gemm");
    CHECK(name.types == "_f32_" + word(row.lhs.type) +
                            (is_int8                   ? "_qc8p"
                             : row.packing == bve_f16p ? "_f16p"
                                                       : "_f32p"));
    std::string tile = std::to_string(row.tile_rows) + "x" + std::to_string(row.tile_columns);
    if (is_int8) tile += "x" + std::to_string(bve_rhs_kr(row.packing));
    CHECK(name.tile == tile);
    CHECK(name.core == (row.core == bve_a55    ? "a55"
                        : row.core == bve_a510 ? "a510"
                                               : std::string()));
    CHECK(row.lhs.kr == bve_rhs_kr(row.packing));
    CHECK((row.lhs.type == bve_qd8) == is_int8);
    CHECK(row.lhs.mr >= 1);
    CHECK(row.tile_rows % row.lhs.mr == 0);  // a tile is of whole panels
  }
  for (const auto& row : bve_list_packs())
    CHECK(parse(row.name).types == "_" + word(row.type) + "_f32");
  for (const auto& row : bve_list_softmaxes())
    CHECK(parse(row.name).types == "_" + word(row.type) + "_f32");
}

TEST_CASE("the tables hold the rows of kernels.inc for this architecture, in its order") {
  std::ifstream file(BVE_SOURCE_DIR "/kernels_arm/kernels.inc");
  if (!file) {
    MESSAGE("skipped: no source tree at " BVE_SOURCE_DIR);
    return;
  }
#if defined(__x86_64__)
  const std::string mine = "__x86_64__";
#else
  const std::string mine = "__aarch64__";
#endif
  const std::vector<std::string> kinds = {"GEMM",  "PACK", "SOFTMAX", "KEYS", "VALUES",
                                          "ROUTE", "YUV",  "RGB",     "DOWN", "ACROSS"};
  std::vector<std::vector<std::string>> names(kinds.size());
  bool here = true;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("#if defined", 0) == 0) here = line.find(mine) != std::string::npos;
    if (line.rfind("#endif", 0) == 0) here = true;
    for (size_t kind = 0; here && kind < kinds.size(); kind++) {
      const std::string start = "BVE_" + kinds[kind] + "(";
      if (line.rfind(start, 0) == 0)
        names[kind].push_back(line.substr(start.size(), line.find(',') - start.size()));
    }
  }
  const auto check = [](const std::vector<std::string>& expected, const auto& list) {
    std::vector<std::string> got;
    for (const auto& row : list) got.push_back(row.name);
    CHECK(got == expected);
  };
  check(names[0], bve_list_gemms());
  check(names[1], bve_list_packs());
  check(names[2], bve_list_softmaxes());
  check(names[3], bve_list_keys());
  check(names[4], bve_list_values());
  check(names[5], bve_list_routes());
  check(names[6], bve_list_yuvs());
  check(names[7], bve_list_rgbs());
  check(names[8], bve_list_downs());
  check(names[9], bve_list_acrosses());
}

TEST_CASE("without instruction sets the scalar rows are chosen") {
  for (bve_packing packing : {bve_f32p, bve_f16p, bve_qc8p4, bve_qc8p8}) {
    CHECK(bve_select_gemm(packing, bve_scalar, bve_a55)->isa == bve_scalar);
    CHECK(bve_select_gemm(packing, bve_scalar, bve_a55)->packing == packing);
  }
  for (bve_type type : {bve_f32, bve_f16, bve_qd8}) {
    CHECK(bve_select_pack(type, bve_scalar)->isa == bve_scalar);
    CHECK(bve_select_pack(type, bve_scalar)->type == type);
    CHECK(bve_select_softmax(type, bve_scalar)->isa == bve_scalar);
  }
  CHECK(bve_select_keys(bve_scalar)->isa == bve_scalar);
  CHECK(bve_select_values(bve_scalar)->isa == bve_scalar);
  CHECK(bve_select_route(bve_scalar)->isa == bve_scalar);
  CHECK(bve_select_yuv(bve_scalar)->isa == bve_scalar);
  CHECK(bve_select_rgb(bve_scalar)->isa == bve_scalar);
  CHECK(bve_select_down(bve_scalar)->isa == bve_scalar);
  CHECK(bve_select_across(bve_scalar)->isa == bve_scalar);
}

TEST_CASE("for any set of instruction sets, a row that needs no other") {
  for (uint32_t isa = 0; isa < 64; isa++) {
    CAPTURE(isa);
    for (bve_core core : {bve_any_core, bve_a55, bve_a510})
      for (bve_packing packing : {bve_f32p, bve_f16p, bve_qc8p4, bve_qc8p8}) {
        const bve_gemm_row& row = *bve_select_gemm(packing, isa, core);
        CHECK((row.isa & ~isa) == 0);
        CHECK((row.core == bve_any_core || row.core == core));
        // There must be one to pack its left side.
        CHECK(bve_select_pack(row.lhs.type, isa)->type == row.lhs.type);
        CHECK(bve_select_softmax(row.lhs.type, isa)->type == row.lhs.type);
      }
    CHECK((bve_select_pack(bve_qd8, isa)->isa & ~isa) == 0);
    CHECK((bve_select_route(isa)->isa & ~isa) == 0);
  }
  CHECK(bve_prefer_packing(bve_neon | bve_neondot) == bve_qc8p4);
  CHECK(bve_prefer_packing(bve_neon | bve_neondot | bve_neoni8mm) == bve_qc8p8);
  CHECK(bve_prefer_packing(bve_avx2 | bve_avx512vnni) == bve_qc8p4);
}

#if defined(__x86_64__)
TEST_CASE("the last of several is chosen") {
  const uint32_t both = bve_avx2 | bve_avx512vnni;
  for (bve_packing packing : {bve_f32p, bve_f16p, bve_qc8p4}) {
    CHECK(bve_select_gemm(packing, bve_avx2, bve_any_core)->isa == bve_avx2);
    CHECK(bve_select_gemm(packing, both, bve_any_core)->isa == bve_avx512vnni);
  }
  CHECK(bve_select_pack(bve_qd8, bve_avx2)->isa == bve_avx2);
  CHECK(bve_select_pack(bve_qd8, both)->isa == bve_avx512vnni);
  CHECK(bve_select_pack(bve_f16, both)->isa == bve_scalar);
}
#else
TEST_CASE("the last of several is chosen, and before it the one for the core") {
  const uint32_t dot = bve_neon | bve_neonfp16 | bve_neondot, mm = dot | bve_neoni8mm;
  const auto core = [](bve_packing packing, uint32_t isa, bve_core c) {
    return bve_select_gemm(packing, isa, c)->core;
  };
  CHECK(bve_select_gemm(bve_qc8p4, bve_neon, bve_any_core)->isa == bve_neon);
  CHECK((bve_select_gemm(bve_qc8p4, dot, bve_any_core)->isa & bve_neondot));
  CHECK((bve_select_gemm(bve_qc8p8, mm, bve_any_core)->isa & bve_neoni8mm));
  CHECK((bve_select_gemm(bve_f16p, dot, bve_any_core)->isa & bve_neonfp16));
  CHECK(core(bve_qc8p4, dot, bve_a55) == bve_a55);
  CHECK(core(bve_qc8p4, dot, bve_any_core) == bve_any_core);
  CHECK(core(bve_qc8p4, bve_neon, bve_a55) == bve_any_core);
  CHECK(core(bve_qc8p8, mm, bve_a510) == bve_a510);
  CHECK(core(bve_qc8p8, mm, bve_any_core) == bve_any_core);
}
#endif

TEST_CASE("instruction sets by name") {
  char text[64];
  bve_name_isa(bve_scalar, text, sizeof text);
  CHECK(std::string(text) == "scalar");
  bve_name_isa(bve_neon | bve_neondot, text, sizeof text);
  CHECK(std::string(text) == "neon neondot");
  bve_name_isa(bve_neon | bve_neondot, text, 7);
  CHECK(std::string(text) == "neon n");
}

TEST_CASE("what is detected is what /proc/cpuinfo says") {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0 && line.rfind("Features", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    for (std::string flag; words >> flag;) flags.insert(flag);
    break;
  }
  const auto has = [&](std::initializer_list<const char*> all) {
    for (const char* flag : all)
      if (!flags.count(flag)) return false;
    return true;
  };
  uint32_t isa = 0;
#if defined(__x86_64__)
  if (has({"avx2", "fma", "f16c"})) isa |= bve_avx2;
  if (has({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"})) isa |= bve_avx512vnni;
#else
  if (!flags.count("asimd")) {
    MESSAGE("skipped: /proc/cpuinfo is another machine's, as under an emulator");
    return;
  }
  isa |= bve_neon;
  if (has({"fphp", "asimdhp"})) isa |= bve_neonfp16;
  if (has({"asimddp"})) isa |= bve_neondot;
  if (has({"i8mm"})) isa |= bve_neoni8mm;
#endif
  CHECK(bve_detect_isa() == isa);
}
