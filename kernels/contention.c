/* Mutex or atomic: threads update and read one counter, protected in different ways, with work inside and outside.
 *
 * One operation: enter; update the counter, or read it; `section` dependent multiplies that need its value; leave; `think` more.
 * What needs no lock (the atomics) does the section's work unprotected, as such code does: that is its advantage. Beside the counter lies a
 * second word that must fit it: a reader that sees one without the other has seen a torn state.
 * Throughput comes from a window without any stamp; a second, shorter one then stamps every operation from the wish to
 * the update, and counts the waits and the times from one holder's leaving to the next one's update. */
#include "nb_notes.h"
#include "nb_protected.h"
#include "nb_rseq.h"

enum { PRIMITIVE, SECTION, THINK, READS };
enum { ATOMIC_ADD, ATOMIC_CAS, ATOMIC_ADD_SHARDED, ATOMIC_ADD_PER_NODE, RSEQ_SHARDED, BIASED, MUTEX, MUTEX_ADAPTIVE, SPIN_TTAS, TICKET, MCS, CLH, FUTEX, HBO,
       COHORT, RWLOCK, RW_SPIN, SEQLOCK, RCU, PRIMITIVES };

static const struct nb_parameter parameters[] = {
    [PRIMITIVE] = {"primitive",
                   "atomic_add|atomic_cas|atomic_add_sharded|atomic_add_per_node|rseq_sharded|biased|mutex|mutex_adaptive|spin_ttas|ticket|mcs|clh|futex|hbo|"
                   "cohort|rwlock|rw_spin|seqlock|rcu",
                   "what protects the counter", ATOMIC_ADD, 0, PRIMITIVES - 1},
    [SECTION] = {"section", NULL, "dependent multiplies inside the critical section", 0, 0, 10000000},
    [THINK] = {"think", NULL, "dependent multiplies between two critical sections", 0, 0, 10000000},
    [READS] = {"reads", NULL, "operations of a hundred that only read", 0, 0, 100},
};
static const struct nb_metric metrics[] = {
    {"throughput", "operation/s", "operations of all threads", NB_HIGHER_IS_BETTER},
    {"time_per_operation", "ns", "time of one operation in one thread, waiting included", NB_LOWER_IS_BETTER},
    {"fairness", "1", "Jain index of the threads' rates", NB_HIGHER_IS_BETTER},
    {"fairness_1ms", "1", "the same over windows of 1 ms: their mean", NB_HIGHER_IS_BETTER},
    {"fairness_10ms", "1", "over windows of 10 ms", NB_HIGHER_IS_BETTER},
    {"fairness_100ms", "1", "over windows of 100 ms", NB_HIGHER_IS_BETTER},
    {"fairness_1s", "1", "over windows of 1 s", NB_HIGHER_IS_BETTER},
    {"fairness_nodes", "1", "Jain index of the rates of the nodes' threads", NB_HIGHER_IS_BETTER},
    {"wait_p999", "ns", "99.9th percentile of the time from asking to having updated", NB_LOWER_IS_BETTER},
    {"wait_max", "ns", "longest time from asking to having updated", NB_LOWER_IS_BETTER},
    {"handover", "ns", "median time from one holder's leaving to the update of the next, which was waiting", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("contention", 3, "one counter, protected in nineteen ways", parameters, metrics);

#define STAMPED_SHARE 4 /* the stamped window is a quarter of the plain one */

/* The holder has just updated: how long that took from asking, and from the leaving of the one before, if it had asked by then. */
static inline void arrived(struct nb_thread *t, struct data *d, uint64_t asked)
{
    const uint64_t now = nb_now();
    nb_record(t, now - asked);
    if (d && d->holder != t->index + 1 && asked < d->released && d->released < now)
        nb_count(notes(t->shared, t->index)->handovers, now - d->released);
    if (d)
        d->holder = t->index + 1;
}

/* Work feeds the next address: `nothing` is zero, but only the processor finds out. Without that, the next operation began
 * while the work was still going on, and 100 ns of it cost 60. 61 has no common divisor with 100: reads are spread evenly. */
#define OPERATION(NAME, WRITE, ...)                                                                                                  \
    static inline __attribute__((always_inline)) void NAME##_loop(struct nb_thread *t, uint64_t n, const int stamped)                \
    {                                                                                                                                \
        const struct nb_case *const c = t->shared;                                                                                   \
        const uint64_t section = (uint64_t)c->parameter[SECTION], think = (uint64_t)c->parameter[THINK];                             \
        const uint64_t reads = (uint64_t)c->parameter[READS];                                                                        \
        uint64_t nothing = 0, x = 0, asked = 0, number = t->executed, written = 0, torn = 0;                                         \
        NB_OPAQUE(nothing);                                                                                                          \
        for (; n; n--, number++) {                                                                                                   \
            struct lines *at = (struct lines *)(c->buffer + (x & nothing));                                                          \
            if (stamped)                                                                                                             \
                asked = nb_now();                                                                                                    \
            if (reads && number * 61 % 100 < reads) {                                                                                \
                __VA_ARGS__;                                                                                                         \
                if (stamped)                                                                                                         \
                    arrived(t, NULL, asked);                                                                                         \
            } else {                                                                                                                 \
                WRITE;                                                                                                               \
                written++;                                                                                                           \
            }                                                                                                                        \
            x = nb_work(x, think);                                                                                                   \
        }                                                                                                                            \
        t->cursor += written;                                                                                                        \
        t->value[TORN] += torn;                                                                                                      \
        (void)asked, (void)torn;                                                                                                     \
    }                                                                                                                                \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        NAME##_loop(t, n, 0);                                                                                                        \
    }                                                                                                                                \
    static void NAME##_stamped(struct nb_thread *t, uint64_t n)                                                                      \
    {                                                                                                                                \
        NAME##_loop(t, n, 1);                                                                                                        \
    }
#define STAMP(DATA)                                                                                                                  \
    if (stamped)                                                                                                                     \
        arrived(t, DATA, asked)
#define WORK x = nb_work(x, section)
#define ATOMIC(NAME, UPDATE, READ) OPERATION(NAME, x = UPDATE; STAMP(NULL); WORK, x = READ; WORK)
#define LEAVING                                                                                                                      \
    if (stamped)                                                                                                                     \
        at->data.released = nb_now()
#define LOCK(NAME, ENTER, LEAVE) READ_WRITE(NAME, ENTER, LEAVE, ENTER, LEAVE)
#define READ_WRITE(NAME, ENTER, LEAVE, ENTER_READ, LEAVE_READ)                                                                       \
    OPERATION(                                                                                                                       \
        NAME, ENTER; x = plain(&at->data); STAMP(&at->data); WORK; LEAVING; LEAVE, ENTER_READ; x = look(&at->data, section, &torn); LEAVE_READ)

/* Of what the first window counts, and fairness in millionths, 0 where there is none. */
enum { TORN = NB_MEAN_PS + 1, FAIR_1MS, FAIR_10MS, FAIR_100MS, FAIR_1S, HANDOVER };

ATOMIC(atomic_add, __atomic_fetch_add(&at->data.counter, 1, __ATOMIC_RELAXED), __atomic_load_n(&at->data.counter, __ATOMIC_RELAXED))
ATOMIC(atomic_cas, cas(&at->data.counter), __atomic_load_n(&at->data.counter, __ATOMIC_RELAXED))
ATOMIC(sharded, __atomic_fetch_add(&part(at, t->index)->counter, 1, __ATOMIC_RELAXED), sum(at, c->threads))
ATOMIC(per_node, __atomic_fetch_add(&part(at, t->group)->counter, 1, __ATOMIC_RELAXED), sum(at, at->groups))
#if NB_HAS_RSEQ
ATOMIC(rseq_sharded, nb_rseq_increment((uint8_t *)part(at, 0), PART_SHIFT), sum(at, parts_of(c)))
#else
ATOMIC(rseq_sharded, 0, 0)
#endif
ATOMIC(biased, t->index ? __atomic_fetch_add(&at->data.counter, 1, __ATOMIC_RELAXED) : own_increment(&part(at, 0)->counter), sum(at, 1))
LOCK(mutex, pthread_mutex_lock(&at->lock.mutex), pthread_mutex_unlock(&at->lock.mutex))
LOCK(spin_ttas, ttas_enter(&at->lock), ttas_leave(&at->lock))
LOCK(ticket, ticket_enter(&at->lock), ticket_leave(&at->lock))
LOCK(mcs, mcs_enter(&at->lock, &part(at, t->index)->node.mcs), mcs_leave(&at->lock, &part(at, t->index)->node.mcs))
LOCK(clh, clh_enter(&at->lock, &part(at, t->index)->clh), clh_leave(&part(at, t->index)->clh))
LOCK(futex, futex_enter(&at->lock), futex_leave(&at->lock))
LOCK(hbo, hbo_enter(&at->lock, t->group), hbo_leave(&at->lock))
LOCK(cohort, cohort_enter(&at->lock, &part(at, t->group)->cohort), cohort_leave(&at->lock, &part(at, t->group)->cohort))
READ_WRITE(rwlock, pthread_rwlock_wrlock(&at->lock.rwlock), pthread_rwlock_unlock(&at->lock.rwlock), pthread_rwlock_rdlock(&at->lock.rwlock),
           pthread_rwlock_unlock(&at->lock.rwlock))
READ_WRITE(rw_spin, rw_write_enter(&at->lock), rw_write_leave(&at->lock), rw_read_enter(&at->lock), rw_read_leave(&at->lock))
OPERATION(
    seqlock, ttas_enter(&at->lock); seq_write_begin(&at->sequence); x = plain(&at->data); STAMP(&at->data); WORK; LEAVING; seq_write_end(&at->sequence);
    ttas_leave(&at->lock), uint64_t seen, bad;
    do {
        seen = seq_read_begin(&at->sequence);
        bad = 0;
        x = look(&at->data, section, &bad);
    } while (seq_read_again(&at->sequence, seen));
    torn += bad)
OPERATION(
    rcu, uint64_t *seen = &part(at, t->index)->seen; rcu_away(seen); ttas_enter(&at->lock); x = publish(c, at); STAMP(&at->data); WORK; LEAVING;
    ttas_leave(&at->lock); rcu_back(seen, &at->latest), uint64_t latest = __atomic_load_n(&at->latest, __ATOMIC_ACQUIRE);
    x = look(__atomic_load_n(&at->current, __ATOMIC_ACQUIRE), section, &torn); __atomic_store_n(&part(at, t->index)->seen, latest, __ATOMIC_RELEASE))

#define BOTH(NAME) {NAME, NAME##_stamped}
static const nb_batch loops[PRIMITIVES][2] = {BOTH(atomic_add), BOTH(atomic_cas), BOTH(sharded), BOTH(per_node), BOTH(rseq_sharded), BOTH(biased), BOTH(mutex),
                                              BOTH(mutex),      BOTH(spin_ttas),  BOTH(ticket),  BOTH(mcs),      BOTH(clh),          BOTH(futex),  BOTH(hbo),
                                              BOTH(cohort),     BOTH(rwlock),     BOTH(rw_spin), BOTH(seqlock),  BOTH(rcu)};

/* -- one entry --------------------------------------------------------------------------------------------------------------- */

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t primitive = c->parameter[PRIMITIVE];
    struct lines *at = (struct lines *)c->buffer;
    if (c->buffer_bytes < 2 * OWN + (uint64_t)c->threads * PART || c->scratch_bytes < c->threads * sizeof(struct notes))
        return NB_UNSUPPORTED;
#if NB_HAS_RSEQ
    if (primitive == RSEQ_SHARDED && (!nb_rseq_works() || (uint64_t)sched_getcpu() >= parts_of(c)))
        return NB_UNSUPPORTED;
#else
    if (primitive == RSEQ_SHARDED)
        return NB_UNSUPPORTED;
#endif
    t->cursor = 0;
    memset(notes(c, t->index), 0, sizeof(struct notes));
    if (t->index)
        return NB_OK;
    memset(c->buffer, 0, c->buffer_bytes);
    for (uint32_t i = 0; i < c->threads; i++) {
        part(at, i)->clh.mine = &part(at, i)->node.clh;
        rcu_away(&part(at, i)->seen);
    }
    if (primitive == CLH)
        at->lock.last = &at->first;
    at->current = (struct data *)(c->buffer + c->buffer_bytes - OWN);
    if (primitive == RWLOCK)
        return pthread_rwlock_init(&at->lock.rwlock, NULL) ? NB_UNSUPPORTED : NB_OK;
    if (primitive != MUTEX && primitive != MUTEX_ADAPTIVE)
        return NB_OK;
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    if (primitive == MUTEX_ADAPTIVE) {
#ifdef __GLIBC__
        pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_ADAPTIVE_NP);
#else
        return NB_UNSUPPORTED;
#endif
    }
    return pthread_mutex_init(&at->lock.mutex, &kind) ? NB_UNSUPPORTED : NB_OK;
}

