/* The counter of the `contention` kernel with its twin, the memory around it, and every way to update and to read it; `c` is the case. */
#ifndef NB_PROTECTED_H
#define NB_PROTECTED_H
#include "nb.h"
#include "nb_locks.h"
#include "nb_locks_numa.h"
#include "nb_locks_rw.h"

#define LINE 256    /* apart: two 128-byte lines, so that no prefetcher couples neighbours */
#define OWN 4096    /* where the threads' parts begin */
#define PART_SHIFT 9
#define PART (1u << PART_SHIFT)
#define VERSIONS 64u /* of the data, for rcu: the last page of the buffer */

struct data { /* `twin` is twice the counter; the last two only in the stamped window */
    uint64_t counter, twin, released, holder;
    uint64_t pad[4];
};

struct lines { /* the measured buffer, in lines of their own; then the threads' parts */
    struct lock lock;
    uint8_t pad0[LINE - sizeof(struct lock)];
    struct data data;
    uint8_t pad1[LINE - sizeof(struct data)];
    uint64_t sequence;
    uint8_t pad2[LINE - 8];
    struct data *current;
    uint64_t latest;
    uint8_t pad3[LINE - 16];
    struct clh_node first;
    uint8_t pad4[LINE - sizeof(struct clh_node)];
    uint32_t groups;
};

struct part { /* a thread's, or a node's, or a CPU's */
    uint64_t counter;
    uint8_t pad0[56];
    struct clh_own clh;
    uint8_t pad1[192 - sizeof(struct clh_own)];
    union {
        struct mcs_node mcs;
        struct clh_node clh;
        uint8_t pad[64];
    } node;
    uint64_t seen;
    uint8_t pad2[56];
    struct cohort cohort;
    uint8_t pad3[128 - sizeof(struct cohort)];
};
_Static_assert(sizeof(struct part) == PART, "parts are as far apart as Python counts");

static inline struct part *part(struct lines *at, uint64_t i) { return (struct part *)((uint8_t *)at + OWN + i * PART); }

static inline uint64_t cas(uint64_t *counter)
{
    uint64_t seen = __atomic_load_n(counter, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(counter, &seen, seen + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return seen;
}

static inline uint64_t plain(struct data *d)
{
    uint64_t seen = __atomic_load_n(&d->counter, __ATOMIC_RELAXED);
    __atomic_store_n(&d->counter, seen + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&d->twin, 2 * (seen + 1), __ATOMIC_RELAXED);
    return seen;
}

/* One word before the section's work, the other after it: they fit if nobody has written meanwhile. */
static inline uint64_t look(const struct data *d, uint64_t section, uint64_t *torn)
{
    const uint64_t seen = __atomic_load_n(&d->counter, __ATOMIC_RELAXED), x = nb_work(seen, section);
    *torn += __atomic_load_n(&d->twin, __ATOMIC_RELAXED) != 2 * seen;
    return x;
}

static inline uint64_t own_increment(uint64_t *counter) /* of which nobody else writes */
{
    uint64_t seen = *counter;
    __atomic_store_n(counter, seen + 1, __ATOMIC_RELAXED);
    return seen;
}

static inline uint64_t sum(struct lines *at, uint64_t parts)
{
    uint64_t all = __atomic_load_n(&at->data.counter, __ATOMIC_RELAXED);
    for (uint64_t i = 0; i < parts; i++)
        all += __atomic_load_n(&part(at, i)->counter, __ATOMIC_RELAXED);
    return all;
}

static inline uint64_t parts_of(const struct nb_case *c) { return (c->buffer_bytes - OWN - OWN) / PART; }

/* A new version of the data in place of the current one; whoever holds the lock calls it. Once in half a ring it waits until nobody reads what is written next. */
static inline uint64_t publish(const struct nb_case *c, struct lines *at)
{
    const uint64_t next = at->latest + 1;
    struct data *new = (struct data *)(c->buffer + c->buffer_bytes - OWN) + next % VERSIONS;
    if (next % (VERSIONS / 2) == 0) {
        __atomic_thread_fence(__ATOMIC_SEQ_CST); /* with the one in rcu_back: who comes back sees this version, or is seen */
        for (uint32_t i = 0; i < c->threads; i++) {
            const uint64_t *seen = &part(at, i)->seen;
            for (uint64_t s; (s = __atomic_load_n(seen, __ATOMIC_ACQUIRE)) != NB_AWAY && s + VERSIONS / 2 < next;)
                nb_relax();
        }
    }
    const uint64_t was = at->current->counter;
    __atomic_store_n(&new->counter, was + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&new->twin, 2 * (was + 1), __ATOMIC_RELAXED);
    __atomic_store_n(&at->current, new, __ATOMIC_RELEASE);
    __atomic_store_n(&at->latest, next, __ATOMIC_RELEASE);
    return was;
}
#endif
