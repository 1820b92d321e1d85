// validate(): what the ops of an entry read and write, and whether their shapes agree.
#include <vector>

#include "validation.h"

namespace bve {
namespace {

enum Role : uint8_t {
  kNumber,  // any; the op's own check says more
  kCount,   // 1 to kMaxDim
  kFlag,    // 0 or 1
  kVector,  // weights, by type
  kMatrix,
  kPacked,
  kRead,  // float buffers
  kWrite,
  kModify,    // read and written
  kReadList,  // row lists
  kWriteList,
};

struct Parameter {
  const char* name;
  Role role;
  bool is_optional = false;
};

struct Signature {
  const char* name;
  Parameter parameters[16];  // up to the first without a name
};

// In the order of OpKind, and of core.h's arguments.
constexpr Signature kSignatures[] = {
    {"PATCHES", {{"image", kRead}, {"dst", kWrite}, {"patch", kCount}}},
    {"LIST", {{"dst", kWriteList}, {"value", kNumber}}},
    {"FILL", {{"matrix", kMatrix}, {"dst", kWrite}}},
    {"LINEAR",
     {{"src", kRead},
      {"src_rows", kReadList, true},
      {"rows", kCount},
      {"before", kNumber},
      {"gain", kVector, true},
      {"offset", kVector, true},
      {"linear", kPacked},
      {"first_column", kNumber},
      {"columns", kCount},
      {"dst", kWrite},  // kModify where it accumulates
      {"dst_first_row", kNumber},
      {"dst_first_column", kNumber},
      {"dst_rows", kReadList, true},
      {"gate", kRead, true},
      {"accumulate", kFlag}}},
    {"ATTENTION",
     {{"qkv", kRead}, {"queries", kCount}, {"heads", kCount}, {"dst", kWrite}, {"type", kNumber}}},
    {"ROUTE",
     {{"src", kRead},
      {"gain", kVector},
      {"offset", kVector},
      {"weight", kVector},
      {"bias", kVector},
      {"k", kCount},
      {"selected", kWriteList},
      {"skipped", kWriteList, true},
      {"gate", kWrite}}},
    {"MLP",
     {{"data", kModify},
      {"list", kReadList, true},
      {"rows", kCount},
      {"gain", kVector},
      {"offset", kVector},
      {"fc1", kPacked},
      {"fc2", kPacked},
      {"gate", kRead, true}}},
};

// What is known of a buffer after the ops so far.
struct State {
  bool is_written = false;
  uint32_t bound = 0;  // of a row list: its numbers are below
  // Stage + 1 in which a lane last did so; 0: never.
  uint32_t read_in[2] = {0, 0}, written_in[2] = {0, 0};
};

// One op, seen after those before it.
class OpValidator {
 public:
  OpValidator(const Subject& subject, const Entry& entry, std::vector<State>& states,
              uint32_t index)
      : subject_(subject),
        buffers_(subject.table<Buffer>(subject.header().buffers).first + entry.first_buffer),
        buffer_count_(entry.buffers),
        weights_(subject.table<Weight>(subject.header().weights)),
        states_(states),
        index_(index),
        op_(subject.table<Op>(subject.header().ops)[index]) {}

  void validate() {
    subject_.check_name(op_.name, "ops", index_);
    if (op_.kind > OpKind::kMlp)
      subject_.refuse(op_.kind, path_of("ops", index_, "kind"), "0 to 6");
    if (op_.lane > 1) subject_.refuse(op_.lane, path_of("ops", index_, "lane"), "0 or 1");
    if (op_.reserved != 0) subject_.refuse(op_.reserved, path_of("ops", index_, "reserved"), "0");
    for (const uint32_t& argument : op_.args) validate_argument(argument);
    for (const uint32_t& argument : op_.args) validate_access(argument);
    validate_shapes();
    for (const uint32_t& argument : op_.args) {
      if (writes(argument)) states_[argument].is_written = true;
    }
  }

