/* Locks that know which node a thread is on: the lock stays there for a while. */
#ifndef NB_LOCKS_NUMA_H
#define NB_LOCKS_NUMA_H
#include "nb_locks.h"

#define NB_PASSES 64    /* hand-overs within a node before the others get the lock: what they wait for stays bounded (Dice, Marathe & Shavit 2012) */
#define NB_NEAR_DELAY 4 /* pauses between two tries while the holder is on this node ... */
#define NB_FAR_DELAY 64 /* ... and on another one */

/* Hierarchical backoff (Radovic & Hagersten 2003): the word names the holder's node; waiters of other nodes try less often. */
static inline void hbo_enter(struct lock *l, uint32_t node)
{
    uint32_t seen = 0;
    while (!__atomic_compare_exchange_n(&l->word, &seen, node + 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        for (int delay = seen == node + 1 ? NB_NEAR_DELAY : NB_FAR_DELAY; delay; delay--)
            nb_relax();
        seen = 0;
    }
}

static inline void hbo_leave(struct lock *l)
{
    __atomic_store_n(&l->word, 0, __ATOMIC_RELEASE);
}

/* A node's own lock, and what its holder knows: whether the node has the global one, and how often it was passed on within the node. */
struct cohort {
    struct lock local;
    uint32_t owns, passes;
};

/* Lock cohorting with two ticket locks (Dice, Marathe & Shavit 2012): the global lock is passed on within a node. */
static inline void cohort_enter(struct lock *global, struct cohort *own)
{
    ticket_enter(&own->local);
    if (!own->owns)
        ticket_enter(global);
    own->owns = 1;
}

static inline void cohort_leave(struct lock *global, struct cohort *own)
{
    const uint32_t waiting = __atomic_load_n(&own->local.ticket.next, __ATOMIC_RELAXED) - own->local.ticket.serving;
    if (waiting < 2 || ++own->passes >= NB_PASSES) {
        own->owns = own->passes = 0;
        ticket_leave(global);
    }
    ticket_leave(&own->local);
}
#endif
