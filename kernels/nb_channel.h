/* Channels of the `channels` kernel, each in the few lines of its description: how a message gets from one thread to another, and how who finds nothing
 * waits.
 *
 * hchan is built as Go's is: one lock around everything, a ring, a queue of waiting senders and one of waiting receivers. Who sends while a receiver waits
 * writes the message to where that receiver wants it, and who receives while senders wait takes theirs; whoever waits has a word of its own. Each channel
 * of capacity 0 is such a hand-over. The others are rings, whose ends wait for a number to change. */
#ifndef NB_CHANNEL_H
#define NB_CHANNEL_H
#include "nb.h"
#include "nb_cpu.h"
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum nb_wait { NB_PARKS, NB_SPINS_THEN_PARKS, NB_SPINS };

#define NB_SPINS_PER_LOOK 16 /* at the clock */
#define NB_LOCK_SPINS 120    /* before who waits for a lock sleeps, as in Go (4 rounds of 30) */

/* One thread's end of a channel: how it waits, and what came of it. `state`, `element` and `next` are what another thread sees of one that waits. */
struct nb_end {
    struct nb_end *next;
    uint8_t *element;             /* the message that it sends, or where it wants one */
    uint32_t state, lost;         /* a futex; whether it was not woken and gave up */
    uint32_t wait, crowded;       /* enum nb_wait; whether it shares its CPU: who spins there must let others run */
    uint32_t alone, unused;       /* whether no other thread is at this side */
    uint64_t spin_ns, deadline;   /* for how long it spins before it parks; when it gives up */
    uint64_t waits, wakes, sleeps;/* how often it found nothing; others that it woke; its calls in which it slept, or could have */
    uint64_t cached;              /* the other side's index as it was last read */
};
enum { NB_WAITING, NB_PARKED, NB_DONE };

#ifndef NB_SLEEP /* tests: another scheduler */
#define NB_SLEEP(WORD, VALUE) syscall(SYS_futex, WORD, FUTEX_WAIT_PRIVATE, VALUE, NULL, NULL, 0)
#define NB_WAKE(WORD, COUNT) syscall(SYS_futex, WORD, FUTEX_WAKE_PRIVATE, COUNT, NULL, NULL, 0)
#endif

static inline void nb_give_up(struct nb_end *e)
{
    if (nb_now() > e->deadline)
        e->lost = 1;
}

/* Sleeps while *word is `value`, or until a signal says that it is time to look whether that was too long: a limit in the call itself would set up a timer
 * each time. */
static inline void nb_sleep(struct nb_end *e, uint32_t *word, uint32_t value)
{
    e->sleeps++;
    if (NB_SLEEP(word, value) && errno == EINTR)
        nb_give_up(e);
}

static inline void nb_wake_up(struct nb_end *e, uint32_t *word)
{
    e->wakes++;
    NB_WAKE(word, 1);
}

/* One turn of who spins; 0 when it is to park, or to give up. `until`: 0 before the first. */
static inline int nb_spin(struct nb_end *e, uint64_t turn, uint64_t *until)
{
    if (e->crowded)
        sched_yield();
    else
        nb_relax();
    if (turn % NB_SPINS_PER_LOOK && !e->crowded)
        return 1;
    const uint64_t now = nb_now();
    if (now > e->deadline)
        e->lost = 1;
    if (!*until)
        *until = e->wait == NB_SPINS ? UINT64_MAX : now + e->spin_ns;
    return now < *until && !e->lost;
}

static inline __attribute__((always_inline)) void nb_copy(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
    if (bytes == 8)
        memcpy(to, from, 8);
    else if (bytes == 64)
        memcpy(to, from, 64);
    else
        memcpy(to, from, bytes);
}

/* -- a lock of one word: free, held, held and somebody sleeps (Drepper 2011, "Futexes are tricky"). 0: given up ----------------------------------------- */

static inline int nb_lock_slowly(struct nb_end *e, uint32_t *word)
{
    uint32_t seen;
    uint64_t until = 0;
    for (uint64_t turn = 1; e->wait == NB_SPINS || (!e->crowded && turn < NB_LOCK_SPINS); turn++) {
        if (!nb_load32_relaxed(word) && (seen = 0, nb_cas32_acquire(word, &seen, 1)))
            return 1;
        if (e->wait != NB_SPINS)
            nb_relax();
        else if (!nb_spin(e, turn, &until))
            return 0;
    }
    while (nb_swap32_acquire(word, 2)) {
        if (NB_SLEEP(word, 2) && errno == EINTR)
            nb_give_up(e);
        if (e->lost)
            return 0;
    }
    return 1;
}

