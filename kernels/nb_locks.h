/* The locks of the `contention` kernel, each in the few lines of its original description: those of one word. `hop` is the time that a line takes from CPU
 * to CPU, in multiplies. */
#ifndef NB_LOCKS_H
#define NB_LOCKS_H
#include "nb_atomic.h"
#include "nb_cpu.h"
#include <linux/futex.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct queued_word { /* of a queued spin lock: held and pending are the lower half of the word */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    union {
        uint16_t both;
        struct {
            uint8_t held, pending;
        };
    };
    uint16_t last;
#else
    uint16_t last;
    union {
        uint16_t both;
        struct {
            uint8_t pending, held;
        };
    };
#endif
};

struct lock { /* one word or mutex; the lock has a line of its own, like every other part below */
    union {
        pthread_mutex_t mutex;
        pthread_rwlock_t rwlock;
        uint32_t word;
        uint64_t wide; /* addresses of nodes are kept as numbers, of which atomic operations are made */
        struct {
            uint32_t next, serving;
        } ticket;
        struct queued_word queued;
    };
};

static inline uint32_t nb_peek32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline uint64_t nb_peek(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }

/* Test and test-and-set: spins on a copy in its own cache until the word looks free (Rudolph & Segall 1984). */
static inline void ttas_enter(struct lock *l)
{
    while (nb_swap32_acquire(&l->word, 1))
        while (nb_peek32(&l->word))
            nb_relax();
}

static inline void ttas_leave(struct lock *l) { nb_store32_release(&l->word, 0); }

/* Waits, and says how long to wait the next time: twice as long, up to so many times as long as the first time. */
#define NB_LONGEST_BACKOFF 16u
static inline uint64_t nb_back_off(uint64_t delay, uint64_t first)
{
    nb_work(1, delay);
    return delay < NB_LONGEST_BACKOFF * first ? 2 * delay : delay;
}

/* The same, but after each failure it waits before it looks again, twice as long each time (Anderson 1990; Mellor-Crummey & Scott 1991, section 2.1). */
static inline void backoff_enter(struct lock *l, uint64_t hop)
{
    for (uint64_t delay = hop; nb_swap32_acquire(&l->word, 1);)
        do
            delay = nb_back_off(delay, hop);
        while (nb_peek32(&l->word));
}

/* First come, first served; all wait on one word and look at it the less often the more are before them (Mellor-Crummey & Scott 1991, section
 * 2.2, with proportional backoff of a hop for each): every look takes the line from the one who is about to write it. */
static inline void ticket_enter(struct lock *l, uint64_t hop)
{
    uint32_t mine = nb_add32_relaxed(&l->ticket.next, 1), before;
    while ((before = mine - nb_load32_acquire(&l->ticket.serving)))
        nb_work(1, before * hop);
}

static inline void ticket_leave(struct lock *l) { nb_store32_release(&l->ticket.serving, l->ticket.serving + 1); }

static inline void nb_sleep(uint32_t *word, uint32_t while_it_is) { syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, while_it_is, NULL, NULL, 0); }
static inline void nb_wake_one(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

/* Free 0, held 1, held with sleepers 2 (Drepper, "Futexes Are Tricky", 2011, mutex 2). */
static inline void futex_enter(struct lock *l)
{
    uint32_t seen = 0;
    if (nb_cas32_acquire(&l->word, &seen, 1))
        return;
    if (seen != 2)
        seen = nb_swap32_acquire(&l->word, 2);
    while (seen) {
        nb_sleep(&l->word, 2);
        seen = nb_swap32_acquire(&l->word, 2);
    }
}

static inline void futex_leave(struct lock *l)
{
    if (nb_swap32_release(&l->word, 0) == 2)
        nb_wake_one(&l->word);
}
#endif
