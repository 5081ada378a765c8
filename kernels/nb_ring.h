/* Rings whose indices only grow: between two threads, with numbered places for several, under a mutex, and what the kernel offers instead of one. */
#ifndef NB_RING_H
#define NB_RING_H
#include "nb_channel.h"
#include <pthread.h>
#include <sys/ioctl.h>

/* -- waiting for a number to change, announced in `waiters` --------------------------------------------------------------------------------------------- */

struct nb_event {
    uint32_t waiters, epoch; /* announced and not yet woken, or more: never fewer; a futex */
};

/* After a change: wakes one of those who wait for it. Either it sees who waits, or that one sees the change. */
static inline void nb_tell(struct nb_end *e, struct nb_event *event)
{
    if (e->wait == NB_SPINS)
        return;
    nb_full_fence();
    for (uint32_t seen = nb_load32_relaxed(&event->waiters); seen;)
        if (nb_cas32(&event->waiters, &seen, seen - 1)) {
            nb_add32(&event->epoch, 1);
            nb_wake_up(e, &event->epoch);
            return;
        }
}

/* Until *number is no longer `seen`. Who has announced itself and need not wait takes that back only where nobody else can have announced anything. */
static inline int nb_wait_for_change(struct nb_end *e, struct nb_event *event, const uint64_t *number, uint64_t seen)
{
    uint64_t until = 0;
    e->waits++;
    if (e->wait != NB_PARKS)
        for (uint64_t turn = 1; nb_load_acquire(number) == seen && nb_spin(e, turn, &until); turn++)
            ;
    while (nb_load_acquire(number) == seen) {
        if (e->lost)
            return 0;
        const uint32_t epoch = nb_load32_acquire(&event->epoch);
        nb_add32(&event->waiters, 1);
        nb_full_fence();
        if (nb_load_acquire(number) != seen) {
            if (e->alone)
                nb_store32_relaxed(&event->waiters, 0);
            break;
        }
        nb_sleep(e, &event->epoch, epoch);
    }
    return 1;
}

struct nb_ring {
    uint64_t *index[2];        /* messages that were received, and sent */
    struct nb_event *event[2]; /* for which receivers wait, and senders */
    struct nb_places places;
};

/* What one side writes comes together where all is packed; apart, everything has lines of its own. */
static inline void nb_ring_lay(struct nb_ring *r, struct nb_layout *l)
{
    for (int side = NB_RECEIVES; side <= NB_SENDS; side++) {
        r->index[side] = nb_part(l, sizeof *r->index[0]);
        r->event[side] = nb_part(l, sizeof *r->event[0]);
    }
}

/* -- spsc: between two threads (Lamport 1983); cached: each side reads the other's index when its copy says that it must wait --------------------------- */

NB_INLINE_ALWAYS int nb_spsc(struct nb_ring *r, struct nb_end *e, uint8_t *message, const enum nb_side side, const int cached)
{
    const uint64_t *const others = r->index[!side];
    const uint64_t at = nb_load_relaxed(r->index[side]), limit = side == NB_SENDS ? at - r->places.count : at; /* where the other is, it must wait */
    uint64_t other = cached ? e->cached : nb_load_acquire(others);
    if (cached && other == limit)
        other = nb_load_acquire(others);
    if (other == limit) {
        if (!nb_wait_for_change(e, r->event[side], others, other))
            return 0;
        other = nb_load_acquire(others);
    }
    e->cached = other;
    if (side == NB_SENDS)
        nb_copy(nb_place(&r->places, at), message, r->places.bytes);
    else
        nb_copy(message, nb_place(&r->places, at), r->places.bytes);
    nb_store_release(r->index[side], at + 1);
    nb_tell(e, r->event[!side]);
    return 1;
}

/* -- mpmc: each place has a number that says whose turn it is (Vyukov 2010, "Bounded MPMC queue"); two places at least. Who is `only` one at its side takes
 * the place without asking anybody ---------------------------------------------------------------------------------------------------------------------- */

#define NB_TURN 8 /* bytes of that number, before the message */

static inline void nb_number_places(const struct nb_places *p)
{
    for (uint64_t i = 0; i < p->count; i++)
        *(uint64_t *)nb_place(p, i) = i;
}