static inline int nb_lock(struct nb_end *e, uint32_t *word)
{
    uint32_t seen = 0;
    return nb_cas32_acquire(word, &seen, 1) || nb_lock_slowly(e, word);
}

static inline void nb_unlock(uint32_t *word)
{
    if (nb_swap32_release(word, 0) == 2)
        NB_WAKE(word, 1);
}

/* -- hchan ---------------------------------------------------------------------------------------------------------------------------------------------- */

struct nb_queue {
    struct nb_end *first, *last;
};

struct nb_hchan { /* within two lines, as Go has it: both sides use all of it */
    uint32_t lock, unused;
    uint64_t count, capacity, element, send_at, receive_at;
    uint8_t *ring;
    struct nb_queue senders, receivers;
};

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

static inline uint8_t *nb_slot(const struct nb_hchan *h, uint64_t at) { return h->ring + at * h->element; }
static inline uint64_t nb_next(const struct nb_hchan *h, uint64_t at) { return at + 1 == h->capacity ? 0 : at + 1; }

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

static inline int nb_hchan_send(struct nb_hchan *h, struct nb_end *e, uint8_t *message)
{
    struct nb_end *other;
    if (!nb_lock(e, &h->lock))
        return 0;
    if ((other = nb_dequeue(&h->receivers))) {
        nb_copy(other->element, message, h->element);
        nb_unlock(&h->lock);
        nb_ready(e, other);
        return 1;
    }
    if (h->count < h->capacity) {
        nb_copy(nb_slot(h, h->send_at), message, h->element);
        h->send_at = nb_next(h, h->send_at);
        h->count++;
        nb_unlock(&h->lock);
        return 1;
    }
    e->element = message;
    nb_store32_relaxed(&e->state, NB_WAITING);
    nb_enqueue(&h->senders, e);
    nb_unlock(&h->lock);
    return nb_wait_in_queue(e);
}

static inline int nb_hchan_receive(struct nb_hchan *h, struct nb_end *e, uint8_t *message)
{
    struct nb_end *other;
    if (!nb_lock(e, &h->lock))
        return 0;
    if ((other = nb_dequeue(&h->senders))) { /* the ring is full, if there is one: the oldest message comes out, the sender's goes in */
        uint8_t *const slot = h->capacity ? nb_slot(h, h->receive_at) : other->element;
        nb_copy(message, slot, h->element);
        if (h->capacity) {
            nb_copy(slot, other->element, h->element);
            h->send_at = h->receive_at = nb_next(h, h->receive_at);
        }
        nb_unlock(&h->lock);
        nb_ready(e, other);
        return 1;
    }
    if (h->count) {
        nb_copy(message, nb_slot(h, h->receive_at), h->element);
        h->receive_at = nb_next(h, h->receive_at);
        h->count--;
        nb_unlock(&h->lock);
        return 1;
    }
    e->element = message;
    nb_store32_relaxed(&e->state, NB_WAITING);
    nb_enqueue(&h->receivers, e);
    nb_unlock(&h->lock);
    return nb_wait_in_queue(e);
}

/* -- waiting for a number to change, announced in `waiters` --------------------------------------------------------------------------------------------- */

