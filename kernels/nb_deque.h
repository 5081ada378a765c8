/* A work-stealing deque: its owner pushes and pops tasks at the bottom, others steal them at the top. One lock-free word decides who gets the last one.
 *
 * Chase and Lev, "Dynamic circular work-stealing deque" (SPAA 2005), with the orders that Le, Pop, Cohen and Zappella Nardelli proved sufficient, "Correct and
 * efficient work-stealing for weak memory models" (PPoPP 2013). Of a fixed size: who pushes onto a full one is told so. */
#ifndef NB_DEQUE_H
#define NB_DEQUE_H
#include "nb_cpu.h"
#include "nb_atomic.h"

#define NB_DEQUE_PLACES 64u   /* a power of two */
#define NB_EMPTY 0u           /* there was no task; no task is called so */
#define NB_ABORTED UINT64_MAX /* another one was faster, and there may be more */

struct nb_deque {
    uint64_t top;
    uint8_t pad0[NB_APART - sizeof(uint64_t)];
    uint64_t bottom;
    uint8_t pad1[NB_APART - sizeof(uint64_t)];
    uint64_t task[NB_DEQUE_PLACES];
    uint8_t pad2[NB_APART_ODD]; /* of many in a row */
};

/* By the owner. 0: there is no room. */
static inline int nb_push(struct nb_deque *d, uint64_t task)
{
    const uint64_t bottom = nb_load_relaxed(&d->bottom), top = nb_load_acquire(&d->top);
    if (bottom - top >= NB_DEQUE_PLACES)
        return 0;
    nb_store_relaxed(&d->task[bottom % NB_DEQUE_PLACES], task);
    nb_release_fence();
    nb_store_relaxed(&d->bottom, bottom + 1);
    return 1;
}

/* By the owner: the newest task, or NB_EMPTY. */
static inline uint64_t nb_pop(struct nb_deque *d)
{
    const uint64_t bottom = nb_load_relaxed(&d->bottom) - 1;
    nb_store_relaxed(&d->bottom, bottom);
    nb_full_fence(); /* whoever does not see this task gone is seen at the top */
    uint64_t top = nb_load_relaxed(&d->top), task = NB_EMPTY;
    const int64_t left = (int64_t)(bottom - top);
    if (left >= 0)
        task = nb_load_relaxed(&d->task[bottom % NB_DEQUE_PLACES]);
    if (left > 0)
        return task;
    if (left == 0 && !nb_cas(&d->top, &top, top + 1)) /* the last one is the owner's only if no thief took it */
        task = NB_EMPTY;
    nb_store_relaxed(&d->bottom, bottom + 1);
    return task;
}

/* By anybody else: the oldest task, NB_EMPTY or NB_ABORTED. */
static inline uint64_t nb_steal(struct nb_deque *d)
{
    uint64_t top = nb_load_acquire(&d->top);
    nb_full_fence();
    const uint64_t bottom = nb_load_acquire(&d->bottom);
    if ((int64_t)(bottom - top) <= 0)
        return NB_EMPTY;
    const uint64_t task = nb_load_relaxed(&d->task[top % NB_DEQUE_PLACES]);
    return nb_cas(&d->top, &top, top + 1) ? task : NB_ABORTED;
}
#endif
