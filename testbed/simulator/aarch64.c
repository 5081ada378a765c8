/* aarch64: what an instruction is, and exclusive pairs.
 *
 * A pair (ldxr, stxr) moves its line once, as an atomic instruction does: it is charged when its store is executed. Between the two no time passes, so that no
 * other virtual CPU comes between them. Where no store follows (a failed compare), the load is charged by itself, as a failed compare-and-swap is, before anything
 * else that the CPU does with memory, clock or pause. */
#include "simulator.h"
#include <string.h>

static struct {
    struct access access;
    bool pending;
} exclusive[MOST_CPUS];

static uint32_t word_of(const uint8_t *code)
{
    uint32_t word;
    memcpy(&word, code, sizeof word);
    return word;
}

unsigned arm_switch_of(const uint8_t *code)
{
    const uint32_t word = word_of(code);
    return (word & 0xffe0001f) == 0xd2e0001f && (word >> 13 & 0xff) == ARM_MAGIC ? word >> 5 & 0xff : 0; /* movz xzr, #MAGIC n, lsl #48 */
}

enum arm_kind arm_kind_of(const uint8_t *code)
{
    const uint32_t word = word_of(code);
    if ((word & 0xffffff60) == 0xd53be040) /* mrs x, cntvct_el0 or, in order, cntvctss_el0 */
        return ARM_CLOCK_READ;
    if (word == 0xd503203f || (word & 0xfffff0ff) == 0xd50330df) /* yield, isb */
        return ARM_PAUSE;
    if ((word & 0x3f000000) == 0x08000000) { /* exclusive, ordered or compare-and-swap */
        bool ordered = word >> 23 & 1, load = word >> 22 & 1, pair = word >> 21 & 1;
        if (ordered)
            return pair ? ARM_ATOMIC : ARM_ACCESS; /* cas; ldar, stlr */
        if (pair && !(word >> 31))
            return ARM_ATOMIC; /* casp */
        return load ? ARM_LOAD_EXCLUSIVE : ARM_STORE_EXCLUSIVE;
    }
    if ((word & 0x3f200c00) == 0x38200000 && (word >> 12 & 15) != 12) /* ldadd and its like, swp; 12: ldapr, a load */
        return ARM_ATOMIC;
    return ARM_ACCESS;
}

void keep_exclusive(int i, const struct access *access)
{
    exclusive[i].access = *access;
    exclusive[i].pending = true;
}

void forget_exclusive(int i)
{
    exclusive[i].pending = false;
}

void charge_exclusive(int i)
{
    if (!exclusive[i].pending)
        return;
    exclusive[i].pending = false;
    settle(i);
    access_memory(i, &exclusive[i].access);
}