struct nb_event {
    uint32_t waiters, epoch; /* announced and not yet woken, or more: never fewer; a futex */
    uint8_t pad[NB_APART - 8];
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

/* -- spsc: a ring between two threads, whose indices only grow (Lamport 1983); cached: each side reads the other's index when its copy says that it must
 * wait */

struct nb_ring {
    uint64_t sent;
    uint8_t pad0[NB_APART - 8];
    uint64_t received;
    uint8_t pad1[NB_APART - 8];
    struct nb_event items, room;
    uint64_t capacity, element, stride; /* a power of two; bytes of a message, and from one to the next */
    uint8_t *ring;
    uint8_t pad2[NB_APART - 32];
};

static inline uint8_t *nb_place(const struct nb_ring *r, uint64_t at) { return r->ring + (at & (r->capacity - 1)) * r->stride; }

static inline __attribute__((always_inline)) int nb_spsc_send(struct nb_ring *r, struct nb_end *e, const uint8_t *message, const int cached)
{
    const uint64_t at = nb_load_relaxed(&r->sent);
    uint64_t received = cached ? e->cached : nb_load_acquire(&r->received);
    if (cached && at - received == r->capacity)
        received = nb_load_acquire(&r->received);
    if (at - received == r->capacity) {
        if (!nb_wait_for_change(e, &r->room, &r->received, received))
            return 0;
        received = nb_load_acquire(&r->received);
    }
    e->cached = received;
    nb_copy(nb_place(r, at), message, r->element);
    nb_store_release(&r->sent, at + 1);
    nb_tell(e, &r->items);
    return 1;
}

static inline __attribute__((always_inline)) int nb_spsc_receive(struct nb_ring *r, struct nb_end *e, uint8_t *message, const int cached)
{
    const uint64_t at = nb_load_relaxed(&r->received);
    uint64_t sent = cached ? e->cached : nb_load_acquire(&r->sent);
    if (cached && at == sent)
        sent = nb_load_acquire(&r->sent);
    if (at == sent) {
        if (!nb_wait_for_change(e, &r->items, &r->sent, sent))
            return 0;
        sent = nb_load_acquire(&r->sent);
    }
    e->cached = sent;
    nb_copy(message, nb_place(r, at), r->element);
    nb_store_release(&r->received, at + 1);
    nb_tell(e, &r->room);
    return 1;
}

/* -- mpmc: each place of the ring has a number that says whose turn it is (Vyukov 2010, "Bounded MPMC queue"); two places at least ---------------------- */

static inline int nb_mpmc(struct nb_ring *r, struct nb_end *e, uint8_t *message, const int sends)
{
    uint64_t *const index = sends ? &r->sent : &r->received, ahead = !sends;
    uint64_t at = nb_load_relaxed(index), turn;
    uint8_t *place;
    for (;;) {
        place = nb_place(r, at);
        turn = nb_load_acquire((uint64_t *)place);
        if (turn == at + ahead) {
            if (nb_cas_relaxed(index, &at, at + 1))
                break;
        } else if ((int64_t)(turn - (at + ahead)) < 0) {
            if (!nb_wait_for_change(e, sends ? &r->room : &r->items, (uint64_t *)place, turn))
                return 0;
            at = nb_load_relaxed(index);
        } else {
            at = nb_load_relaxed(index);
        }
    }
    if (sends)
        nb_copy(place + 8, message, r->element);
    else
        nb_copy(message, place + 8, r->element);
    nb_store_release((uint64_t *)place, sends ? at + 1 : at + r->capacity);
    nb_tell(e, sends ? &r->items : &r->room);
    return 1;
}

/* -- a ring under a mutex, with a condition for each side ----------------------------------------------------------------------------------------------- */

struct nb_guarded {
    pthread_mutex_t mutex;
    pthread_cond_t items, room;
    uint64_t sent, received;
};

static inline int nb_wait_for_condition(struct nb_end *e, pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    const struct timespec until = {(time_t)(e->deadline / 1000000000u), (long)(e->deadline % 1000000000u)};
    if (pthread_cond_timedwait(condition, mutex, &until) == ETIMEDOUT)
        e->lost = 1;
    return !e->lost;
}

static inline int nb_guarded(struct nb_guarded *g, const struct nb_ring *r, struct nb_end *e, uint8_t *message, const int sends)
{
    int still = 1;
    pthread_mutex_lock(&g->mutex);
    if (g->sent - g->received == (sends ? r->capacity : 0))
        e->waits++;
    while (g->sent - g->received == (sends ? r->capacity : 0) && still)
        still = nb_wait_for_condition(e, sends ? &g->room : &g->items, &g->mutex);
    if (still && sends)
        nb_copy(nb_place(r, g->sent++), message, r->element);
    else if (still)
        nb_copy(message, nb_place(r, g->received++), r->element);
    pthread_mutex_unlock(&g->mutex);
    pthread_cond_signal(sends ? &g->items : &g->room);
    return still;
}

/* -- through the kernel --------------------------------------------------------------------------------------------------------------------------------- */

/* All of a message, or a unit of an eventfd: blocks. A signal makes it look whether that was too long. */
static inline int nb_whole(struct nb_end *e, int file, uint8_t *bytes, uint64_t count, const int writes)
{
    for (uint64_t done = 0; done < count && !e->lost;) {
        const ssize_t moved = writes ? write(file, bytes + done, count - done) : read(file, bytes + done, count - done);
        if (moved > 0)
            done += (uint64_t)moved;
        else if (moved < 0 && errno == EINTR)
            nb_give_up(e);
        else
            e->lost = 1;
    }
    return !e->lost;
}

/* A ring whose free places are counted by one eventfd and its messages by another, as semaphores. */
static inline int nb_counted(struct nb_ring *r, struct nb_end *e, uint8_t *message, int wanted, int given, const int sends)
{
    uint64_t one = 0, *const index = sends ? &r->sent : &r->received;
    if (!nb_whole(e, wanted, (uint8_t *)&one, 8, 0))
        return 0;
    const uint64_t at = nb_load_relaxed(index);
    if (sends)
        nb_copy(nb_place(r, at), message, r->element);
    else
        nb_copy(message, nb_place(r, at), r->element);
    nb_store_relaxed(index, at + 1);
    one = 1;
    return nb_whole(e, given, (uint8_t *)&one, 8, 1);
}
#endif
