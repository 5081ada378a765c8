/* What lets readers in together: a reader-writer lock, a seqlock, and versions that are published whole. */
#ifndef NB_LOCKS_RW_H
#define NB_LOCKS_RW_H
#include "nb_locks.h"

/* Twice the readers, plus one while a writer has it. Readers step back before a writer, writers wait until all have gone. */
static inline void rw_read_enter(struct lock *l)
{
    while (__atomic_fetch_add(&l->word, 2, __ATOMIC_ACQUIRE) & 1) {
        __atomic_fetch_sub(&l->word, 2, __ATOMIC_RELAXED);
        while (__atomic_load_n(&l->word, __ATOMIC_RELAXED) & 1)
            nb_relax();
    }
}

static inline void rw_read_leave(struct lock *l)
{
    __atomic_fetch_sub(&l->word, 2, __ATOMIC_RELEASE);
}

static inline void rw_write_enter(struct lock *l)
{
    while (__atomic_fetch_or(&l->word, 1, __ATOMIC_ACQUIRE) & 1)
        while (__atomic_load_n(&l->word, __ATOMIC_RELAXED) & 1)
            nb_relax();
    while (__atomic_load_n(&l->word, __ATOMIC_ACQUIRE) != 1)
        nb_relax();
}

static inline void rw_write_leave(struct lock *l)
{
    __atomic_fetch_sub(&l->word, 1, __ATOMIC_RELEASE);
}

/* A seqlock's number is odd while somebody writes (Boehm 2012, "Can seqlocks get along with programming language memory models?"). Writers hold a
 * lock of their own. */
static inline void seq_write_begin(uint64_t *sequence)
{
    __atomic_store_n(sequence, *sequence + 1, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static inline void seq_write_end(uint64_t *sequence)
{
    __atomic_store_n(sequence, *sequence + 1, __ATOMIC_RELEASE);
}

static inline uint64_t seq_read_begin(uint64_t *sequence)
{
    uint64_t seen;
    while ((seen = __atomic_load_n(sequence, __ATOMIC_ACQUIRE)) & 1)
        nb_relax();
    return seen;
}

static inline int seq_read_again(uint64_t *sequence, uint64_t seen)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(sequence, __ATOMIC_RELAXED) != seen;
}

/* Reclamation by quiescent states (Desnoyers et al. 2012): a reader says after each read which version it has seen. A thread that reads nothing for a
 * while says that first, and nobody waits for it. */
#define NB_AWAY UINT64_MAX

static inline void rcu_away(uint64_t *seen)
{
    __atomic_store_n(seen, NB_AWAY, __ATOMIC_RELEASE);
}

static inline void rcu_back(uint64_t *seen, const uint64_t *latest)
{
    __atomic_store_n(seen, __atomic_load_n(latest, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* a writer sees that this thread is back before it reads anything */
}
#endif
