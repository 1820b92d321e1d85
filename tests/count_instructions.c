// A TCG plugin of qemu: counts a 64-bit ARM program's executed instructions by class.
//
//   gcc -shared -fPIC -O2 -o count.so tests/count_instructions.c
//   qemu-aarch64 -plugin ./count.so,out=counts.txt PROGRAM ...
//
// and counts.txt has a line "class count" for each class. For the plugin interface's first version
// (qemu 4.2 to 8.2), whose header few packages have: what is used of it is declared here. Counts
// are exact for programs of one thread.
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
typedef void tb_translated(qemu_plugin_id_t id, struct qemu_plugin_tb* block);
typedef void at_exit(qemu_plugin_id_t id, void* data);
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, tb_translated* call);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn* insn, enum qemu_plugin_op,
                                                void* counter, uint64_t add);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, at_exit* call, void* data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb* block, size_t i);
const void* qemu_plugin_insn_data(const struct qemu_plugin_insn* insn);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

// In the order in which an instruction is tried. fmla: on vectors, single or half; smull: smull,
// smlal and sadalp, what int8 is multiplied with where there is no sdot.
enum { SDOT, SMMLA, FMLA, SMULL, LOAD, STORE, OTHER, CLASSES };
static const char* const names[CLASSES] = {"sdot", "smmla", "fmla", "smull",
                                           "load", "store", "other"};
static uint64_t counts[CLASSES];

static const struct {
  uint32_t mask, bits;
  int is;
} patterns[] = {
    {0xbfe0fc00, 0x0e809400, SDOT},   // by vector
    {0xbfc0f400, 0x0f80e000, SDOT},   // by element
    {0xffe0fc00, 0x4e80a400, SMMLA},  //
    {0xbfa0fc00, 0x0e20cc00, FMLA},   // by vector
    {0xbfe0fc00, 0x0e400c00, FMLA},   // halves, by vector
    {0xbf80f400, 0x0f801000, FMLA},   // by element
    {0xbfc0f400, 0x0f001000, FMLA},   // halves, by element
    {0xbf20fc00, 0x0e20c000, SMULL},  // smull
    {0xbf20fc00, 0x0e208000, SMULL},  // smlal
    {0xbf3ffc00, 0x0e206800, SMULL},  // sadalp
};

static bool bit(uint32_t code, int at) { return code >> at & 1; }

static int classify(uint32_t code) {
  for (size_t i = 0; i < sizeof patterns / sizeof *patterns; ++i) {
    if ((code & patterns[i].mask) == patterns[i].bits) return patterns[i].is;
  }
  if ((code & 0x0a000000) != 0x08000000) return OTHER;
  bool is_load = bit(code, 22);  // pairs, exclusives, and one to four whole vectors
  const uint32_t group = code >> 27 & 7;
  if (group == 3) {  // from beside the program counter, or with release or acquire
    is_load = !bit(code, 24) || (code >> 22 & 3) != 0;
  } else if (group == 7 && !bit(code, 26)) {  // one general register; atomics read as well
    is_load = (code >> 22 & 3) != 0 || (code & 0x01200c00) == 0x00200000;
  }
  return is_load ? LOAD : STORE;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  const size_t n = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < n; ++i) {
    struct qemu_plugin_insn* insn = qemu_plugin_tb_get_insn(block, i);
    uint32_t code;
    memcpy(&code, qemu_plugin_insn_data(insn), sizeof code);
    qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
                                               &counts[classify(code)], 1);
  }
}

static void finish(qemu_plugin_id_t id, void* out) {
  (void)id;
  for (int i = 0; i < CLASSES; ++i) {
    fprintf(out, "%s %llu\n", names[i], (unsigned long long)counts[i]);
  }
  fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id,
                                                               const qemu_info_t* info, int argc,
                                                               char** argv) {
  (void)info;
  FILE* out = argc == 1 && strncmp(argv[0], "out=", 4) == 0 ? fopen(argv[0] + 4, "w") : NULL;
  if (!out) {
    fprintf(stderr, "count_instructions: the counts need a file: -plugin LIBRARY,out=FILE\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finish, out);
  return 0;
}
