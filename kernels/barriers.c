/* Asymmetric barriers: two sides that each store and then read what the other one stores need a barrier between. With fences both sides pay; with membarrier the side that passes often has none, and the
 * other one has the kernel make every CPU that runs this process pass one (Desnoyers et al. 2012, "User-level implementations of read-copy update").
 *
 * The first thread is measured: a turn is so many fast passes and one slow one. A second one, where there is one, runs meanwhile, so that membarrier has somebody to interrupt. Afterwards both play
 * the two sides against each other, for outcomes that the barriers forbid: that both read the old value. */
#include "nb_series.h"
#include "nb_wait.h"
#include <linux/membarrier.h>
#include <sys/syscall.h>

enum { METHOD, PASSES };
enum { NONE, FENCE, MEMBARRIER, MEMBARRIER_GLOBAL };
/* Of value[]: ps of the median turn's fast passes and of its slow one; since NB_PREPARE: fast passes, turns that left what they were to leave, trials, those in which both sides read the old value. */
enum { FAST_PS = 6, SLOW_PS, PASSED, LEFT, TRIALS, WEAK };

#define INSTANCES 64u /* of the two words, in a round: the stores of one side keep its store buffer busy */
#define ROUNDS 100u   /* after each window: 2 ms with membarrier, 1 s where a call takes 10 ms */
#define GLOBAL_ROUNDS 4u
#define DELAYS 512u   /* multiples of what a step takes, by which a side begins later by chance */
#define MOST_PASSES (1 << 20)

static const struct nb_parameter parameters[] = {
    [METHOD] = {"method", "none|fence|membarrier|membarrier_global", "what stands between the store and the read", FENCE, 0, MEMBARRIER_GLOBAL},
    [PASSES] = {"passes", NULL, "fast passes for each slow one", 1024, 64, MOST_PASSES},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of a fast pass, with its share of the slow one", NB_LOWER_IS_BETTER},
    {"fast", "ns", "of a fast pass: a store, the barrier, a read", NB_LOWER_IS_BETTER},
    {"slow", "ns", "of a slow barrier", NB_LOWER_IS_BETTER},
    {"weak", "per 10^8", "trials in which both sides read the old value", NB_NEITHER_IS_BETTER},
    {"trials", "1", "of both sides against each other", NB_NEITHER_IS_BETTER},
};
NB_DESCRIBE("barriers", 2, "fences against membarrier", parameters, metrics);

struct place {
    uint64_t mine;
    uint8_t pad0[NB_APART - 8];
    uint64_t other; /* read by each fast pass: always 1 */
    uint8_t pad1[NB_APART - 8];
    uint32_t measures, stops;
    uint8_t pad2[NB_APART - 8];
    uint64_t round; /* that begins */
    uint8_t pad3[NB_APART - 8];
    uint64_t done, old; /* the one that the second thread has done with, and in which instances it read the old value */
    uint8_t pad4[NB_APART - 16];
    struct nb_series fast, slow;
};

struct words { /* of the trials */
    uint64_t word;
    uint8_t pad[NB_APART_ODD - 8];
};

static struct words *words(const struct nb_case *c, uint32_t side)
{
    return (struct words *)(c->buffer + (sizeof(struct place) + NB_APART - 1) / NB_APART * NB_APART) + side * INSTANCES;
}

static uint64_t bytes_needed(void) { return (sizeof(struct place) + NB_APART - 1) / NB_APART * NB_APART + 2 * INSTANCES * sizeof(struct words); }

static uint64_t clock_ns; /* what a reading takes */
static int refused;

static int membarrier(int command) { return (int)syscall(SYS_membarrier, command, 0, 0); }

#define INLINE static inline __attribute__((always_inline))

INLINE void between(int fence)
{
    if (fence)
        nb_full_fence();
    else
        __asm__ volatile("" : : : "memory"); /* the processor may do what the compiler may not */
}

static void slow_barrier(int64_t method)
{
    if (method == FENCE)
        nb_full_fence();
    else if (method == MEMBARRIER)
        refused |= membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
    else if (method == MEMBARRIER_GLOBAL)
        refused |= membarrier(MEMBARRIER_CMD_GLOBAL);
    else
        __asm__ volatile("" : : : "memory");
}

INLINE uint64_t pass(struct place *p, uint64_t number, uint64_t passes, int fence)
{
    uint64_t sum = 0;
    for (const uint64_t end = number + passes; number != end;) {
        nb_store_relaxed(&p->mine, ++number);
        between(fence);
        sum += nb_load_relaxed(&p->other);
    }
    return sum;
}

static __attribute__((noinline)) uint64_t pass_plain(struct place *p, uint64_t number, uint64_t passes) { return pass(p, number, passes, 0); }
static __attribute__((noinline)) uint64_t pass_fenced(struct place *p, uint64_t number, uint64_t passes) { return pass(p, number, passes, 1); }

static inline uint64_t less(uint64_t ns) { return ns > clock_ns ? ns - clock_ns : 0; }

static uint64_t turn(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = (struct place *)c->buffer;
    const uint64_t passes = (uint64_t)c->parameter[PASSES], number = t->value[PASSED];
    const int64_t method = c->parameter[METHOD];
    const int measures = t->begin_ns > 0;
    if (measures && !p->measures)
        nb_store32_release(&p->measures, 1);
    const uint64_t before = nb_now(), sum = (method == FENCE ? pass_fenced : pass_plain)(p, number, passes), passed = nb_now();
    slow_barrier(method);
    const uint64_t after = nb_now();
    t->value[PASSED] = number + passes;
    t->value[LEFT] += sum == passes && p->mine == number + passes;
    nb_series_add(&p->fast, less(passed - before), measures);
    nb_series_add(&p->slow, less(after - passed), measures);
    return less(after - before);
}

