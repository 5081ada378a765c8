/* The locks of the `contention` kernel, each in the few lines of its original description. */
#ifndef NB_LOCKS_H
#define NB_LOCKS_H
#include "nb_cpu.h"
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct lock { /* one word or mutex; the lock has a line of its own, like every other part below */
    union {
        pthread_mutex_t mutex;
        pthread_rwlock_t rwlock;
        uint32_t word;
        struct {
            uint32_t next, serving;
        } ticket;
        struct mcs_node *tail;
        struct clh_node *last;
    };
};

struct mcs_node {
    struct mcs_node *next;
    uint32_t waiting;
};

/* Test and test-and-set: spins on a copy in its own cache until the word looks free (Rudolph & Segall 1984). */
static inline void ttas_enter(struct lock *l)
{
    while (__atomic_exchange_n(&l->word, 1, __ATOMIC_ACQUIRE))
        while (__atomic_load_n(&l->word, __ATOMIC_RELAXED))
            nb_relax();
}

static inline void ttas_leave(struct lock *l)
{
    __atomic_store_n(&l->word, 0, __ATOMIC_RELEASE);
}

/* First come, first served; all wait on one word and look at it the less often the more are before them (Mellor-Crummey & Scott 1991, section
 * 2.2, with proportional backoff): every look takes the line from the one who is about to write it. */
#define TICKET_TURNS 128u /* of an empty loop for each that is before: some 40 ns, what a line takes within a die */
static inline void ticket_enter(struct lock *l)
{
    uint32_t mine = __atomic_fetch_add(&l->ticket.next, 1, __ATOMIC_RELAXED), before;
    while ((before = mine - __atomic_load_n(&l->ticket.serving, __ATOMIC_ACQUIRE)))
        for (uint32_t i = 0; i < before * TICKET_TURNS; i++)
            NB_OPAQUE(i);
}

static inline void ticket_leave(struct lock *l)
{
    __atomic_store_n(&l->ticket.serving, l->ticket.serving + 1, __ATOMIC_RELEASE);
}

/* A queue in which everyone waits on a line of its own (Mellor-Crummey & Scott 1991, section 2.4). */
static inline void mcs_enter(struct lock *l, struct mcs_node *me)
{
    me->next = NULL;
    struct mcs_node *before = __atomic_exchange_n(&l->tail, me, __ATOMIC_ACQ_REL);
    if (!before)
        return;
    me->waiting = 1;
    __atomic_store_n(&before->next, me, __ATOMIC_RELEASE);
    while (__atomic_load_n(&me->waiting, __ATOMIC_ACQUIRE))
        nb_relax();
}

static inline void mcs_leave(struct lock *l, struct mcs_node *me)
{
    struct mcs_node *next = __atomic_load_n(&me->next, __ATOMIC_ACQUIRE), *expected = me;
    if (!next) {
        if (__atomic_compare_exchange_n(&l->tail, &expected, NULL, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            return;
        while (!(next = __atomic_load_n(&me->next, __ATOMIC_ACQUIRE)))
            nb_relax();
    }
    __atomic_store_n(&next->waiting, 0, __ATOMIC_RELEASE);
}

struct clh_node {
    uint32_t locked;
};

struct clh_own { /* a thread's node, which it gives away with the lock, and the one before it in the queue, which it then takes */
    struct clh_node *mine, *before;
};

/* A queue in which everyone waits on the node of the one before (Craig 1993; Landin & Hagersten 1994). */
static inline void clh_enter(struct lock *l, struct clh_own *own)
{
    __atomic_store_n(&own->mine->locked, 1, __ATOMIC_RELAXED);
    own->before = __atomic_exchange_n(&l->last, own->mine, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&own->before->locked, __ATOMIC_ACQUIRE))
        nb_relax();
}

static inline void clh_leave(struct clh_own *own)
{
    __atomic_store_n(&own->mine->locked, 0, __ATOMIC_RELEASE);
    own->mine = own->before;
}

/* Free 0, held 1, held with sleepers 2 (Drepper, "Futexes Are Tricky", 2011, mutex 2). */
static inline void futex_enter(struct lock *l)
{
    uint32_t seen = 0;
    if (__atomic_compare_exchange_n(&l->word, &seen, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return;
    if (seen != 2)
        seen = __atomic_exchange_n(&l->word, 2, __ATOMIC_ACQUIRE);
    while (seen) {
        syscall(SYS_futex, &l->word, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
        seen = __atomic_exchange_n(&l->word, 2, __ATOMIC_ACQUIRE);
    }
}

static inline void futex_leave(struct lock *l)
{
    if (__atomic_exchange_n(&l->word, 0, __ATOMIC_RELEASE) == 2)
        syscall(SYS_futex, &l->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
#endif
