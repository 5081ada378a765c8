/* Ends of channels: how who finds nothing waits, how it is woken, and where the words of a channel lie. The channels themselves, each in the few lines of its
 * description, are in nb_hchan.h and nb_ring.h; kernel `channels` measures them. */
#ifndef NB_CHANNEL_H
#define NB_CHANNEL_H
#include "nb.h"
#include "nb_wait.h"
#include <errno.h>
#include <limits.h>
#include <string.h>

enum nb_wait { NB_PARKS, NB_SPINS_THEN_PARKS, NB_SPINS };
enum nb_side { NB_RECEIVES, NB_SENDS }; /* what a channel has of both sides is in this order */

#define NB_SPINS_PER_LOOK 16 /* at the clock */
#define NB_LOCK_SPINS 120    /* before who waits for a lock sleeps, as in Go (4 rounds of 30) */

#define NB_INLINE_ALWAYS static inline __attribute__((always_inline))

/* One thread's end of a channel: how it waits, and what came of it. `state`, `element` and `next` are what another thread sees of one that waits. */
struct nb_end {
    struct nb_end *next;
    uint8_t *element;             /* the message that it sends, or where it wants one */
    uint32_t state, lost;         /* a futex; whether it was not woken and gave up */
    uint32_t wait, crowded;       /* enum nb_wait; whether it shares its CPU: who spins there must let others run */
    uint32_t alone, unused;       /* whether no other thread is at this side */
    uint64_t spin_ns, deadline;   /* for how long it spins before it parks; when it gives up */
    uint64_t waits, wakes;        /* how often it found nothing; others that it woke */
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
    nb_give_way(e->crowded);
    if (turn % NB_SPINS_PER_LOOK && !e->crowded)
        return 1;
    const uint64_t now = nb_now();
    if (now > e->deadline)
        e->lost = 1;
    if (!*until)
        *until = e->wait == NB_SPINS ? UINT64_MAX : now + e->spin_ns;
    return now < *until && !e->lost;
}

NB_INLINE_ALWAYS void nb_copy(uint8_t *to, const uint8_t *from, uint64_t bytes)
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

/* -- where a channel's words and messages lie ------------------------------------------------------------------------------------------------------------ */

/* Words one behind the other, or each on lines of its own: a channel asks for them in the order in which they are packed. */
struct nb_layout {
    uint8_t *next;
    uint32_t apart;
};

static inline void *nb_part(struct nb_layout *l, uint64_t bytes)
{
    uint8_t *const part = l->next;
    l->next += l->apart ? (bytes + NB_APART - 1) / NB_APART * NB_APART : (bytes + 7) / 8 * 8;
    return part;
}

/* The places of a buffer. */
struct nb_places {
    uint8_t *first;
    uint64_t count, bytes, stride; /* 0 or a power of two; bytes of a message, and from one place to the next */
};

static inline uint8_t *nb_place(const struct nb_places *p, uint64_t at) { return p->first + (at & (p->count - 1)) * p->stride; }
#endif