/* Runs, and does not touch what the first thread does. */
static void run_beside(struct nb_thread *t, struct place *p)
{
    uint64_t turns = 0, x = 1;
    while (!nb_load32_acquire(&p->stops)) {
        if (!t->begin_ns && nb_load32_acquire(&p->measures)) {
            t->cpu_begin = sched_getcpu();
            t->run_delay_ns = nb_run_delay(t);
            t->begin_ns = nb_now();
            turns = 0;
        }
        x = nb_work(x, 16);
        turns++;
    }
    t->end_ns = nb_now();
    t->cpu_end = sched_getcpu();
    t->run_delay_ns = t->begin_ns ? nb_run_delay(t) - t->run_delay_ns : 0;
    if (!t->begin_ns) /* it had no CPU for the whole of the window */
        t->begin_ns = t->end_ns, t->cpu_begin = t->cpu_end;
    t->operations = turns;
    t->executed += turns;
    t->gaps = 0;
    t->gap_ns = 0;
    t->cursor = x;
}

/* -- both sides against each other ----------------------------------------------------------------------------------------------- */

static uint64_t delay_of(uint64_t round, uint64_t side) /* by chance (splitmix64; Steele, Lea, Flood 2014) */
{
    uint64_t x = (2 * round + side) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    return (x ^ x >> 27) * 0x94d049bb133111ebu % DELAYS;
}

/* One side's instances: those in which it read the old value. The slow side has one barrier between all its stores and all its reads. */
INLINE uint64_t fast_side(struct words *own, const struct words *other, uint64_t round, int fence)
{
    uint64_t old = 0;
    for (uint32_t k = 0; k < INSTANCES; k++) {
        nb_store_relaxed(&own[k].word, round);
        between(fence);
        old |= (uint64_t)(nb_load_relaxed(&other[k].word) != round) << k;
    }
    return old;
}

static uint64_t slow_side(struct words *own, const struct words *other, uint64_t round, int64_t method)
{
    uint64_t old = 0;
    for (uint32_t k = 0; k < INSTANCES; k++)
        nb_store_relaxed(&own[k].word, round);
    slow_barrier(method);
    for (uint32_t k = 0; k < INSTANCES; k++)
        old |= (uint64_t)(nb_load_relaxed(&other[k].word) != round) << k;
    return old;
}

static void play(struct nb_thread *t, struct place *p)
{
    const struct nb_case *c = t->shared;
    const int64_t method = c->parameter[METHOD];
    const uint64_t first = p->round;
    nb_gate(t); /* both have read it */
    for (uint64_t round = first + 1; round <= first + (method == MEMBARRIER_GLOBAL ? GLOBAL_ROUNDS : ROUNDS); round++) {
        if (t->index == 0)
            nb_store_release(&p->round, round);
        else
            nb_await(&p->round, round, c->crowded);
        for (uint64_t wait = delay_of(round, t->index); wait; wait--)
            __asm__ volatile("" : : : "memory");
        if (t->index == 0) {
            const uint64_t old = slow_side(words(c, 0), words(c, 1), round, method);
            nb_await(&p->done, round, c->crowded);
            t->value[WEAK] += (uint64_t)__builtin_popcountll(old & p->old);
            t->value[TRIALS] += INSTANCES;
        } else {
            p->old = method == FENCE ? fast_side(words(c, 1), words(c, 0), round, 1) : fast_side(words(c, 1), words(c, 0), round, 0);
            nb_store_release(&p->done, round);
        }
    }
}

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = (struct place *)c->buffer;
    const int64_t method = c->parameter[METHOD];
    memset(t->value, 0, sizeof t->value);
    t->check = t->executed = 0;
    if (t->index)
        return NB_OK;
    memset(c->buffer, 0, c->buffer_bytes);
    p->other = 1;
    if (method < MEMBARRIER)
        return NB_OK;
    const int can = membarrier(MEMBARRIER_CMD_QUERY), wanted = method == MEMBARRIER ? MEMBARRIER_CMD_PRIVATE_EXPEDITED : MEMBARRIER_CMD_GLOBAL;
    if (can < 0 || !(can & wanted))
        return NB_UNSUPPORTED;
    return method == MEMBARRIER && membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) ? NB_UNSUPPORTED : NB_OK;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = (struct place *)c->buffer;
    if (c->threads > 2 || c->buffer_bytes < bytes_needed())
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    t->begin_ns = 0;
    if (t->index) {
        nb_gate(t);
        run_beside(t, p);
        play(t, p);
        return NB_OK;
    }
    clock_ns = nb_clock_cost();
    refused = 0;
    p->measures = p->stops = 0;
    nb_series_begin(&p->fast);
    nb_series_begin(&p->slow);
    nb_each(t, turn);
    t->value[FAST_PS] = nb_series_median_ps(&p->fast);
    t->value[SLOW_PS] = nb_series_median_ps(&p->slow);
    nb_store32_release(&p->stops, 1);
    if (c->threads > 1)
        play(t, p);
    t->check = t->value[LEFT];
    return refused ? NB_UNSUPPORTED : NB_OK;
}