 private:
  const Signature& signature() const { return kSignatures[static_cast<uint32_t>(op_.kind)]; }
  const Parameter& parameter(const uint32_t& argument) const {
    return signature().parameters[&argument - op_.args];
  }
  bool is_buffer(const uint32_t& argument) const {
    return parameter(argument).role >= kRead && argument != kNone;
  }
  bool reads(const uint32_t& argument) const {
    const Role role = parameter(argument).role;
    const bool accumulates = op_.kind == OpKind::kLinear && as<LinearArgs>().accumulate == 1;
    return is_buffer(argument) && ((role != kWrite && role != kWriteList) || accumulates);
  }
  bool writes(const uint32_t& argument) const {
    const Role role = parameter(argument).role;
    return is_buffer(argument) && role != kRead && role != kReadList;
  }
  const Buffer& buffer(uint32_t argument) const { return buffers_[argument]; }
  const Weight& weight(uint32_t argument) const { return weights_[argument]; }
  // The arguments in place, so that one can be named to need().
  template <typename Args>
  const Args& as() const {
    return *reinterpret_cast<const Args*>(op_.args);
  }

  // Throws Error unless it holds; the format is what was expected of the argument.
  [[gnu::format(printf, 4, 5)]] void need(bool holds, const uint32_t& argument, const char* format,
                                          ...) const {
    if (holds) return;
    char expected[256];
    va_list values;
    va_start(values, format);
    std::vsnprintf(expected, sizeof expected, format, values);
    va_end(values);
    const std::string place = "args[" + std::to_string(&argument - op_.args) + "], ";
    const char* const name = parameter(argument).name;
    subject_.refuse(
        argument, path_of("ops", index_, place + signature().name + "'s " + (name ? name : "end")),
        expected);
  }

  void validate_argument(const uint32_t& argument) const {
    const Parameter& expected = parameter(argument);
    if (expected.name == nullptr) return need(argument == 0, argument, "0");
    if (expected.is_optional && argument == kNone) return;
    const Role role = expected.role;
    if (role == kCount) need(argument >= 1, argument, "at least 1");
    if (role == kFlag) need(argument <= 1, argument, "0 or 1");
    if (role <= kFlag) return need(argument <= kMaxDim, argument, "at most %u", kMaxDim);
    if (role <= kPacked) {
      need(argument < weights_.count, argument, "a weight, of which there are %u", weights_.count);
      const WeightType type = weight(argument).type;
      if (role == kVector) need(type == WeightType::kVector, argument, "a weight of type vector");
      if (role == kMatrix) need(type == WeightType::kMatrix, argument, "a weight of type matrix");
      if (role == kPacked) need(type >= WeightType::kF32, argument, "a weight of a packed type");
      return;
    }
    need(argument < buffer_count_, argument, "a buffer, of which there are %u", buffer_count_);
    const bool is_list = role == kReadList || role == kWriteList;
    const Buffer& found = buffer(argument);
    need(is_list == (found.type == BufferType::kI32), argument, "a buffer of type %u", is_list);
    need(!is_list || found.rows == 1, argument, "a row list, of one row");
  }

  // That what it reads is there, and that neither this op nor the other lane gets in the way.
  void validate_access(const uint32_t& argument) {
    if (!is_buffer(argument)) return;
    State& state = states_[argument];
    const uint32_t now = op_.stage + 1u, other = 1u - op_.lane;
    if (reads(argument)) {
      need(state.is_written, argument, "a buffer that an op before it has written");
      state.read_in[op_.lane] = now;
    }
    if (writes(argument)) {
      need(argument != 0, argument, "another than buffer 0, the image, which stays as it is");
      for (const uint32_t& another : op_.args) {
        need(&another == &argument || !is_buffer(another) || another != argument, argument,
             "a buffer that is none of its other arguments");
      }
      need(state.read_in[other] != now, argument, "a buffer that lane %u of stage %u does not read",
           other, op_.stage);
      state.written_in[op_.lane] = now;
    }
    need(state.written_in[other] != now, argument,
         "a buffer that lane %u of stage %u does not write", other, op_.stage);
  }

