/* A channel built as Go's is: one lock around everything, a ring, a queue of waiting senders and one of waiting receivers. Who sends while a receiver waits
 * writes the message to where that receiver wants it, and who receives while senders wait takes theirs; whoever waits has a word of its own. Without places
 * each message is such a hand-over. */
#ifndef NB_HCHAN_H
#define NB_HCHAN_H
#include "nb_channel.h"

struct nb_queue {
    struct nb_end *first, *last;
};

struct nb_hchan {
    uint64_t *held, *at[2];      /* messages in the ring; where the next one comes out, and goes in */
    struct nb_queue *waiting[2]; /* receivers, and senders */
    uint32_t *lock;
    struct nb_places places;
};

#define NB_HCHAN_CONSTANTS 40 /* bytes of what never changes in Go's, between the count and the indices */

/* Within two lines where they are packed, in Go's order (hchan in runtime/chan.go): count and indices in the first, queues and lock in the second. */
static inline void nb_hchan_lay(struct nb_hchan *h, struct nb_layout *l)
{
    h->held = nb_part(l, sizeof *h->held);
    if (!l->apart)
        nb_part(l, NB_HCHAN_CONSTANTS);
    h->at[NB_SENDS] = nb_part(l, sizeof *h->at[0]);
    h->at[NB_RECEIVES] = nb_part(l, sizeof *h->at[0]);
    h->waiting[NB_RECEIVES] = nb_part(l, sizeof *h->waiting[0]);
    h->waiting[NB_SENDS] = nb_part(l, sizeof *h->waiting[0]);
    h->lock = nb_part(l, sizeof *h->lock);
}

static inline void nb_enqueue(struct nb_queue *q, struct nb_end *e)
{
    e->next = NULL;
    if (q->first)
        q->last->next = e;
    else
        q->first = e;
    q->last = e;
}

static inline struct nb_end *nb_dequeue(struct nb_queue *q)
{
    struct nb_end *e = q->first;
    if (e)
        q->first = e->next;
    return e;
}

/* The place whose turn it is on this side, which goes on to the next one. */
static inline uint8_t *nb_hchan_next(const struct nb_hchan *h, enum nb_side side)
{
    uint8_t *const place = h->places.first + *h->at[side] * h->places.stride;
    if (++*h->at[side] == h->places.count)
        *h->at[side] = 0;
    return place;
}

/* It is in a queue and holds no lock: until somebody has dealt with it. */
static inline int nb_wait_in_queue(struct nb_end *e)
{
    uint64_t until = 0;
    uint32_t seen = NB_WAITING;
    e->waits++;
    if (e->wait != NB_PARKS)
        for (uint64_t turn = 1; nb_load32_acquire(&e->state) == NB_WAITING && nb_spin(e, turn, &until); turn++)
            ;
    if (!e->lost && nb_load32_acquire(&e->state) == NB_WAITING && nb_cas32(&e->state, &seen, NB_PARKED))
        while (nb_load32_acquire(&e->state) == NB_PARKED && !e->lost)
            nb_sleep(e, &e->state, NB_PARKED);
    return nb_load32_acquire(&e->state) == NB_DONE;
}

/* `other` has been dealt with. It may be gone at once: what is woken then is whoever uses that word next, which looks again. */
static inline void nb_ready(struct nb_end *e, struct nb_end *other)
{
    if (nb_swap32(&other->state, NB_DONE) == NB_PARKED)
        nb_wake_up(e, &other->state);
}

/* Sends `message`, or receives one there. 0: given up. */
NB_INLINE_ALWAYS int nb_hchan_move(struct nb_hchan *h, struct nb_end *e, uint8_t *message, const enum nb_side side)
{
    const uint64_t bytes = h->places.bytes;
    struct nb_end *other;
    if (!nb_lock(e, h->lock))
        return 0;
    const uint64_t held = *h->held;
    if ((other = nb_dequeue(h->waiting[!side]))) {
        if (side == NB_SENDS) {
            nb_copy(other->element, message, bytes);
        } else if (!h->places.count) {
            nb_copy(message, other->element, bytes);
        } else { /* the ring is full: the oldest message comes out, that sender's goes in */
            uint8_t *const place = nb_hchan_next(h, NB_RECEIVES);
            nb_copy(message, place, bytes);
            nb_copy(place, other->element, bytes);
            *h->at[NB_SENDS] = *h->at[NB_RECEIVES];
        }
        nb_unlock(h->lock);
        nb_ready(e, other);
        return 1;
    }
    if (side == NB_SENDS ? held < h->places.count : held > 0) {
        uint8_t *const place = nb_hchan_next(h, side);
        if (side == NB_SENDS)
            nb_copy(place, message, bytes);
        else
            nb_copy(message, place, bytes);
        nb_store_relaxed(h->held, side == NB_SENDS ? held + 1 : held - 1); /* who wants to know how full it is, looks without the lock */
        nb_unlock(h->lock);
        return 1;
    }
    e->element = message;
    nb_store32_relaxed(&e->state, NB_WAITING);
    nb_enqueue(h->waiting[side], e);
    nb_unlock(h->lock);
    return nb_wait_in_queue(e);
}
#endif
