/* CLFLUSH and CLFLUSHOPT take a line out of all caches. QEMU executes them as no operation and says nothing of their address: it is worked out here,
 * from the instruction and the registers; where it lies is known from the CPU's last access to the page. */
#include "simulator.h"
#include <stdlib.h>
#include <string.h>

#define PAGES 65536u /* of virtual memory, that a CPU remembers: those near each other never take each other's place */
#define PAGE_SHIFT 12
#define REGISTERS 16
#define NONE REGISTERS

/* base + (index << scale) + displacement: it goes with the callback in the place of a pointer. */
union operand {
    struct { int32_t displacement; uint8_t base, index, scale; };
    void *packed;
};
_Static_assert(sizeof(union operand) == sizeof(void *), "an operand is packed into a pointer");

static struct page { uint64_t address, physical; } *pages[MOST_CPUS];
static struct qemu_plugin_register *handles[MOST_CPUS][REGISTERS];

void remember_page(int i, uint64_t address, uint64_t physical)
{
    if (!pages[i] && !(pages[i] = calloc(PAGES, sizeof **pages)))
        return;
    pages[i][(address >> PAGE_SHIFT) % PAGES] = (struct page){address >> PAGE_SHIFT, physical >> PAGE_SHIFT << PAGE_SHIFT};
}

static uint64_t value_of(int i, int number)
{
    static const char *const names[REGISTERS] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                 "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    static __thread GByteArray *value;
    uint64_t found = 0;
    if (number == NONE)
        return 0;
    if (!value) { /* the first time in this virtual CPU's thread */
        value = g_byte_array_new();
        for (int name = 0; name < REGISTERS; name++)
            handles[i][name] = find_register(names[name]);
    }
    g_byte_array_set_size(value, 0);
    if (handles[i][number] && qemu_plugin_read_register(handles[i][number], value) >= 8)
        memcpy(&found, value->data, sizeof found);
    return found;
}

static void on_flush(unsigned i, void *packed)
{
    const union operand o = {.packed = packed};
    if (!atomic_load(&on) || !counters_of(i)->inside)
        return;
    const uint64_t address = value_of(i, o.base) + (value_of(i, o.index) << o.scale) + (int64_t)o.displacement;
    const struct page *page = pages[i] ? &pages[i][(address >> PAGE_SHIFT) % PAGES] : NULL;
    if (!page || page->address != address >> PAGE_SHIFT) {
        cpu[i].untranslated++;
        return;
    }
    const uint64_t physical = page->physical + address % (1u << PAGE_SHIFT);
    settle(i);
    take_turn(i, 0);
    flush_line(line_of(range_of(physical), physical), clock_of(i));
}

/* 0F AE /7 with an address in memory, behind 66 for CLFLUSHOPT and a REX prefix. Relative to the instruction (no kernel does that) is not known. */
void instrument_flush(struct qemu_plugin_insn *instruction, const uint8_t *code)
{
    uint8_t rex = 0;
    code += *code == 0x66;
    if (*code >> 4 == 4)
        rex = *code++;
    const uint8_t form = code[2], mode = form >> 6, rm = form & 7;
    if (code[0] != 0x0f || code[1] != 0xae || (form >> 3 & 7) != 7 || mode == 3 || (mode == 0 && rm == 5))
        return;
    union operand o = {.packed = NULL};
    const uint8_t *at = code + 3;
    o.base = rm | (rex & 1) << 3, o.index = NONE;
    if (rm == 4) {
        const uint8_t sib = *at++;
        o.base = (sib & 7) | (rex & 1) << 3, o.index = (sib >> 3 & 7) | (rex & 2) << 2, o.scale = sib >> 6;
        o.index = o.index == 4 ? NONE : o.index;
    }
    if (rm == 4 && (o.base & 7) == 5 && mode == 0)
        o.base = NONE;
    if (mode == 1)
        o.displacement = (int8_t)*at;
    else if (mode == 2 || o.base == NONE)
        memcpy(&o.displacement, at, sizeof o.displacement);
    qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_flush, CB_R_REGS, o.packed);
}