/* A thread that waits at a gate reads nothing: the last writers must not wait for it. */
static void away(const struct nb_thread *t)
{
    if (t->shared->parameter[PRIMITIVE] == RCU)
        rcu_away(&part((struct lines *)t->shared->buffer, t->index)->seen);
}

static void back(const struct nb_thread *t)
{
    struct lines *at = (struct lines *)t->shared->buffer;
    if (t->shared->parameter[PRIMITIVE] == RCU)
        rcu_back(&part(at, t->index)->seen, &at->latest);
}

/* The plain window's batch, and how far the thread had come when the last one ended: while it read a clock of its own, the other had the line
 * for itself, and a contended operation seemed 4 % shorter. */
static void noted(struct nb_thread *t, uint64_t n)
{
    const uint64_t ms = (t->end_ns - t->shared->opens[(t->gates - 1) % NB_GATES]) / 1000000; /* before the first batch: of an earlier entry, and huge */
    if (ms < MOST_MS)
        notes(t->shared, t->index)->executed[ms] = t->executed;
    loops[t->shared->parameter[PRIMITIVE]][0](t, n);
}

/* Every operation for the part of the window after the plain one, stamped. */
static void stamp(struct nb_thread *t, nb_batch batch)
{
    uint64_t end = nb_gate(t) + t->shared->window_ns / STAMPED_SHARE;
    back(t);
    do {
        batch(t, 64);
        t->executed += 64;
    } while (nb_now() < end);
    away(t);
}

