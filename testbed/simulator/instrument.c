/* The plug-in itself: which of the guest's instructions call back, and how the guest switches the model. */
#include "simulator.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define USER_SPACE_END (1ull << 55) /* the kernel has the addresses whose first bits are ones */
#define SCOREBOARD 128 /* bytes per virtual CPU: struct counters in lines of its own */

EXPORT int qemu_plugin_version = 4;

struct cpu cpu[MOST_CPUS];
atomic_int on;
struct qemu_plugin_scoreboard *board;
__thread int me __attribute__((tls_model("initial-exec"))) = -1;
static plugin_id self;
static bool aarch64; /* the guest is; else x86-64 */

/* Pages of code (their addresses in this process) whose loads and stores call back: an open hash table. */
#define CODE_PAGES 4096
static _Atomic uintptr_t code_pages[CODE_PAGES];

static uintptr_t page_of(const struct qemu_plugin_insn *instruction)
{
    return (uintptr_t)qemu_plugin_insn_haddr(instruction) >> 12;
}

static bool modelled(uintptr_t page)
{
    for (size_t k = page; atomic_load(&code_pages[k % CODE_PAGES]); k++)
        if (code_pages[k % CODE_PAGES] == page)
            return true;
    return false;
}

static void model_page(uintptr_t page)
{
    for (size_t k = page;; k++) {
        uintptr_t free = 0;
        if (atomic_compare_exchange_strong(&code_pages[k % CODE_PAGES], &free, page) || free == page)
            return;
    }
}

static void *packed(struct form form)
{
    void *word;
    memcpy(&word, &form, sizeof word);
    return word;
}

static struct form unpacked(void *word)
{
    struct form form;
    memcpy(&form, &word, sizeof form);
    return form;
}

static void on_access(unsigned i, meminfo info, uint64_t address, void *word)
{
    const struct form form = unpacked(word);
    if (!atomic_load_explicit(&on, memory_order_relaxed) || !counters_of(i)->inside)
        return;
    if (aarch64)
        charge_exclusive(i);
    if (cpu[i].naming) {
        watch(i, address);
        return;
    }
    struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, address);
    bool write = qemu_plugin_mem_is_store(info);
    if (!where) {
        cpu[i].untranslated++;
        return;
    }
    if (qemu_plugin_hwaddr_is_io(where) || ((form.flags & (ATOMIC | EXCLUSIVE)) == ATOMIC && !write)) /* an atomic reports its read, then its write */
        return;
    uint64_t physical = qemu_plugin_hwaddr_phys_addr(where);
    int range = range_of(physical);
    if (range < 0)
        return;
    record_access(i, range, address, physical);
    if (machine.timed) {
        if (machine.levels)
            remember_page(i, address, physical);
        const struct access access = {.address = address, .physical = physical, .range = range, .bytes = 1 << qemu_plugin_mem_size_shift(info), .write = write || form.flags & EXCLUSIVE, .form = form};
        if (form.flags & EXCLUSIVE) {
            keep_exclusive(i, &access);
            return;
        }
        settle(i);
        access_memory(i, &access);
    }
}

/* A virtual CPU has executed SLICE instructions, or the model came on. */
static void on_slice(unsigned i, void *unused)
{
    (void)unused;
    if (!atomic_load(&on)) {
        counters_of(i)->executed = 0;
    } else if (cpu[i].armed) {
        settle(i);
        take_turn(i, QUANTUM);
    } else {
        trap_clock(i);
        counters_of(i)->executed = 0;
    }
}

static void on_clock_read(unsigned i, void *unused)
{
    (void)unused;
    if (!atomic_load(&on))
        return;
    charge_exclusive(i);
    trap_clock(i);
    settle(i);
    take_turn(i, 0);
}

/* An instruction without memory, on a machine whose accesses overlap. */
static void on_registers(unsigned i, void *word)
{
    if (!atomic_load_explicit(&on, memory_order_relaxed) || !counters_of(i)->inside)
        return;
    const struct form form = unpacked(word);
    if (form.flags & (FENCE | UNKNOWN))
        settle(i);
    pass_on(i, form);
}

static void on_pause(unsigned i, void *unused)
{
    (void)unused;
    if (!atomic_load(&on) || !counters_of(i)->inside)
        return;
    charge_exclusive(i);
    advance_clock(i, clock_of(i) + machine.pause);
}

static void on_store_exclusive(unsigned i, meminfo info, uint64_t address, void *word)
{
    forget_exclusive(i);
    on_access(i, info, address, word);
}

