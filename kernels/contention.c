/* Mutex or atomic: threads update one counter, protected in different ways, with work inside and outside.
 *
 * One operation: enter; update the counter; `section` dependent multiplies that need its value; leave; `think` more.
 * What needs no lock (the atomics) does the section's work unprotected, as such code does: that is its advantage.
 * Throughput comes from a window without any stamp; a second, shorter one then stamps every operation from the wish to
 * the update and counts the waits. */
#include "nb.h"
#include "nb_locks.h"
#include "nb_window.h"

enum { PRIMITIVE, SECTION, THINK };
enum { ATOMIC_ADD, ATOMIC_CAS, ATOMIC_ADD_SHARDED, ATOMIC_ADD_PER_NODE, MUTEX, MUTEX_ADAPTIVE, SPIN_TTAS, TICKET, MCS, FUTEX };

static const struct nb_parameter parameters[] = {
    [PRIMITIVE] = {"primitive",
                   "atomic_add|atomic_cas|atomic_add_sharded|atomic_add_per_node|mutex|mutex_adaptive|spin_ttas|ticket|mcs|futex",
                   "what protects the counter", ATOMIC_ADD, 0, 9},
    [SECTION] = {"section", NULL, "dependent multiplies inside the critical section", 0, 0, 10000000},
    [THINK] = {"think", NULL, "dependent multiplies between two critical sections", 0, 0, 10000000},
};
static const struct nb_metric metrics[] = {
    {"throughput", "operation/s", "operations of all threads", NB_HIGHER_IS_BETTER},
    {"time_per_operation", "ns", "time of one operation in one thread, waiting included", NB_LOWER_IS_BETTER},
    {"fairness", "1", "Jain index of the threads' rates", NB_HIGHER_IS_BETTER},
    {"wait_p999", "ns", "99.9th percentile of the time from asking to having updated", NB_LOWER_IS_BETTER},
    {"wait_max", "ns", "longest time from asking to having updated", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("contention", 1, "one counter, protected in ten ways", parameters, metrics);

#define LINE 256    /* apart: two 128-byte lines, so that no prefetcher couples neighbours */
#define OWN 4096    /* where the threads' parts begin */
#define PART 512    /* a thread's counter, then its MCS node */
#define STAMPED_SHARE 4 /* the stamped window is a quarter of the plain one */

struct lines { /* the measured buffer */
    struct lock lock;
    uint8_t pad[LINE - sizeof(struct lock)];
    uint64_t counter;
};

static inline uint64_t *part(struct lines *at, uint64_t i) { return (uint64_t *)((uint8_t *)at + OWN + i * PART); }
static inline struct mcs_node *node(struct lines *at, uint64_t i) { return (struct mcs_node *)(part(at, i) + LINE / 8); }

static inline uint64_t add(uint64_t *counter)
{
    return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static inline uint64_t cas(uint64_t *counter)
{
    uint64_t seen = __atomic_load_n(counter, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(counter, &seen, seen + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return seen;
}

static inline uint64_t plain(uint64_t *counter)
{
    uint64_t seen = *(volatile uint64_t *)counter;
    *(volatile uint64_t *)counter = seen + 1;
    return seen;
}

/* Work feeds the next address: `nothing` is zero, but only the processor finds out. Without that, the next operation began
 * while the work was still going on, and 100 ns of it cost 60. */
#define OPERATION(NAME, ENTER, UPDATE, LEAVE)                                                                                        \
    static inline __attribute__((always_inline)) void NAME##_loop(struct nb_thread *t, uint64_t n, const int stamped)                \
    {                                                                                                                                \
        const uint64_t section = (uint64_t)t->shared->parameter[SECTION], think = (uint64_t)t->shared->parameter[THINK];             \
        uint64_t nothing = 0, x = 0, asked = 0;                                                                                      \
        NB_OPAQUE(nothing);                                                                                                          \
        for (; n; n--) {                                                                                                             \
            struct lines *at = (struct lines *)(t->shared->buffer + (x & nothing));                                                  \
            if (stamped)                                                                                                             \
                asked = nb_now();                                                                                                    \
            ENTER;                                                                                                                   \
            x = UPDATE;                                                                                                              \
            if (stamped)                                                                                                             \
                nb_record(t, nb_now() - asked);                                                                                      \
            x = nb_work(x, section);                                                                                                 \
            LEAVE;                                                                                                                   \
            x = nb_work(x, think);                                                                                                   \
        }                                                                                                                            \
    }                                                                                                                                \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        NAME##_loop(t, n, 0);                                                                                                        \
    }                                                                                                                                \
    static void NAME##_stamped(struct nb_thread *t, uint64_t n)                                                                      \
    {                                                                                                                                \
        NAME##_loop(t, n, 1);                                                                                                        \
    }

OPERATION(atomic_add, , add(&at->counter), )
OPERATION(atomic_cas, , cas(&at->counter), )
OPERATION(sharded, , add(part(at, t->index)), )
OPERATION(per_node, , add(part(at, t->group)), )
OPERATION(mutex, pthread_mutex_lock(&at->lock.mutex), plain(&at->counter), pthread_mutex_unlock(&at->lock.mutex))
OPERATION(spin_ttas, ttas_enter(&at->lock), plain(&at->counter), ttas_leave(&at->lock))
OPERATION(ticket, ticket_enter(&at->lock), plain(&at->counter), ticket_leave(&at->lock))
OPERATION(mcs, mcs_enter(&at->lock, node(at, t->index)), plain(&at->counter), mcs_leave(&at->lock, node(at, t->index)))
OPERATION(futex, futex_enter(&at->lock), plain(&at->counter), futex_leave(&at->lock))

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct lines *at = (struct lines *)c->buffer;
    if (c->buffer_bytes < OWN + (uint64_t)c->threads * PART)
        return NB_UNSUPPORTED;
    memset(part(at, t->index), 0, PART);
    if (t->index)
        return NB_OK;
    memset(at, 0, OWN);
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    if (c->parameter[PRIMITIVE] == MUTEX_ADAPTIVE) {
#ifdef __GLIBC__
        pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ADAPTIVE_NP);
#else
        return NB_UNSUPPORTED;
#endif
    }
    if (c->parameter[PRIMITIVE] == MUTEX || c->parameter[PRIMITIVE] == MUTEX_ADAPTIVE)
        pthread_mutex_init(&at->lock.mutex, &kind);
    return NB_OK;
}

/* Every operation for the part of the window after the plain one, stamped. */
static void stamp(struct nb_thread *t, nb_batch batch)
{
    uint64_t end = nb_gate(t) + t->shared->window_ns / STAMPED_SHARE;
    do {
        batch(t, 64);
        t->executed += 64;
    } while (nb_now() < end);
}

int nb_run(struct nb_thread *t)
{
    static const nb_batch quiet[] = {atomic_add, atomic_cas, sharded, per_node, mutex, mutex, spin_ttas, ticket, mcs, futex};
    static const nb_batch stamped[] = {atomic_add_stamped, atomic_cas_stamped, sharded_stamped, per_node_stamped, mutex_stamped,
                                       mutex_stamped, spin_ttas_stamped, ticket_stamped, mcs_stamped, futex_stamped};
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    nb_window(t, quiet[c->parameter[PRIMITIVE]]);
    t->value[NB_LONGEST] = 0;
    memset(t->histogram, 0, sizeof t->histogram);
    stamp(t, stamped[c->parameter[PRIMITIVE]]);
    nb_gate(t);
    struct lines *at = (struct lines *)c->buffer;
    t->check = *part(at, t->index) + (t->index ? 0 : at->counter); /* the sum over all threads is the count */
    return NB_OK;
}
