/* Locks with a queue of nodes, of which each thread has its own. */
#ifndef NB_LOCKS_QUEUE_H
#define NB_LOCKS_QUEUE_H
#include "nb_locks.h"

struct queue_node {
    uint64_t next; /* address of the one behind */
    uint32_t waiting;
};

static inline struct queue_node *nb_queued(uint64_t address) { return (struct queue_node *)(uintptr_t)address; }

static inline uint64_t nb_behind(const uint64_t *next) /* who is on its way into the queue has named itself soon */
{
    uint64_t address;
    while (!(address = nb_load_acquire(next)))
        nb_relax();
    return address;
}

/* A queue in which everyone waits on a line of its own (Mellor-Crummey & Scott 1991, section 2.4). */
static inline void mcs_enter(struct lock *l, struct queue_node *me)
{
    me->next = 0;
    struct queue_node *before = nb_queued(nb_swap(&l->wide, (uintptr_t)me));
    if (!before)
        return;
    me->waiting = 1;
    nb_store_release(&before->next, (uintptr_t)me);
    while (nb_load32_acquire(&me->waiting))
        nb_relax();
}

static inline void mcs_leave(struct lock *l, struct queue_node *me)
{
    uint64_t last = (uintptr_t)me;
    if (!nb_load_acquire(&me->next) && nb_cas_release(&l->wide, &last, 0))
        return;
    nb_store32_release(&nb_queued(nb_behind(&me->next))->waiting, 0);
}

struct clh_node {
    uint32_t locked;
};

struct clh_own { /* addresses of a thread's node, which it gives away with the lock, and of the one before it in the queue, which it then takes */
    uint64_t mine, before;
};

/* A queue in which everyone waits on the node of the one before (Craig 1993; Landin & Hagersten 1994). */
static inline void clh_enter(struct lock *l, struct clh_own *own)
{
    __atomic_store_n(&((struct clh_node *)(uintptr_t)own->mine)->locked, 1, __ATOMIC_RELAXED);
    own->before = nb_swap(&l->wide, own->mine);
    while (nb_load32_acquire(&((struct clh_node *)(uintptr_t)own->before)->locked))
        nb_relax();
}

static inline void clh_leave(struct clh_own *own)
{
    nb_store32_release(&((struct clh_node *)(uintptr_t)own->mine)->locked, 0);
    own->mine = own->before;
}

/* Linux's queued spin lock (Long & Zijlstra, Linux 4.2, 2015): one word of a byte that says held, a byte by which the first who waits spins on the word alone, and
 * the last of a queue of all others, as a number. Who leads the queue spins on the word as well. */
#define QUEUED_HELD 1u
#define QUEUED_PENDING 256u
#define QUEUED_MOMENT 512 /* looks at a lock that is on its way from the holder to the one pending, as Linux takes on x86-64 */

/* `number` of the thread from 1 on; `node` 1 is `apart` bytes behind `nodes`. */
static inline void queued_enter(struct lock *l, uint32_t number, uint8_t *nodes, uint64_t apart)
{
    struct queued_word *w = &l->queued;
    uint32_t seen = 0;
    if (nb_cas32_acquire(&l->word, &seen, QUEUED_HELD))
        return;
    for (int looks = QUEUED_MOMENT; seen == QUEUED_PENDING && looks; looks--) {
        nb_relax();
        seen = nb_peek32(&l->word);
    }
    if (seen <= QUEUED_HELD && !nb_set_bit32_acquire(&l->word, 8)) {
        if (nb_peek32(&l->word) < 65536) { /* nobody queues: the next one is me */
            while (__atomic_load_n(&w->held, __ATOMIC_ACQUIRE))
                nb_relax();
            __atomic_store_n(&w->both, QUEUED_HELD, __ATOMIC_RELAXED);
            return;
        }
        __atomic_store_n(&w->pending, 0, __ATOMIC_RELAXED);
    }
    struct queue_node *me = (struct queue_node *)(nodes + number * apart);
    me->next = 0;
    me->waiting = 1;
    const uint64_t before = nb_swap16(&w->last, (uint16_t)number);
    if (before) {
        nb_store_release(&((struct queue_node *)(nodes + before * apart))->next, (uintptr_t)me);
        while (nb_load32_acquire(&me->waiting))
            nb_relax();
    }
    while ((seen = nb_load32_acquire(&l->word)) & 65535)
        nb_relax();
    if (seen >> 16 == number && nb_cas32_relaxed(&l->word, &seen, QUEUED_HELD)) /* nobody behind */
        return;
    __atomic_store_n(&w->held, 1, __ATOMIC_RELAXED);
    nb_store32_release(&nb_queued(nb_behind(&me->next))->waiting, 0);
}

