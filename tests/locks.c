/* Queues of CNA by hand, for Python to look at the order in which they are served. */
#include "nb.h"
#include "nb_locks_numa.h"
#include <string.h>

/* Thread 0 holds the lock, the others, on these nodes, have queued in their order. `chances`: what each holder draws its patience from. Writes who held the lock after
 * whom; the number of them, or 0 where the lock is not free in the end. */
uint32_t serve(const uint32_t *nodes, uint32_t threads, const uint32_t *chances, uint32_t *order)
{
    static struct cna_node all[16];
    struct lock lock = {.wide = 0};
    uint32_t served = 0;
    memset(all, 0, sizeof all);
    cna_enter(&lock, &all[0], nodes[0]);
    for (uint32_t i = 1; i < threads; i++) { /* what cna_enter does before it waits */
        all[i].node = nodes[i];
        nb_cna(nb_swap(&lock.wide, (uintptr_t)&all[i]))->next = (uintptr_t)&all[i];
    }
    for (uint32_t holder = 0; holder < threads;) {
        all[holder].chance = chances[served];
        order[served++] = holder;
        cna_leave(&lock, &all[holder]);
        all[holder].spin = 0;
        for (holder = 0; holder < threads && !all[holder].spin; holder++)
            ;
    }
    return lock.wide ? 0 : served;
}
