/* The counter of the `contention` kernel with its twin, the memory around it, and every way to update and to read it; `c` is the case. */
#ifndef NB_PROTECTED_H
#define NB_PROTECTED_H
#include "nb.h"
#include "nb_locks.h"
#include "nb_locks_numa.h"
#include "nb_locks_queue.h"
#include "nb_locks_rw.h"

enum { PRIMITIVE, SECTION, THINK, READS, HOP, PRICE, PART }; /* parameters */

/* The measured buffer: HOME parts with what all share, then a part for each thread, node or CPU (which, is the primitive's affair), on its own node. Parts are pages:
 * memory is bound by pages. */
#define HOME 22u
#define VERSIONS 64u /* of the data, for rcu: behind the first two parts */

struct data { /* `twin` is twice the counter; `left` is the counter that a stamped holder left behind, `released` when */
    uint64_t counter, twin, released, left;
};

struct version {
    struct data data;
    uint8_t pad[NB_APART_ODD - sizeof(struct data)];
};

struct lines { /* the first two parts */
    struct lock lock;
    uint8_t pad0[NB_APART - sizeof(struct lock)];
    struct data data;
    uint8_t pad1[NB_APART - sizeof(struct data)];
    uint64_t sequence;
    uint8_t pad2[NB_APART - 8];
    struct data *current;
    uint64_t latest;
    uint8_t pad3[NB_APART - 16];
    struct clh_node first;
    uint8_t pad4[NB_APART - sizeof(struct clh_node)];
    uint32_t groups;
};

struct part {
    uint64_t counter;
    uint8_t pad0[NB_APART - 8];
    union {
        struct queue_node queue;
        struct clh_own clh;
        struct word_node word;
        struct cna_node cna;
        struct cohort cohort;
        uint32_t stopped;
        uint64_t seen;
        uint8_t pad1[NB_APART];
    };
    struct clh_node node; /* CLH's migrate: a thread ends up with the node of another */
};
_Static_assert(sizeof(struct lines) <= 8192 && VERSIONS * sizeof(struct version) <= (HOME - 2) * 4096 && sizeof(struct part) <= 4096, "parts of a page are large enough");

static inline uint64_t part_bytes(const struct nb_case *c) { return (uint64_t)c->parameter[PART]; }
static inline struct part *part(void *at, uint64_t i, uint64_t bytes) { return (struct part *)((uint8_t *)at + (HOME + i) * bytes); }
static inline uint64_t parts_of(const struct nb_case *c) { return c->buffer_bytes / part_bytes(c) - HOME; }
static inline struct data *version(const struct nb_case *c, uint64_t number) { return &((struct version *)(c->buffer + 2 * part_bytes(c)))[number % VERSIONS].data; }

static inline uint64_t cas(uint64_t *counter)
{
    uint64_t seen = nb_peek(counter);
    while (!nb_cas_relaxed(counter, &seen, seen + 1))
        ;
    return seen;
}

static inline uint64_t plain(struct data *d)
{
    uint64_t seen = nb_peek(&d->counter);
    __atomic_store_n(&d->counter, seen + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&d->twin, 2 * (seen + 1), __ATOMIC_RELAXED);
    return seen;
}

/* One word before the section's work, the other after it: they fit if nobody has written meanwhile. */
static inline uint64_t look(const struct data *d, uint64_t section, uint64_t *torn)
{
    const uint64_t seen = nb_peek(&d->counter), x = nb_work(seen, section);
    *torn += nb_peek(&d->twin) != 2 * seen;
    return x;
}

static inline uint64_t own_increment(uint64_t *counter) /* of which nobody else writes */
{
    uint64_t seen = nb_peek(counter);
    __atomic_store_n(counter, seen + 1, __ATOMIC_RELAXED);
    return seen;
}

static inline uint64_t sum(struct lines *at, uint64_t parts, uint64_t bytes)
{
    uint64_t all = nb_peek(&at->data.counter);
    for (uint64_t i = 0; i < parts; i++)
        all += nb_peek(&part(at, i, bytes)->counter);
    return all;
}

/* A new version of the data in place of the current one; whoever holds the lock calls it. Once in half a ring it waits until nobody reads what is written next. */
static inline uint64_t publish(const struct nb_case *c, struct lines *at)
{
    const uint64_t next = at->latest + 1;
    struct data *new = version(c, next);
    if (next % (VERSIONS / 2) == 0) {
        nb_full_fence(); /* with the one in rcu_back: who comes back sees this version, or is seen */
        for (uint32_t i = 0; i < c->threads; i++) {
            const uint64_t *seen = &part(at, i, part_bytes(c))->seen;
            for (uint64_t s; (s = nb_load_acquire(seen)) != NB_AWAY && s + VERSIONS / 2 < next;)
                nb_relax();
        }
    }
    const uint64_t was = at->current->counter;
    __atomic_store_n(&new->counter, was + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&new->twin, 2 * (was + 1), __ATOMIC_RELAXED);
    __atomic_store_n(&at->current, new, __ATOMIC_RELEASE);
    nb_store_release(&at->latest, next);
    return was;
}
#endif
