/* The calling thread onto one CPU. */
#ifndef NB_PIN_H
#define NB_PIN_H
#include "nb.h"
#include <errno.h>
#include <string.h>

/* errno, or 0. A set as large as the CPU's number asks for: the fixed cpu_set_t ends at 1,023. */
static inline int32_t nb_pin(int32_t cpu)
{
    const size_t bits = 8 * sizeof(unsigned long), words = (size_t)cpu / bits + 1;
    unsigned long set[words];
    memset(set, 0, sizeof set);
    set[words - 1] = 1ul << (size_t)cpu % bits;
    return sched_setaffinity(0, sizeof set, (cpu_set_t *)set) ? errno : 0;
}
#endif
