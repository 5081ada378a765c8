/* The part of QEMU's TCG-plugin ABI that the simulator uses, declared here
 * because Debian does not ship qemu-plugin.h.  API 4: QEMU 9.2 - 10.0. */
#ifndef QEMU_PLUGIN_H
#define QEMU_PLUGIN_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t plugin_id;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    struct { int smp_vcpus, max_vcpus; } system;
} plugin_info;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
struct qemu_plugin_scoreboard;
typedef uint32_t meminfo;
struct qemu_plugin_register;
typedef struct { uint8_t *data; unsigned len; } GByteArray; /* GLib's, which QEMU brings */
typedef struct { char *data; unsigned len; } GArray;
typedef struct { struct qemu_plugin_register *handle; const char *name, *feature; } register_descriptor;
enum { CB_NO_REGS, CB_R_REGS, CB_RW_REGS };
enum { MEM_R = 1, MEM_W, MEM_RW };
enum { INLINE_ADD_U64, INLINE_STORE_U64 };
enum { COND_NEVER, COND_ALWAYS, COND_EQ, COND_NE, COND_LT, COND_LE, COND_GT, COND_GE };

typedef void simple_cb(plugin_id);
typedef void udata_cb(plugin_id, void *);
typedef void vcpu_cb(plugin_id, unsigned vcpu);
typedef void exec_cb(unsigned vcpu, void *udata);
typedef void mem_cb(unsigned vcpu, meminfo, uint64_t vaddr, void *udata);
typedef void trans_cb(plugin_id, struct qemu_plugin_tb *);

void qemu_plugin_reset(plugin_id, simple_cb *);
void qemu_plugin_register_vcpu_init_cb(plugin_id, vcpu_cb *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, trans_cb *);
void qemu_plugin_register_atexit_cb(plugin_id, udata_cb *, void *);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, exec_cb *, int flags, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, exec_cb *, int flags, void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, mem_cb *, int flags, int rw, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(meminfo);
bool qemu_plugin_mem_is_store(meminfo);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(meminfo, uint64_t vaddr);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *);
typedef struct { struct qemu_plugin_scoreboard *score; size_t offset; } plugin_u64;
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *dest, size_t len);
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *, unsigned vcpu);
void qemu_plugin_register_vcpu_tb_exec_cond_cb(struct qemu_plugin_tb *, exec_cb *, int flags,
                                               int cond, plugin_u64, uint64_t imm, void *);
void qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(struct qemu_plugin_tb *, int op,
                                                       plugin_u64, uint64_t imm);
GByteArray *g_byte_array_new(void);
GByteArray *g_byte_array_set_size(GByteArray *, unsigned);
char *g_array_free(GArray *, int segment);
GArray *qemu_plugin_get_registers(void); /* of register_descriptor */
int qemu_plugin_read_register(struct qemu_plugin_register *, GByteArray *); /* appends; from callbacks with CB_R_REGS */
bool qemu_plugin_read_memory_vaddr(uint64_t address, GByteArray *, size_t length);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *, int op, plugin_u64, uint64_t imm);
#endif
