/* The calling thread onto one CPU, or two. */
#ifndef NB_PIN_H
#define NB_PIN_H
#include "nb.h"
#include <errno.h>
#include <string.h>

/* Lets it run on either. errno, or 0. A set as large as the CPUs' numbers ask for: the fixed cpu_set_t ends at 1,023. */
static inline int32_t nb_allow(int32_t cpu, int32_t other)
{
    const size_t bits = 8 * sizeof(unsigned long), words = (size_t)(cpu > other ? cpu : other) / bits + 1;
    unsigned long set[words];
    memset(set, 0, sizeof set);
    set[(size_t)cpu / bits] |= 1ul << (size_t)cpu % bits;
    set[(size_t)other / bits] |= 1ul << (size_t)other % bits;
    return sched_setaffinity(0, sizeof set, (cpu_set_t *)set) ? errno : 0;
}

static inline int32_t nb_pin(int32_t cpu) { return nb_allow(cpu, cpu); }
#endif