static inline void queued_leave(struct lock *l) { __atomic_store_n(&l->queued.held, 0, __ATOMIC_RELEASE); }

/* A word lock (Pizlo 2016, "Locking in WebKit", and Rust's parking_lot): two bits say that it is held and that its queue is, the others are the address of the first who
 * sleeps. Waiters spin a little while nobody sleeps, then sleep in the queue; who is woken tries again like everybody else. */
struct word_node {
    uint64_t next, last; /* addresses; the last one of the queue is known to the first. Whoever holds the queue reads and writes them */
    uint32_t asleep;
};
#define WORD_HELD 1u
#define WORD_QUEUE 2u
#define WORD_SPINS 10u /* of these the first three with 2, 4 and 8 pauses, the others by giving the CPU away, as parking_lot does */

static inline struct word_node *nb_sleeper(uint64_t word) { return (struct word_node *)(uintptr_t)(word & ~(uint64_t)(WORD_HELD | WORD_QUEUE)); }

static __attribute__((noinline, unused)) void word_enter_slowly(uint64_t *w, struct word_node *me)
{
    for (uint32_t spins = 0;;) {
        uint64_t seen = nb_peek(w);
        if (!(seen & WORD_HELD)) {
            if (nb_cas_acquire(w, &seen, seen | WORD_HELD))
                return;
        } else if (!nb_sleeper(seen) && spins < 3) {
            for (uint32_t i = 2u << spins++; i; i--)
                nb_relax();
        } else if ((!nb_sleeper(seen) && spins++ < WORD_SPINS) || seen & WORD_QUEUE || !nb_cas(w, &seen, seen | WORD_QUEUE)) {
            sched_yield();
        } else { /* the queue is mine; while it is, nobody changes the word */
            struct word_node *first = nb_sleeper(seen);
            me->next = 0;
            __atomic_store_n(&me->asleep, 1, __ATOMIC_RELAXED);
            if (first) {
                nb_sleeper(first->last)->next = (uintptr_t)me;
                first->last = (uintptr_t)me;
            } else {
                me->last = (uintptr_t)me;
            }
            nb_store_release(w, first ? seen : seen | (uintptr_t)me);
            while (nb_load32_acquire(&me->asleep))
                nb_sleep(&me->asleep, 1);
            spins = 0;
        }
    }
}

static __attribute__((noinline, unused)) void word_leave_slowly(uint64_t *w)
{
    for (;;) {
        uint64_t seen = nb_peek(w);
        if (!nb_sleeper(seen) && !(seen & WORD_QUEUE)) {
            if (nb_cas_release(w, &seen, 0))
                return;
        } else if (seen & WORD_QUEUE || !nb_cas(w, &seen, seen | WORD_QUEUE)) {
            sched_yield();
        } else {
            struct word_node *first = nb_sleeper(seen), *second = nb_sleeper(first->next);
            if (second)
                second->last = first->last;
            nb_store_release(w, (uintptr_t)second); /* neither the lock nor the queue is held */
            nb_store32_release(&first->asleep, 0);
            nb_wake_one(&first->asleep);
            return;
        }
    }
}

static inline void word_enter(struct lock *l, struct word_node *me)
{
    uint64_t seen = 0;
    if (!nb_cas_acquire(&l->wide, &seen, WORD_HELD))
        word_enter_slowly(&l->wide, me);
}

static inline void word_leave(struct lock *l)
{
    uint64_t seen = WORD_HELD;
    if (!nb_cas_release(&l->wide, &seen, 0))
        word_leave_slowly(&l->wide);
}
#endif