static void before_load_exclusive(unsigned i, void *unused)
{
    (void)unused;
    if (atomic_load(&on) && counters_of(i)->inside)
        charge_exclusive(i);
}

static void on_full_fence(unsigned i, void *unused)
{
    (void)unused;
    if (!atomic_load(&on) || !counters_of(i)->inside)
        return;
    settle(i);
    drain_stores(i);
}

static void install(plugin_id id);

/* Code that is to be timed and was translated without callbacks: translate everything anew (all virtual CPUs stop for it).
 * Happens some ten times after a boot, since programs' pages of code stay where they are. */
static void on_new_page(unsigned i, void *page)
{
    (void)i;
    if (!atomic_load(&on) || modelled((uintptr_t)page))
        return;
    model_page((uintptr_t)page);
    qemu_plugin_reset(self, install);
}

static void turn_on(void)
{
    empty_translation();
    for (int j = 0; j < machine.cpus; j++)
        forget_exclusive(j);
    if (machine.timed) {
        start_clocks();
        forget_overlap();
        if (machine.misses && !machine.levels)
            empty_caches();
    }
    atomic_store(&on, 1);
}

static void turn_off(int i)
{
    if (machine.timed) {
        settle(i);
        stop_clocks();
    }
    atomic_store(&on, 0);
    wake_ready();
    end_section();
}

static void on_switch(unsigned i, void *wanted)
{
    bool running = atomic_load(&on);
    switch ((uintptr_t)wanted) {
    case TURN_ON:
        if (!running)
            turn_on();
        break;
    case TURN_OFF:
        for (int j = 0; j < machine.cpus; j++)
            counters_of(j)->inside = 0;
        if (running)
            turn_off(i);
        break;
    case ENTER:
        counters_of(i)->inside = running;
        break;
    case LEAVE:
        charge_exclusive(i);
        counters_of(i)->inside = 0;
        break;
    case ENTER_ALL:
        for (int j = 0; j < machine.cpus; j++)
            counters_of(j)->inside = running;
        break;
    case WATCH:
        cpu[i].naming = running;
    }
}

/* Only a machine whose accesses overlap, or go past the caches, looks at more than a LOCK. */
static struct form form_of(const uint8_t *code)
{
    if (machine.timed && (machine.misses || machine.limited))
        return decode(code);
    int prefixes = 0; /* LOCK or XCHG behind operand-size and REX prefixes: one transaction */
    while (prefixes < 4 && (code[prefixes] == 0x66 || code[prefixes] >> 4 == 4))
        prefixes++;
    return (struct form){.flags = code[prefixes] == 0xf0 || (code[prefixes] & 0xfe) == 0x86 ? ATOMIC : 0};
}

static void instrument_aarch64(struct qemu_plugin_insn *instruction, enum arm_kind kind)
{
    const struct form form = {.flags = (kind == ARM_ACCESS ? 0 : ATOMIC) | (kind == ARM_LOAD_EXCLUSIVE ? EXCLUSIVE : 0)};
    exec_cb *before = kind == ARM_CLOCK_READ ? on_clock_read : kind == ARM_PAUSE ? on_pause : kind == ARM_LOAD_EXCLUSIVE ? before_load_exclusive : NULL;
    if (machine.timed && before)
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, before, CB_NO_REGS, NULL);
    qemu_plugin_register_vcpu_mem_cb(instruction, kind == ARM_STORE_EXCLUSIVE ? on_store_exclusive : on_access, CB_NO_REGS, MEM_RW, packed(form));
}

/* The number of the switch that an instruction is, or 0. */
static unsigned switch_of(const uint8_t *code, size_t length)
{
    uint32_t number;
    memcpy(&number, code + 3, sizeof number);
    if (aarch64)
        return arm_switch_of(code);
    return length == 7 && code[0] == 0x0f && code[1] == 0x1f && code[2] == 0x80 && number >> 8 == MAGIC >> 8 ? number & 255 : 0;
}