  void validate_shapes() {
    switch (op_.kind) {
      case OpKind::kPatches:
        return validate_patches(as<PatchesArgs>());
      case OpKind::kList:
        return validate_list(as<ListArgs>());
      case OpKind::kFill:
        return validate_fill(as<FillArgs>());
      case OpKind::kLinear:
        return validate_linear(as<LinearArgs>());
      case OpKind::kAttention:
        return validate_attention(as<AttentionArgs>());
      case OpKind::kRoute:
        return validate_route(as<RouteArgs>());
      case OpKind::kMlp:
        return validate_mlp(as<MlpArgs>());
    }
  }

  void need_shape(const uint32_t& argument, uint32_t rows, uint32_t columns) const {
    const Buffer& found = buffer(argument);
    need(found.rows == rows && found.columns == columns, argument,
         "a buffer [%u, %u], and it is [%u, %u]", rows, columns, found.rows, found.columns);
  }
  void need_vector(const uint32_t& argument, uint32_t columns) const {
    need(weight(argument).columns == columns, argument, "a vector of %u, and it is one of %u",
         columns, weight(argument).columns);
  }
  // That `rows` rows of a buffer are there: the listed ones, or those from `first` on.
  void need_rows(const uint32_t& rows, const uint32_t& list, const uint32_t& data,
                 uint32_t first = 0) const {
    const uint32_t there = buffer(data).rows;
    if (list == kNone) {
      return need(first + rows <= there, rows, "at most %u, of its %s's rows from %u on",
                  there > first ? there - first : 0, parameter(data).name, first);
    }
    need(rows <= buffer(list).columns, rows, "at most %u, as its %s has", buffer(list).columns,
         parameter(list).name);
    need(states_[list].bound <= there, list,
         "a row list below %u, its %s's rows, and it is below %u", there, parameter(data).name,
         states_[list].bound);
  }
  void need_gate(const uint32_t& gate, uint32_t rows) const {
    if (gate == kNone) return;
    const Buffer& found = buffer(gate);
    need(found.rows == 1 && found.columns >= rows, gate,
         "a buffer [1, %u or more], and it is [%u, %u]", rows, found.rows, found.columns);
  }

  void validate_patches(const PatchesArgs& args) const {
    const Buffer& image = buffer(args.image);
    need(image.rows == 3 * image.columns, args.image, "a buffer [3 * size, size]");
    need(image.columns % args.patch == 0, args.patch, "a divisor of %u, the image's size",
         image.columns);
    const uint32_t side = image.columns / args.patch;
    need_shape(args.dst, side * side, 3 * args.patch * args.patch);
  }

  void validate_list(const ListArgs& args) {
    need_shape(args.dst, 1, 1);
    need(args.value < kMaxDim, args.value, "less than %u", kMaxDim);
    states_[args.dst].bound = args.value + 1;
  }

  void validate_fill(const FillArgs& args) const {
    need_shape(args.dst, weight(args.matrix).rows, weight(args.matrix).columns);
  }

  void validate_linear(const LinearArgs& args) const {
    const Weight& linear = weight(args.linear);
    const Buffer &src = buffer(args.src), &dst = buffer(args.dst);
    need(src.columns == linear.columns, args.linear,
         "a weight with %u columns, as its src has, and it has %u", src.columns, linear.columns);
    need_rows(args.rows, args.src_rows, args.src);
    need(args.before <= bve_gelu, args.before, "0, 1 or 2");
    for (const uint32_t* vector : {&args.gain, &args.offset}) {
      need((args.before == bve_layernorm) == (*vector != kNone), *vector,
           "a vector where before is 1, layernorm, and none elsewhere");
      if (*vector != kNone) need_vector(*vector, linear.columns);
    }
    need(args.first_column % BVE_PANEL == 0, args.first_column, "a multiple of %d", BVE_PANEL);
    need(args.first_column + args.columns <= linear.rows, args.columns,
         "with first_column at most %u, its linear's outputs", linear.rows);
    need(args.dst_rows == kNone || args.dst_first_row == 0, args.dst_first_row,
         "0 where there are dst_rows");
    need_rows(args.rows, args.dst_rows, args.dst, args.dst_first_row);
    need(args.dst_first_column + args.columns <= dst.columns, args.dst_first_column,
         "with columns at most %u, its dst's columns", dst.columns);
    need_gate(args.gate, args.rows);
  }

