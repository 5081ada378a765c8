/* Mutex or atomic: threads update and read one counter, protected in different ways, with work inside and outside.
 *
 * One operation: enter; update the counter, or read it; `section` dependent multiplies that need its value; leave; `think` more.
 * What needs no lock (the atomics) does the section's work unprotected, as such code does: that is its advantage. Beside the counter lies a
 * second word that must fit it: a reader that sees one without the other has seen a torn state.
 * Throughput comes from a window without any stamp: of all operations between two times that all share. In a second, shorter one, one operation in many is stamped
 * from the wish to the update and at its leaving: so few that the lock's load stays that of the first window. */
#include "nb_notes.h"
#include "nb_protected.h"
#include "nb_rseq.h"

enum { ATOMIC_ADD, ATOMIC_CAS, ATOMIC_ADD_SHARDED, ATOMIC_ADD_PER_NODE, RSEQ_SHARDED, BIASED, MUTEX, MUTEX_ADAPTIVE, SPIN_TTAS, SPIN_BACKOFF, TICKET, MCS, CLH,
       QSPINLOCK, FUTEX, WORD_LOCK, HBO, COHORT, CNA, RWLOCK, RW_SPIN, SEQLOCK, RCU, PRIMITIVES };

static const struct nb_parameter parameters[] = {
    [PRIMITIVE] = {"primitive",
                   "atomic_add|atomic_cas|atomic_add_sharded|atomic_add_per_node|rseq_sharded|biased|mutex|mutex_adaptive|spin_ttas|spin_backoff|ticket|mcs|clh|"
                   "qspinlock|futex|word_lock|hbo|cohort|cna|rwlock|rw_spin|seqlock|rcu",
                   "what protects the counter", ATOMIC_ADD, 0, PRIMITIVES - 1},
    [SECTION] = {"section", NULL, "dependent multiplies inside the critical section", 0, 0, 10000000},
    [THINK] = {"think", NULL, "dependent multiplies between two critical sections", 0, 0, 10000000},
    [READS] = {"reads", NULL, "operations of a hundred that only read", 0, 0, 100},
    [HOP] = {"hop", NULL, "multiplies that take as long as a line from CPU to CPU: what backoffs are made of", 50, 1, 10000000},
    [PRICE] = {"price", NULL, "ps of a multiply", 1000, 1, 1000000},
    [PART] = {"part", NULL, "bytes of a part of the memory: a page", 4096, 4096, 1 << 20},
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
    {"wait_max", "ns", "longest time from asking to having updated, of the operations stamped", NB_LOWER_IS_BETTER},
    {"handover", "ns", "median time from one holder's leaving to the update of the next, which was waiting", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("contention", 6, "one counter, protected in twenty-three ways", parameters, metrics);

/* Of value[], beside a window's own. Fairness is in millionths, 0 where there is none; UNSTEADY, where other windows have their shortest batch, see nb_unsteadiness; STAMPED_PS is the time of an
 * operation in the stamped window. */
enum { UNSTEADY = NB_SHORTEST, TORN = NB_MEAN_PS + 1, FAIR_1MS, FAIR_10MS, FAIR_100MS, FAIR_1S, HANDOVER, STAMPS, CLOCK, STAMPED_PS, WINDOW };

#define STAMPED_SHARE 4    /* the stamped window is a quarter of the plain one */
#define CLOCK_SHARE 32     /* readings of the clock are at most this part of a thread's time, and of the lock's: 3 % */
#define LEAST_HANDOVERS 50 /* of which a median is told */

/* The holder has just updated what was `seen`: how long that took from asking, and from the leaving of the one before, if that one was stamped as well and this one
 * had asked by then. The time of a reading of the clock lies between two readings, and is taken off. */
static inline void arrived(struct nb_thread *t, struct data *d, uint64_t asked, uint64_t seen)
{
    const uint64_t now = t->end_ns = nb_now(), clock = t->value[CLOCK];
    struct notes *own = notes(t->shared, t->index);
    nb_record(t, now - asked > clock ? now - asked - clock : 1, own->every);
    t->value[STAMPS]++;
    if (d && seen == d->left && asked < d->released && d->released + clock < now)
        nb_count(own->handovers, now - d->released - clock, 1);
}

static inline void leaving(struct nb_thread *t, struct data *d, uint64_t seen)
{
    d->left = seen + 1;
    d->released = t->end_ns = nb_now();
}

/* What a loop has around its operations: nothing, where there is nothing inside, between, or read; work; reads; work and reads; work and stamps. A loop of each kind, since what is
 * not asked for would cost up to a third of what is measured. */
enum { BARE, WORKING, READING, MIXED, STAMPED, KINDS }; /* each with work behind the same without */

/* Work feeds the next address: `nothing` is zero, but only the processor finds out. Without that, the next operation began
 * while the work was still going on, and 100 ns of it cost 60. Reads are spread evenly: one is `due` when their shares add up to a whole one, which is told by one
 * comparison and one subtraction an operation. */
#define OPERATION(NAME, WRITE, ...)                                                                                                  \
    static inline __attribute__((always_inline)) void NAME##_loop(struct nb_thread *t, uint64_t n, const int kind)                   \
    {                                                                                                                                \
        const struct nb_case *const c = t->shared;                                                                                   \
        const int stamped = kind == STAMPED;                                                                                         \
        const uint32_t index = t->index, group = t->group;                                                                           \
        const int idle = kind == BARE || kind == READING;                                                                            \
        const uint64_t section = idle ? 0 : (uint64_t)c->parameter[SECTION], think = idle ? 0 : (uint64_t)c->parameter[THINK];       \
        const uint64_t reads = kind < READING ? 0 : (uint64_t)c->parameter[READS], inside = stamped ? notes(c, index)->section : section; \
        const uint64_t hop = (uint64_t)c->parameter[HOP], bytes = part_bytes(c), own = (HOME + index) * bytes, near = (HOME + group) * bytes; \
        const uint64_t first = HOME * bytes;                                                                                         \
        const uint32_t shift = (uint32_t)__builtin_ctzll(bytes);                                                                     \
        uint8_t *const base = c->buffer; /* read once: what is measured may write anywhere, for all that the compiler knows */        \
        const uint64_t begun = t->executed % 100 * reads % 100, done = n;                                                            \
        uint64_t nothing = 0, x = 0, asked = 0, due = begun, torn = 0, writes = 100 - reads;                                         \
        NB_OPAQUE(nothing);                                                                                                          \
        if (kind >= READING)                                                                                                         \
            NB_OPAQUE(writes); /* or the compiler keeps its negative as well, and has too few registers for a reader */              \
        for (; n; n--) {                                                                                                             \
            struct lines *at = (struct lines *)(base + (idle ? 0 : x & nothing));                                                    \
            (void)at;                                                                                                                \
            if (stamped)                                                                                                             \
                asked = nb_now();                                                                                                    \
            if (kind >= READING && __builtin_expect(due >= writes, 1)) {                                                             \
                __VA_ARGS__;                                                                                                         \
                if (stamped)                                                                                                         \
                    arrived(t, NULL, asked, 0);                                                                                      \
            } else {                                                                                                                 \
                WRITE;                                                                                                               \
                if (kind >= READING)                                                                                                 \
                    due += 100;                                                                                                      \
            }                                                                                                                        \
            if (kind >= READING)                                                                                                     \
                due -= writes;                                                                                                       \
            x = nb_work(x, think);                                                                                                   \
        }                                                                                                                            \
        t->cursor += done - (begun + done * (100 - writes) - due) / 100; /* written; `reads` is not kept for it in a register */     \
        t->value[TORN] += torn;                                                                                                      \
        (void)asked, (void)torn, (void)index, (void)group, (void)own, (void)near, (void)hop, (void)section, (void)inside, (void)first, (void)shift; \
    }                                                                                                                                \
    static void NAME##_bare(struct nb_thread *t, uint64_t n) { NAME##_loop(t, n, BARE); }                                            \
    static void NAME##_working(struct nb_thread *t, uint64_t n) { NAME##_loop(t, n, WORKING); }                                      \
    static void NAME##_reading(struct nb_thread *t, uint64_t n) { NAME##_loop(t, n, READING); }                                      \
    static void NAME##_mixed(struct nb_thread *t, uint64_t n) { NAME##_loop(t, n, MIXED); }                                          \
    static void NAME##_stamped(struct nb_thread *t, uint64_t n) { NAME##_loop(t, n, STAMPED); }
#define UPDATED(DATA)                                                                                                                \
    if (stamped)                                                                                                                     \
    arrived(t, DATA, asked, x)
#define WORK x = nb_work(x, inside)
#define ATOMIC(NAME, UPDATE, READ) OPERATION(NAME, x = UPDATE; UPDATED(NULL); WORK, x = READ; x = nb_work(x, section))
#define HOLD(UPDATE)                                                                                                                 \
    const uint64_t seen = UPDATE;                                                                                                    \
    x = seen;                                                                                                                        \
    UPDATED(&at->data);                                                                                                              \
    WORK;                                                                                                                            \
    if (stamped)                                                                                                                     \
    leaving(t, &at->data, seen)
#define LOCK(NAME, ENTER, LEAVE) READ_WRITE(NAME, ENTER, LEAVE, ENTER, LEAVE)
#define READ_WRITE(NAME, ENTER, LEAVE, ENTER_READ, LEAVE_READ)                                                                       \
    OPERATION(NAME, ENTER; HOLD(plain(&at->data)); LEAVE, ENTER_READ; x = look(&at->data, section, &torn); LEAVE_READ)
#define MY(RECORD) (&((struct part *)((uint8_t *)at + own))->RECORD)
#define NEAR(RECORD) (&((struct part *)((uint8_t *)at + near))->RECORD)
#define FIRST(RECORD) ((uint8_t *)&((struct part *)((uint8_t *)at + first))->RECORD)

ATOMIC(atomic_add, nb_add_relaxed(&at->data.counter, 1), nb_peek(&at->data.counter))
ATOMIC(atomic_cas, cas(&at->data.counter), nb_peek(&at->data.counter))
ATOMIC(sharded, nb_add_relaxed(MY(counter), 1), sum(at, c->threads, bytes))
ATOMIC(per_node, nb_add_relaxed(NEAR(counter), 1), sum(at, at->groups, bytes))
#if NB_HAS_RSEQ
ATOMIC(rseq_sharded, nb_rseq_increment(FIRST(counter), shift), sum(at, parts_of(c), bytes))
#else
ATOMIC(rseq_sharded, 0, 0)
#endif
ATOMIC(biased, nb_add_relaxed(&at->data.counter, 1), sum(at, 1, bytes))
ATOMIC(biased_own, own_increment(MY(counter)), sum(at, 1, bytes)) /* the first thread's */
LOCK(mutex, pthread_mutex_lock(&at->lock.mutex), pthread_mutex_unlock(&at->lock.mutex))
LOCK(spin_ttas, ttas_enter(&at->lock), ttas_leave(&at->lock))
LOCK(spin_backoff, backoff_enter(&at->lock, hop), ttas_leave(&at->lock))
LOCK(ticket, ticket_enter(&at->lock, hop), ticket_leave(&at->lock))
LOCK(mcs, mcs_enter(&at->lock, MY(queue)), mcs_leave(&at->lock, MY(queue)))
LOCK(clh, clh_enter(&at->lock, MY(clh)), clh_leave(MY(clh)))
LOCK(qspinlock, queued_enter(&at->lock, index + 1, FIRST(queue) - bytes, bytes), queued_leave(&at->lock))
LOCK(futex, futex_enter(&at->lock), futex_leave(&at->lock))
LOCK(word_lock, word_enter(&at->lock, MY(word)), word_leave(&at->lock))
LOCK(hbo, hbo_enter(&at->lock, group, NEAR(stopped), FIRST(stopped), bytes, hop), hbo_leave(&at->lock))
LOCK(cohort, cohort_enter(&at->lock, NEAR(cohort), hop), cohort_leave(&at->lock, NEAR(cohort)))
LOCK(cna, cna_enter(&at->lock, MY(cna), group), cna_leave(&at->lock, MY(cna)))
READ_WRITE(rwlock, pthread_rwlock_wrlock(&at->lock.rwlock), pthread_rwlock_unlock(&at->lock.rwlock), pthread_rwlock_rdlock(&at->lock.rwlock),
           pthread_rwlock_unlock(&at->lock.rwlock))
READ_WRITE(rw_spin, rw_write_enter(&at->lock), rw_write_leave(&at->lock), rw_read_enter(&at->lock), rw_read_leave(&at->lock))
OPERATION(
    seqlock, ttas_enter(&at->lock); seq_write_begin(&at->sequence); HOLD(plain(&at->data)); seq_write_end(&at->sequence);
    ttas_leave(&at->lock), uint64_t seen, bad;
    do {
        seen = seq_read_begin(&at->sequence);
        bad = 0;
        x = look(&at->data, section, &bad);
    } while (seq_read_again(&at->sequence, seen));
    torn += bad)
OPERATION(
    rcu, rcu_away(MY(seen)); ttas_enter(&at->lock); HOLD(publish(c, at)); ttas_leave(&at->lock); rcu_back(MY(seen), &at->latest),
    uint64_t latest = nb_load_acquire(&at->latest); x = look(__atomic_load_n(&at->current, __ATOMIC_ACQUIRE), section, &torn); nb_store_release(MY(seen), latest))

#define ALL(NAME) {NAME##_bare, NAME##_working, NAME##_reading, NAME##_mixed, NAME##_stamped}
static const nb_batch loops[PRIMITIVES + 1][KINDS] = {
    ALL(atomic_add), ALL(atomic_cas), ALL(sharded),  ALL(per_node), ALL(rseq_sharded), ALL(biased), ALL(mutex),  ALL(mutex),   ALL(spin_ttas), ALL(spin_backoff),
    ALL(ticket),     ALL(mcs),        ALL(clh),      ALL(qspinlock), ALL(futex),       ALL(word_lock), ALL(hbo), ALL(cohort),  ALL(cna),       ALL(rwlock),
    ALL(rw_spin),    ALL(seqlock),    ALL(rcu),      ALL(biased_own)};

static inline const nb_batch *loops_of(const struct nb_thread *t)
{
    const int64_t primitive = t->shared->parameter[PRIMITIVE];
    return loops[primitive == BIASED && !t->index ? PRIMITIVES : primitive];
}

static inline nb_batch plain_loop(const struct nb_thread *t)
{
    const int64_t *p = t->shared->parameter;
    return loops_of(t)[(p[READS] ? READING : BARE) + (p[SECTION] || p[THINK])];
}

/* -- one entry --------------------------------------------------------------------------------------------------------------- */

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t primitive = c->parameter[PRIMITIVE];
    struct lines *at = (struct lines *)c->buffer;
    const uint64_t bytes = part_bytes(c);
    if (c->buffer_bytes < (HOME + 1) * bytes || bytes & (bytes - 1) || c->scratch_bytes < c->threads * sizeof(struct notes) || c->threads >= 65535)
        return NB_UNSUPPORTED;
    if ((primitive != RSEQ_SHARDED && primitive != ATOMIC_ADD_PER_NODE && primitive != HBO && primitive != COHORT ? c->threads : t->group + 1) > parts_of(c))
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
    if (primitive == CLH)
        at->lock.wide = (uintptr_t)&at->first;
    for (uint32_t i = 0; i < c->threads && primitive == CLH; i++)
        part(at, i, bytes)->clh.mine = (uintptr_t)&part(at, i, bytes)->node;
    for (uint32_t i = 0; i < c->threads && primitive == RCU; i++)
        rcu_away(&part(at, i, bytes)->seen);
    at->current = version(c, 0);
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
        rcu_away(&part(t->shared->buffer, t->index, part_bytes(t->shared))->seen);
}

static void back(const struct nb_thread *t)
{
    struct lines *at = (struct lines *)t->shared->buffer;
    if (t->shared->parameter[PRIMITIVE] == RCU)
        rcu_back(&part(at, t->index, part_bytes(t->shared))->seen, &at->latest);
}

/* ms since the last gate opened: before the first batch of an earlier entry, and huge */
static inline uint64_t since_gate(const struct nb_thread *t, uint64_t ns) { return (ns - t->shared->opens[(t->gates - 1) % NB_GATES]) / 1000000; }

/* How far the thread had come at its first look after the end of a ms: written once for each. Written at every look, once in 50 us, it took 1 us each time, 1 to 3 % of the
 * locked operations: they are slower for a while after a store elsewhere. */
static inline void note(const struct nb_thread *t)
{
    const uint64_t ended = since_gate(t, t->end_ns) - 1;
    uint64_t *executed = notes(t->shared, t->index)->executed;
    if (ended < MOST_MS && !executed[ended])
        executed[ended] = t->executed;
}

/* The plain window's batch, and how far the thread had come when the last one ended: while it read a clock of its own, the other had the line
 * for itself, and a contended operation seemed 4 % shorter. */
static void noted(struct nb_thread *t, uint64_t n)
{
    note(t);
    plain_loop(t)(t, n);
}

/* ns of one reading of the clock: the least mean of a few. */
static uint64_t clock_price(void)
{
    uint64_t least = UINT64_MAX;
    for (int round = 0; round < 8; round++) {
        uint64_t begin = nb_now(), end = begin;
        for (int k = 0; k < 16; k++)
            end = nb_now();
        least = end - begin < least ? end - begin : least;
    }
    return least / 16;
}

/* One operation in how many is stamped, by what the thread did in the plain window: a reading outside costs this thread's time, those inside the time of all, where they are
 * not taken off the section's work. */
static void plan_stamps(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct notes *own = notes(c, t->index);
    const uint64_t clock = t->value[CLOCK] = clock_price(), section = (uint64_t)c->parameter[SECTION];
    const uint64_t within = clock * (c->parameter[PRIMITIVE] < MUTEX ? 1 : 2), most = within * 1000 / (uint64_t)c->parameter[PRICE];
    const double added = (double)within * (section < most ? 1 - (double)section / (double)most : 0);
    const double each = (double)c->window_ns / (double)(t->operations + 1);
    own->section = section > most ? section - most : 0;
    own->every = 1 + (uint32_t)(CLOCK_SHARE * ((double)clock + c->threads * added) / each);
}

/* The part of the window after the plain one. Between two stamps the plain window's own loop. */
static void stamp(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const uint32_t every = notes(c, t->index)->every;
    const nb_batch plain = plain_loop(t), stamped = loops_of(t)[STAMPED];
    const uint64_t begin = nb_gate(t), end = begin + c->window_ns / STAMPED_SHARE, before = t->executed;
    uint32_t chance = t->index * 2654435761u + 1;
    back(t);
    do {
        chance = chance * 1664525 + 1013904223;
        const uint64_t n = (chance >> 8) % (2 * every - 1); /* every - 1 on average */
        plain(t, n);
        t->executed += n;
        stamped(t, 1);
        t->executed++;
    } while (t->end_ns < end);
    away(t);
    t->value[STAMPED_PS] = (t->end_ns - begin) * 1000 / (t->executed - before);
}

/* The first thread's, once all have ended: fairness over time, and the median of all hand-overs. */
static void conclude(struct nb_thread *t, uint64_t origin)
{
    const struct nb_case *c = t->shared;
    const uint64_t first = origin / 1000000 + 1, last = (origin + c->window_ns) / 1000000;
    uint64_t all = 0, seen = 0;
    for (int k = FAIR_1MS, ms = 1; k <= FAIR_1S; k++, ms *= 10)
        t->value[k] = nb_fairness(c, (uint64_t)ms, first, last);
    t->value[UNSTEADY] = nb_unsteadiness(c, first, last);
    for (uint32_t i = 1; i < c->threads; i++)
        for (int k = 0; k < NB_BINS; k++)
            notes(c, 0)->handovers[k] += notes(c, i)->handovers[k];
    for (int k = 0; k < NB_BINS; k++)
        all += notes(c, 0)->handovers[k];
    t->value[HANDOVER] = 0;
    for (int k = 0; k < NB_BINS && all >= LEAST_HANDOVERS && !t->value[HANDOVER]; k++)
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
    t->value[TORN] = t->value[STAMPS] = t->value[NB_LONGEST] = 0;
    for (uint32_t seen = 0; !nb_cas32_relaxed(&at->groups, &seen, t->group + 1) && seen <= t->group;)
        ;
    back(t);
    nb_count_window(t, noted);
    away(t);
    note(t);
    nb_note_ends(t, before);
    plan_stamps(t);
    nb_empty_histogram(t);
    const uint64_t end = t->end_ns;
    stamp(t);
    t->end_ns = end;
    t->value[WINDOW] = c->window_ns;
    nb_gate(t);
    if (t->index == 0)
        conclude(t, nb_count_warmup(c));
    t->check = t->index ? 0 : primitive == RCU ? at->current->counter : sum(at, parts_of(c), part_bytes(c)); /* the sum over all threads is what was written */
    return NB_OK;
}
