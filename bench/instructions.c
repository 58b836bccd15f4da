/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin of QEMU that counts instructions by function, for bench/instructions.py: "number name" at standard error. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* What it uses of qemu-plugin.h, version 1, without which Debian's qemu-user comes. */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
const char* qemu_plugin_insn_symbol(const struct qemu_plugin_insn*);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb*));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb*, int operation, void*, uint64_t);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void*), void*);

int qemu_plugin_version = 1;

enum { most = 1 << 14, add = 0 };
static struct {
  char name[256];
  uint64_t count;
} functions[most];
static int known;

static void count(qemu_plugin_id_t id, struct qemu_plugin_tb* block) {
  (void)id;
  const char* name = qemu_plugin_insn_symbol(qemu_plugin_tb_get_insn(block, 0));
  if (!name) name = "?";
  int i = 0;
  while (i < known && strncmp(functions[i].name, name, sizeof functions[i].name - 1)) ++i;
  if (i == known && known < most - 1) strncpy(functions[known++].name, name, sizeof functions[i].name - 1);
  qemu_plugin_register_vcpu_tb_exec_inline(block, add, &functions[i].count, qemu_plugin_tb_n_insns(block));
}

static void print(qemu_plugin_id_t id, void* nothing) {
  (void)id;
  (void)nothing;
  for (int i = 0; i < most; ++i)
    if (functions[i].count) fprintf(stderr, "%llu %s\n", (unsigned long long)functions[i].count, functions[i].name);
}

int qemu_plugin_install(qemu_plugin_id_t id, const void* info, int argc, char** argv) {
  (void)info;
  (void)argc;
  (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, count);
  qemu_plugin_register_atexit_cb(id, print, NULL);
  return 0;
}