  void validate_attention(const AttentionArgs& args) const {
    const Buffer &qkv = buffer(args.qkv), &dst = buffer(args.dst);
    need(qkv.columns % 3 == 0, args.qkv, "a buffer of 3 * dim columns, and it has %u", qkv.columns);
    const uint32_t dim = qkv.columns / 3;
    need(dim % args.heads == 0, args.heads, "a divisor of dim, %u", dim);
    need_rows(args.queries, kNone, args.qkv);
    need_rows(args.queries, kNone, args.dst);
    need(dst.columns == dim, args.dst, "a buffer of %u columns, and it has %u", dim, dst.columns);
    need(args.type <= bve_qd8, args.type, "0, 1 or 2");
  }

  void validate_route(const RouteArgs& args) {
    const Buffer& src = buffer(args.src);
    for (const uint32_t* vector : {&args.gain, &args.offset, &args.weight}) {
      need_vector(*vector, src.columns);
    }
    need_vector(args.bias, 1);
    need(args.k <= src.rows, args.k, "at most %u, its src's rows", src.rows);
    need_shape(args.selected, 1, args.k);
    need_shape(args.gate, 1, args.k);
    states_[args.selected].bound = src.rows;
    need((args.skipped == kNone) == (args.k == src.rows), args.skipped,
         "a buffer where k, %u, is less than %u, its src's rows, and none elsewhere", args.k,
         src.rows);
    if (args.skipped == kNone) return;
    need_shape(args.skipped, 1, src.rows - args.k);
    states_[args.skipped].bound = src.rows;
  }

  void validate_mlp(const MlpArgs& args) const {
    const Weight &fc1 = weight(args.fc1), &fc2 = weight(args.fc2);
    const uint32_t width = buffer(args.data).columns;
    need_rows(args.rows, args.list, args.data);
    need_vector(args.gain, width);
    need_vector(args.offset, width);
    need(fc1.columns == width, args.fc1, "a weight with %u columns, and it has %u", width,
         fc1.columns);
    need(fc2.columns == fc1.rows, args.fc2, "a weight with %u columns, as fc1 has rows; it has %u",
         fc1.rows, fc2.columns);
    need(fc2.rows == width, args.fc2, "a weight with %u rows, and it has %u", width, fc2.rows);
    need_gate(args.gate, args.rows);
  }

  const Subject& subject_;
  const Buffer* const buffers_;
  const uint32_t buffer_count_;
  const Records<Weight> weights_;
  std::vector<State>& states_;
  const uint32_t index_;
  const Op& op_;
};

}  // namespace

void validate_ops(const Subject& subject, uint32_t index) {
  const Entry& entry = subject.table<Entry>(subject.header().entries)[index];
  const auto ops = subject.table<Op>(subject.header().ops);
  std::vector<State> states(entry.buffers);
  states[0].is_written = true;
  uint32_t stage = 0;
  for (uint32_t i = entry.first_op; i < entry.first_op + entry.ops; ++i) {
    if (ops[i].stage < stage) {
      subject.refuse(ops[i].stage, path_of("ops", i, "stage"),
                     "at least " + std::to_string(stage) + ", the stage of the op before it");
    }
    stage = ops[i].stage;
    OpValidator(subject, entry, states, i).validate();
  }
  if (!states[1].is_written) {
    subject.refuse(entry.ops, path_of("entries", index, "ops"),
                   "ops of which one writes buffer 1, the logits");
  }
}

}  // namespace bve