static void instrument(struct qemu_plugin_insn *instruction, const uint8_t *code, size_t length)
{
    const struct form form = form_of(code);
    if (machine.misses && (form.flags & (FENCE | UNKNOWN) || (form.target && !(form.flags & MEMORY))))
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_registers, CB_NO_REGS, packed(form));
    if (machine.timed && code[0] == 0x0f && (code[1] == 0x31 || (code[1] == 1 && code[2] == 0xf9)))
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_clock_read, CB_NO_REGS, NULL);
    else if (machine.timed && length == 2 && code[0] == 0xf3 && code[1] == 0x90)
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_pause, CB_NO_REGS, NULL);
    else if (machine.stores && code[0] == 0x0f && code[1] == 0xae && code[2] == 0xf0) /* MFENCE; sfence and lfence wait for no plain store */
        qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_full_fence, CB_NO_REGS, NULL);
    if (machine.timed && machine.levels)
        instrument_flush(instruction, code);
    qemu_plugin_register_vcpu_mem_cb(instruction, on_access, machine.tlbs ? CB_R_REGS : CB_NO_REGS, MEM_RW, packed(form));
}

static void on_translate(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(block);
    bool user = qemu_plugin_tb_vaddr(block) < USER_SPACE_END, timed_page = false;
    plugin_u64 executed = {board, offsetof(struct counters, executed)}, inside = {board, offsetof(struct counters, inside)};
    uintptr_t page = user ? page_of(qemu_plugin_tb_get_insn(block, 0)) : 0;
    timed_page = user && modelled(page);
    const bool each = timed_page && (machine.misses || machine.stores); /* where an access does not block it matters when in a block it is */
    if (machine.timed) {
        if (!each)
            qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(block, INLINE_ADD_U64, executed, n);
        qemu_plugin_register_vcpu_tb_exec_cond_cb(block, on_slice, CB_NO_REGS, COND_GE, executed, SLICE, NULL);
    }
    if (user && !timed_page)
        qemu_plugin_register_vcpu_tb_exec_cond_cb(block, on_new_page, CB_NO_REGS, COND_NE, inside, 0, (void *)page);
    for (size_t k = 0; user && k < n; k++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, k);
        uint8_t code[16] = {0};
        size_t length = qemu_plugin_insn_size(instruction);
        qemu_plugin_insn_data(instruction, code, sizeof code);
        if (each)
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, INLINE_ADD_U64, executed, 1);
        const unsigned wanted = switch_of(code, length);
        if (wanted) {
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_switch, CB_NO_REGS, (void *)(uintptr_t)wanted);
            model_page(page_of(instruction)); /* the loads behind it may name what to watch */
            timed_page = true;
        } else if (timed_page && aarch64)
            instrument_aarch64(instruction, arm_kind_of(code));
        else if (timed_page)
            instrument(instruction, code, length);
    }
}

static void on_cpu(plugin_id id, unsigned i) /* in virtual CPU i's own thread */
{
    (void)id;
    me = i, cpu[i].thread = syscall(SYS_gettid);
    atomic_store(&cpu[i].state, RUNNING);
    if (machine.tlbs)
        find_root(i);
}

static void at_exit(plugin_id id, void *unused)
{
    static const char *const names[] = {"accesses", "hits", "transfers", "loads", "waits", "sleeps", "stalls", "untranslated", "brought",
                                        "walks", "unread"};
    enum { COUNTERS = sizeof names / sizeof *names };
    (void)id, (void)unused;
    FILE *file = *machine.statistics ? fopen(machine.statistics, "w") : NULL;
    for (int k = 0; file && k < COUNTERS; k++) {
        uint64_t sum = 0;
        for (int i = 0; i < machine.cpus; i++)
            sum += (&cpu[i].accesses)[k];
        fprintf(file, "%s %llu\n", names[k], (unsigned long long)sum);
    }
    if (file)
        fclose(file);
}

static void install(plugin_id id)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv)
{
    const char *path = NULL;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "machine=", 8))
            path = argv[i] + 8;
        else if (!strncmp(argv[i], "statistics=", 11))
            snprintf(machine.statistics, sizeof machine.statistics, "%s", argv[i] + 11);
        else if (!strncmp(argv[i], "sections=", 9))
            snprintf(machine.sections, sizeof machine.sections, "%s", argv[i] + 9);
    if (!path || !configure(path) || !info->system_emulation || info->system.smp_vcpus != machine.cpus)
        return fprintf(stderr, "simulator: no usable machine=FILE for %d CPUs\n", info->system.smp_vcpus), -1;
    if (!prepare_memory() || !prepare_translation())
        return fprintf(stderr, "simulator: no memory for the model\n"), -1;
    prepare_record();
    board = qemu_plugin_scoreboard_new(SCOREBOARD);
    self = id, aarch64 = !strcmp(info->target_name, "aarch64");
    begin_clocks();
    qemu_plugin_register_vcpu_init_cb(id, on_cpu);
    install(id);
    return 0;
}