/* The first thread's, once all have ended: fairness over time, and the median of all hand-overs. */
static void conclude(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    uint64_t all = 0, seen = 0;
    for (int k = FAIR_1MS, ms = 1; k <= FAIR_1S; k++, ms *= 10)
        t->value[k] = nb_fairness(c, (uint64_t)ms);
    for (uint32_t i = 1; i < c->threads; i++)
        for (int k = 0; k < NB_BINS; k++)
            notes(c, 0)->handovers[k] += notes(c, i)->handovers[k];
    for (int k = 0; k < NB_BINS; k++)
        all += notes(c, 0)->handovers[k];
    t->value[HANDOVER] = 0;
    for (int k = 0; k < NB_BINS && all && !t->value[HANDOVER]; k++)
        if ((seen += notes(c, 0)->handovers[k]) * 2 >= all)
            t->value[HANDOVER] = nb_bin_ns((uint32_t)k);
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t primitive = c->parameter[PRIMITIVE];
    struct lines *at = (struct lines *)c->buffer;
    const uint64_t before = t->executed;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    memset(notes(c, t->index), 0, sizeof(struct notes));
    t->value[TORN] = 0;
    for (uint32_t seen = 0; !__atomic_compare_exchange_n(&at->groups, &seen, t->group + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED) && seen <= t->group;)
        ;
    back(t);
    nb_window(t, noted);
    away(t);
    nb_note_ends(t, before);
    t->value[NB_LONGEST] = 0;
    memset(t->histogram, 0, sizeof t->histogram);
    stamp(t, loops[primitive][1]);
    nb_gate(t);
    if (t->index == 0)
        conclude(t);
    t->check = t->index ? 0 : primitive == RCU ? at->current->counter : sum(at, parts_of(c)); /* the sum over all threads is what was written */
    return NB_OK;
}