NB_INLINE_ALWAYS int nb_numbered(struct nb_ring *r, struct nb_end *e, uint8_t *message, const enum nb_side side, const int only)
{
    uint64_t *const index = r->index[side], ahead = side == NB_RECEIVES;
    uint64_t at = nb_load_relaxed(index), turn;
    uint8_t *place;
    for (;;) {
        place = nb_place(&r->places, at);
        turn = nb_load_acquire((uint64_t *)place);
        if (turn == at + ahead) {
            if (only)
                nb_store_relaxed(index, at + 1);
            if (only || nb_cas_relaxed(index, &at, at + 1))
                break;
        } else if ((int64_t)(turn - (at + ahead)) < 0) {
            if (!nb_wait_for_change(e, r->event[side], (uint64_t *)place, turn))
                return 0;
            at = nb_load_relaxed(index);
        } else {
            at = nb_load_relaxed(index);
        }
    }
    if (side == NB_SENDS)
        nb_copy(place + NB_TURN, message, r->places.bytes);
    else
        nb_copy(message, place + NB_TURN, r->places.bytes);
    nb_store_release((uint64_t *)place, side == NB_SENDS ? at + 1 : at + r->places.count);
    nb_tell(e, r->event[!side]);
    return 1;
}

/* -- a ring under a mutex, with a condition for each side ----------------------------------------------------------------------------------------------- */

struct nb_guarded {
    pthread_mutex_t *mutex;
    pthread_cond_t *waiting[2];
    uint64_t *index[2];
    struct nb_places places;
};

static inline void nb_guarded_lay(struct nb_guarded *g, struct nb_layout *l)
{
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    g->mutex = nb_part(l, sizeof *g->mutex);
    pthread_mutex_init(g->mutex, NULL);
    for (int side = NB_RECEIVES; side <= NB_SENDS; side++) {
        g->waiting[side] = nb_part(l, sizeof *g->waiting[0]);
        pthread_cond_init(g->waiting[side], &clock);
        g->index[side] = nb_part(l, sizeof *g->index[0]);
    }
}

static inline int nb_wait_for_condition(struct nb_end *e, pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    const struct timespec until = {(time_t)(e->deadline / 1000000000u), (long)(e->deadline % 1000000000u)};
    if (pthread_cond_timedwait(condition, mutex, &until) == ETIMEDOUT)
        e->lost = 1;
    return !e->lost;
}

static inline int nb_guarded_move(struct nb_guarded *g, struct nb_end *e, uint8_t *message, const enum nb_side side)
{
    const uint64_t nothing = side == NB_SENDS ? g->places.count : 0; /* messages in it with which this side must wait */
    int still = 1;
    pthread_mutex_lock(g->mutex);
    if (*g->index[NB_SENDS] - *g->index[NB_RECEIVES] == nothing)
        e->waits++;
    while (*g->index[NB_SENDS] - *g->index[NB_RECEIVES] == nothing && still)
        still = nb_wait_for_condition(e, g->waiting[side], g->mutex);
    if (still) {
        const uint64_t at = *g->index[side];
        if (side == NB_SENDS)
            nb_copy(nb_place(&g->places, at), message, g->places.bytes);
        else
            nb_copy(message, nb_place(&g->places, at), g->places.bytes);
        nb_store_relaxed(g->index[side], at + 1); /* who wants to know how full it is, looks without the mutex */
    }
    pthread_mutex_unlock(g->mutex);
    pthread_cond_signal(g->waiting[!side]);
    return still;
}

/* -- through the kernel --------------------------------------------------------------------------------------------------------------------------------- */

/* All of a message, or a unit of an eventfd: blocks. A signal makes it look whether that was too long. */
static inline int nb_whole(struct nb_end *e, int file, uint8_t *bytes, uint64_t count, const enum nb_side side)
{
    for (uint64_t done = 0; done < count && !e->lost;) {
        const ssize_t moved = side == NB_SENDS ? write(file, bytes + done, count - done) : read(file, bytes + done, count - done);
        if (moved > 0)
            done += (uint64_t)moved;
        else if (moved < 0 && errno == EINTR)
            nb_give_up(e);
        else
            e->lost = 1;
    }
    return !e->lost;
}

/* Bytes that are in a pipe. */
static inline uint64_t nb_bytes_in(int file)
{
    int bytes = 0;
    return ioctl(file, FIONREAD, &bytes) ? 0 : (uint64_t)bytes;
}

/* A ring whose free places are counted by one eventfd and its messages by another, as semaphores; -1: that one cannot run out. */
static inline int nb_counted(struct nb_ring *r, struct nb_end *e, uint8_t *message, int wanted, int given, const enum nb_side side)
{
    uint64_t one = 0, *const index = r->index[side];
    if (wanted >= 0 && !nb_whole(e, wanted, (uint8_t *)&one, sizeof one, NB_RECEIVES))
        return 0;
    const uint64_t at = nb_load_relaxed(index);
    if (side == NB_SENDS)
        nb_copy(nb_place(&r->places, at), message, r->places.bytes);
    else
        nb_copy(message, nb_place(&r->places, at), r->places.bytes);
    nb_store_relaxed(index, at + 1);
    one = 1;
    return given < 0 || nb_whole(e, given, (uint8_t *)&one, sizeof one, NB_SENDS);
}
#endif
