/* What lets readers in together: a reader-writer lock, a seqlock, and versions that are published whole. */
#ifndef NB_LOCKS_RW_H
#define NB_LOCKS_RW_H
#include "nb_locks.h"

/* Twice the readers, plus one while a writer has it. Readers step back before a writer, writers wait until all have gone. */
static inline void rw_read_enter(struct lock *l)
{
    while (nb_add32_acquire(&l->word, 2) & 1) {
        nb_add32_relaxed(&l->word, -2u);
        while (nb_peek32(&l->word) & 1)
            nb_relax();
    }
}

static inline void rw_read_leave(struct lock *l)
{
    nb_add32_release(&l->word, -2u);
}

static inline void rw_write_enter(struct lock *l)
{
    while (nb_set_bit32_acquire(&l->word, 0))
        while (nb_peek32(&l->word) & 1)
            nb_relax();
    while (nb_load32_acquire(&l->word) != 1)
        nb_relax();
}

static inline void rw_write_leave(struct lock *l)
{
    nb_add32_release(&l->word, -1u);
}

/* A seqlock's number is odd while somebody writes (Boehm 2012, "Can seqlocks get along with programming language memory models?"). Writers hold a
 * lock of their own. */
static inline void seq_write_begin(uint64_t *sequence)
{
    __atomic_store_n(sequence, *sequence + 1, __ATOMIC_RELAXED);
    nb_release_fence();
}

static inline void seq_write_end(uint64_t *sequence)
{
    nb_store_release(sequence, *sequence + 1);
}

static inline uint64_t seq_read_begin(uint64_t *sequence)
{
    uint64_t seen;
    while ((seen = nb_load_acquire(sequence)) & 1)
        nb_relax();
    return seen;
}

static inline int seq_read_again(uint64_t *sequence, uint64_t seen)
{
    nb_acquire_fence();
    return nb_peek(sequence) != seen;
}

/* Reclamation by quiescent states (Desnoyers et al. 2012): a reader says after each read which version it has seen. A thread that reads nothing for a
 * while says that first, and nobody waits for it. */
#define NB_AWAY UINT64_MAX

static inline void rcu_away(uint64_t *seen)
{
    nb_store_release(seen, NB_AWAY);
}

static inline void rcu_back(uint64_t *seen, const uint64_t *latest)
{
    __atomic_store_n(seen, nb_peek(latest), __ATOMIC_RELAXED);
    nb_full_fence(); /* a writer sees that this thread is back before it reads anything */
}
#endif
