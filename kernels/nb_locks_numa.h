/* Locks that know which node a thread is on: the lock stays there for a while. */
#ifndef NB_LOCKS_NUMA_H
#define NB_LOCKS_NUMA_H
#include "nb_locks_queue.h"

#define NB_PASSES 64 /* hand-overs within a node before the others get the lock: what they wait for stays bounded (Dice, Marathe & Shavit 2012) */

/* Hierarchical backoff (Radovic & Hagersten 2003, HBO_GT_SD): the word names the holder's node. Waiters of that node try again after a hop, those of others after four, both
 * twice as long each time. Of a node only one tries from afar: it stops the others of its own at `stopped`. Who has failed from afar for long is angry: it tries as often as
 * a near one does, and stops the holder's node. */
#define HBO_FAR 4u
#define HBO_PATIENCE 16 /* tries from afar */

static inline uint32_t *hbo_stopped(uint8_t *nodes, uint64_t apart, uint32_t node) { return (uint32_t *)(nodes + node * apart); }

static inline void hbo_stop(uint8_t *nodes, uint64_t apart, uint32_t node, uint32_t yes)
{
    __atomic_store_n(hbo_stopped(nodes, apart, node), yes, __ATOMIC_RELAXED);
}

static __attribute__((noinline, unused)) void hbo_enter_slowly(struct lock *l, uint32_t node, uint8_t *nodes, uint64_t apart, uint64_t hop)
{
    uint32_t seen = 0, tries = 0, others = 0; /* others: node that this one has stopped, + 1 */
    for (;; seen = 0) {
        while (!others && nb_peek32(hbo_stopped(nodes, apart, node))) /* who is angry waits for nobody who is */
            nb_relax();
        if (nb_cas32_acquire(&l->word, &seen, node + 1))
            break;
        const uint32_t holder = seen - 1, far = holder != node;
        uint64_t first = far && !others ? HBO_FAR * hop : hop, delay = first;
        if (far)
            hbo_stop(nodes, apart, node, 1);
        while (seen && (seen - 1 == node) != far) { /* the holder is as far away as it was */
            delay = nb_back_off(delay, first);
            if (far && !others && ++tries >= HBO_PATIENCE) {
                others = seen;
                hbo_stop(nodes, apart, seen - 1, 1);
                first = delay = hop;
            }
            seen = 0;
            if (nb_cas32_acquire(&l->word, &seen, node + 1))
                break;
        }
        if (far)
            hbo_stop(nodes, apart, node, 0);
        if (!seen)
            break;
    }
    if (others)
        hbo_stop(nodes, apart, others - 1, 0);
}

/* A word for each node, `apart` bytes from the next; `own` is the one of this node. */
static inline void hbo_enter(struct lock *l, uint32_t node, const uint32_t *own, uint8_t *nodes, uint64_t apart, uint64_t hop)
{
    uint32_t seen = 0;
    if (nb_peek32(own) || !nb_cas32_acquire(&l->word, &seen, node + 1))
        hbo_enter_slowly(l, node, nodes, apart, hop);
}

static inline void hbo_leave(struct lock *l) { nb_store32_release(&l->word, 0); }

/* A node's own lock, and what its holder knows: whether the node has the global one, and how often it was passed on within the node. */
struct cohort {
    struct lock local;
    uint32_t owns, passes;
};

/* Lock cohorting with two ticket locks (Dice, Marathe & Shavit 2012): the global lock is passed on within a node. */
static inline void cohort_enter(struct lock *global, struct cohort *own, uint64_t hop)
{
    ticket_enter(&own->local, hop);
    if (!own->owns)
        ticket_enter(global, hop);
    own->owns = 1;
}

static inline void cohort_leave(struct lock *global, struct cohort *own)
{
    const uint32_t waiting = nb_peek32(&own->local.ticket.next) - own->local.ticket.serving;
    if (waiting < 2 || ++own->passes >= NB_PASSES) {
        own->owns = own->passes = 0;
        ticket_leave(global);
    }
    ticket_leave(&own->local);
}

/* A compact NUMA-aware lock (Dice & Kogan 2019, CNA): an MCS queue of which the holder moves those of other nodes into a second one until it finds one of its own. `spin` is 0 while
 * it waits, then 1, or the address of the first of the second queue, whose last one is its `last`. A holder puts the second queue in front again once in some NB_PASSES
 * hand-overs by chance, as patient as the cohort lock (theirs once in 65,536). */
struct cna_node {
    uint64_t next, spin, last;
    uint32_t node, chance;
};

static inline struct cna_node *nb_cna(uint64_t address) { return (struct cna_node *)(uintptr_t)address; }

static inline void cna_enter(struct lock *l, struct cna_node *me, uint32_t node)
{
    __atomic_store_n(&me->next, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&me->spin, 0, __ATOMIC_RELAXED);
    me->node = node;
    struct cna_node *before = nb_cna(nb_swap(&l->wide, (uintptr_t)me));
    if (!before) {
        __atomic_store_n(&me->spin, 1, __ATOMIC_RELAXED);
        return;
    }
    nb_store_release(&before->next, (uintptr_t)me);
    while (!nb_load_acquire(&me->spin))
        nb_relax();
}

/* The first behind the holder that is of its node; those before it go to the second queue. */
static inline struct cna_node *cna_near(struct cna_node *me)
{
    struct cna_node *first = nb_cna(nb_load_acquire(&me->next)), *last = first, *near;
    if (first->node == me->node)
        return first;
    for (; (near = nb_cna(nb_load_acquire(&last->next))); last = near)
        if (near->node == me->node) {
            if (me->spin > 1)
                __atomic_store_n(&nb_cna(nb_cna(me->spin)->last)->next, (uintptr_t)first, __ATOMIC_RELAXED);
            else
                __atomic_store_n(&me->spin, (uintptr_t)first, __ATOMIC_RELAXED);
            __atomic_store_n(&last->next, 0, __ATOMIC_RELAXED);
            nb_cna(me->spin)->last = (uintptr_t)last;
            return near;
        }
    return NULL;
}

static inline void cna_leave(struct lock *l, struct cna_node *me)
{
    struct cna_node *second = me->spin > 1 ? nb_cna(me->spin) : NULL, *near = NULL;
    if (!nb_load_acquire(&me->next)) {
        uint64_t last = (uintptr_t)me;
        if (nb_cas_release(&l->wide, &last, second ? second->last : 0)) {
            if (second)
                nb_store_release(&second->spin, 1);
            return;
        }
        nb_behind(&me->next);
    }
    me->chance = me->chance * 1664525 + 1013904223; /* Numerical Recipes' generator; its upper bits are the better ones */
    if (me->chance >> 16 & (NB_PASSES - 1) && (near = cna_near(me))) {
        nb_store_release(&near->spin, me->spin);
    } else if (second) {
        __atomic_store_n(&nb_cna(second->last)->next, me->next, __ATOMIC_RELAXED);
        nb_store_release(&second->spin, 1);
    } else {
        nb_store_release(&nb_cna(me->next)->spin, 1);
    }
}
#endif
