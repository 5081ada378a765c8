/* The least that does what the kernels' loops do, for `make bench-self` to hold them against: the same instruction or lock, a count of turns, and nothing else. It works on
 * the memory that the kernel itself has prepared. Compiled in a copy of kernels/. */
#include "nb.h"
#include "nb_protected.h"
#include "nb_rseq.h"
#include "nb_window.h"

#define LOOPS                                                                                                                        \
    "store|increment|atomic_add_64|spaced|chase|atomic_add|atomic_cas|sharded|rseq_sharded|biased|mutex|spin_ttas|spin_backoff|ticket|mcs|clh|qspinlock|futex|word_lock|hbo|cohort|cna|rw_spin"
enum { LOOP, SPACES };
static const struct nb_parameter parameters[] = {
    [LOOP] = {"loop", LOOPS, "what is done", 0, 0, 22},
    [SPACES] = {"spacing", NULL, "dependent multiplies between two of them", 0, 0, 100000},
};
static const struct nb_metric metrics[] = {{"time", "ns", "of a turn", NB_LOWER_IS_BETTER}};
NB_DESCRIBE("minimal", 1, "loops without anything around", parameters, metrics);

#define MINIMAL(NAME, TURN)                                                                                                          \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        struct lines *at = (struct lines *)t->shared->buffer;                                                                        \
        struct part *own = part(at, 0, 4096);                                                                                        \
        uint64_t *word = (uint64_t *)at;                                                                                             \
        (void)own, (void)word;                                                                                                       \
        for (; n; n--) {                                                                                                             \
            TURN;                                                                                                                    \
        }                                                                                                                            \
    }
#define MINIMAL_64(NAME, TURN)                                                                                                       \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        volatile uint64_t *word = (volatile uint64_t *)t->shared->buffer;                                                            \
        for (; n; n -= 64) {                                                                                                         \
            NB_TIMES_64(TURN;)                                                                                                       \
        }                                                                                                                            \
    }
#define MINIMAL_LOCK(NAME, ENTER, LEAVE) MINIMAL(NAME, ENTER; plain(&at->data); LEAVE)

MINIMAL_64(store, *word = n)
MINIMAL_64(increment, *word = *word + 1)
MINIMAL_64(atomic_add_64, nb_add_relaxed((uint64_t *)word, 1))
MINIMAL(atomic_add, nb_add_relaxed(&at->data.counter, 1))
MINIMAL(atomic_cas, cas(&at->data.counter))
MINIMAL(sharded, nb_add_relaxed(&own->counter, 1))
#if NB_HAS_RSEQ
MINIMAL(rseq_sharded, nb_rseq_increment((uint8_t *)own, 12))
#else
MINIMAL(rseq_sharded, (void)0)
#endif
MINIMAL(biased, own_increment(&own->counter))
MINIMAL_LOCK(mutex, pthread_mutex_lock(&at->lock.mutex), pthread_mutex_unlock(&at->lock.mutex))
MINIMAL_LOCK(spin_ttas, ttas_enter(&at->lock), ttas_leave(&at->lock))
MINIMAL_LOCK(spin_backoff, backoff_enter(&at->lock, 50), ttas_leave(&at->lock))
MINIMAL_LOCK(ticket, ticket_enter(&at->lock, 50), ticket_leave(&at->lock))
MINIMAL_LOCK(mcs, mcs_enter(&at->lock, &own->queue), mcs_leave(&at->lock, &own->queue))
MINIMAL_LOCK(clh, clh_enter(&at->lock, &own->clh), clh_leave(&own->clh))
MINIMAL_LOCK(qspinlock, queued_enter(&at->lock, 1, (uint8_t *)own - 4096, 4096), queued_leave(&at->lock))
MINIMAL_LOCK(futex, futex_enter(&at->lock), futex_leave(&at->lock))
MINIMAL_LOCK(word_lock, word_enter(&at->lock, &own->word), word_leave(&at->lock))
MINIMAL_LOCK(hbo, hbo_enter(&at->lock, 0, &own->stopped, (uint8_t *)&own->stopped, 4096, 50), hbo_leave(&at->lock))
MINIMAL_LOCK(cohort, cohort_enter(&at->lock, &own->cohort, 50), cohort_leave(&at->lock, &own->cohort))
MINIMAL_LOCK(cna, cna_enter(&at->lock, &own->cna, 0), cna_leave(&at->lock, &own->cna))
MINIMAL_LOCK(rw_spin, rw_write_enter(&at->lock), rw_write_leave(&at->lock))

static void spaced(struct nb_thread *t, uint64_t n)
{
    uint64_t *word = (uint64_t *)t->shared->buffer, x = 0, nothing = 0;
    const uint64_t spacing = (uint64_t)t->shared->parameter[SPACES];
    NB_OPAQUE(nothing);
    for (; n; n--)
        x = nb_work(nb_add_relaxed((uint64_t *)((uintptr_t)word + (x & nothing)), 1), spacing);
}

static void chase(struct nb_thread *t, uint64_t n) /* where the kernel's first chase stands is the first word of the scratch memory */
{
    uint64_t *at = *(uint64_t **)t->shared->scratch;
    for (; n; n -= 64) {
        NB_TIMES_64(at = (uint64_t *)(uintptr_t) * (volatile uint64_t *)at;)
    }
    *(uint64_t **)t->shared->scratch = at;
}

static const nb_batch loops[] = {store, increment, atomic_add_64, spaced, chase, atomic_add, atomic_cas, sharded, rseq_sharded, biased, mutex, spin_ttas, spin_backoff,
                                 ticket, mcs, clh, qspinlock, futex, word_lock, hbo, cohort, cna, rw_spin};

int nb_run(struct nb_thread *t)
{
    if (t->shared->phase == NB_MEASURE)
        nb_window(t, loops[t->shared->parameter[LOOP]]);
    return NB_OK;
}
