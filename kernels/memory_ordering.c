/* Litmus tests: which outcomes do two accesses to two words have, seen from two or four CPUs at the same time?
 *
 * A round is 64 instances of a test, each on two lines of its own. All threads wait for each other before a round, begin it at a time that the first of
 * them names (released by a line, the last to see it would come a hop too late: the reads of a round take 20 ns) and run through it as fast as they can. Word i holds the number of the round that wrote it:
 * a read is new or old by that, and nothing needs to be put back. What each thread read goes out as masks with a bit for each instance. Every
 * thread counts all outcomes for itself: the counts of all must be equal. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"

enum { TEST, ORDERING };
enum { STORE_BUFFERING, MESSAGE_PASSING, LOAD_BUFFERING, IRIW };
enum { PLAIN, ACQUIRE_RELEASE, FENCE, SEQ_CST, ORDERINGS };

static const struct nb_parameter parameters[] = {
    [TEST] = {"test", "store_buffering|message_passing|load_buffering|iriw", "who writes and reads what", STORE_BUFFERING, 0, 3},
    [ORDERING] = {"ordering", "plain|acquire_release|fence|seq_cst",
                  "plain accesses; acquire loads and release stores; a full fence between two; sequentially consistent ones", PLAIN, 0, 3},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one trial, waiting for the others before each 64 included", NB_LOWER_IS_BETTER},
    {"weak", "per 10^8", "trials whose outcome no interleaving of the threads explains", NB_NEITHER_IS_BETTER},
    {"all_old", "per 10^8", "trials in which every read saw the old value", NB_NEITHER_IS_BETTER},
    {"all_new", "per 10^8", "trials in which every read saw the new value", NB_NEITHER_IS_BETTER},
    {"trials", "1", "in the window", NB_NEITHER_IS_BETTER},
};
NB_DESCRIBE("memory_ordering", 1, "litmus tests", parameters, metrics);

#define INSTANCES 64u
#define APART 128u /* bytes between words: two lines, so that no prefetcher couples them */
#define CONTROLS (2 * INSTANCES * APART)
#define CONTROL 256u
#define AHEAD 500u /* ns from naming the time to it: longer than a line takes to any thread */
#define MOST_DELAY 63u /* steps by which a thread begins a round later than it could: phases differ from round to round */

struct control {
    uint64_t done;        /* twice the last round that the thread has finished, plus one if it was the window's last */
    uint64_t read[2][2]; /* by parity of the round: what its first and its second read saw */
    uint64_t start[2];   /* of the first thread, likewise: when the round begins */
};

static struct control *control(const struct nb_case *c, uint32_t index)
{
    return (struct control *)(c->buffer + CONTROLS + index * CONTROL);
}

#define INLINE static inline __attribute__((always_inline))

INLINE void put(uint64_t *word, uint64_t value, int ordering)
{
    if (ordering == SEQ_CST)
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    else if (ordering == ACQUIRE_RELEASE)
        __atomic_store_n(word, value, __ATOMIC_RELEASE);
    else
        __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

INLINE uint64_t is_new(uint64_t *word, uint64_t value, int ordering)
{
    if (ordering == SEQ_CST)
        return __atomic_load_n(word, __ATOMIC_SEQ_CST) == value;
    if (ordering == ACQUIRE_RELEASE)
        return __atomic_load_n(word, __ATOMIC_ACQUIRE) == value;
    return __atomic_load_n(word, __ATOMIC_RELAXED) == value;
}

INLINE void then(int ordering)
{
    if (ordering == FENCE)
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    else
        __asm__ volatile("" : : : "memory"); /* what is tested is the processor, not the compiler */
}

/* A thread's part of a round: two accesses, in this order, to `first` and `second` of each instance. */
#define SHAPE(NAME, FIRST, SECOND)                                                                                                   \
    INLINE void NAME(uint8_t *first, uint8_t *second, uint64_t round, uint64_t *read, int ordering)                                  \
    {                                                                                                                                \
        for (unsigned i = 0; i < INSTANCES; i++) {                                                                                   \
            uint64_t *a = (uint64_t *)(first + i * APART), *b = (uint64_t *)(second + i * APART);                                    \
            FIRST;                                                                                                                   \
            then(ordering);                                                                                                          \
            SECOND;                                                                                                                  \
        }                                                                                                                            \
    }
SHAPE(write_read, put(a, round, ordering), read[0] |= is_new(b, round, ordering) << i)
SHAPE(write_write, ((void)read, put(a, round, ordering)), put(b, round, ordering))
SHAPE(read_write, read[0] |= is_new(a, round, ordering) << i, put(b, round, ordering))
SHAPE(read_read, read[0] |= is_new(a, round, ordering) << i, read[1] |= is_new(b, round, ordering) << i)
SHAPE(write_only, (void)read, ((void)b, put(a, round, ordering)))

/* What thread `index` does in a test; x and y are the instances' two words. */
INLINE void play_as(int64_t test, int ordering, uint32_t index, uint8_t *x, uint8_t *y, uint64_t round, uint64_t *read)
{
    uint8_t *mine = index % 2 ? y : x, *other = index % 2 ? x : y;
    if (test == STORE_BUFFERING)
        write_read(mine, other, round, read, ordering);
    else if (test == LOAD_BUFFERING)
        read_write(mine, other, round, read, ordering);
    else if (test == IRIW && index < 2)
        write_only(mine, other, round, read, ordering);
    else if (test == IRIW)
        read_read(mine, other, round, read, ordering);
    else if (index == 0)
        write_write(x, y, round, read, ordering);
    else
        read_read(y, x, round, read, ordering);
}

static void play(const struct nb_thread *t, uint64_t round, uint64_t *read)
{
    const int64_t *p = t->shared->parameter;
    uint8_t *x = t->shared->buffer, *y = x + INSTANCES * APART;
    if (p[ORDERING] == PLAIN)
        play_as(p[TEST], PLAIN, t->index, x, y, round, read);
    else if (p[ORDERING] == ACQUIRE_RELEASE)
        play_as(p[TEST], ACQUIRE_RELEASE, t->index, x, y, round, read);
    else if (p[ORDERING] == FENCE)
        play_as(p[TEST], FENCE, t->index, x, y, round, read);
    else
        play_as(p[TEST], SEQ_CST, t->index, x, y, round, read);
}

/* Adds the outcomes of a finished round to value[]: bit k of an outcome's number says whether read k saw the new value. */
static void count(struct nb_thread *t, uint64_t round)
{
    const struct nb_case *c = t->shared;
    const int64_t test = c->parameter[TEST];
    uint64_t reads[4], n = 0;
    for (uint32_t i = 0; i < c->threads; i++) {
        const uint64_t *read = control(c, i)->read[round % 2];
        const int both = test == IRIW ? i > 1 : test == MESSAGE_PASSING && i == 1;
        if (both || test == STORE_BUFFERING || test == LOAD_BUFFERING)
            reads[n++] = read[0];
        if (both)
            reads[n++] = read[1];
    }
    for (uint64_t outcome = 0; outcome < 1u << n; outcome++) {
        uint64_t seen = ~0ull;
        for (uint64_t k = 0; k < n; k++)
            seen &= outcome >> k & 1 ? reads[k] : ~reads[k];
        t->value[outcome] += (uint64_t)__builtin_popcountll(seen);
    }
}

/* Waits until all have finished `round`; whether it was the window's last. */
static int meet(const struct nb_thread *t, uint64_t round)
{
    for (uint32_t i = 0; i < t->shared->threads; i++)
        while (__atomic_load_n(&control(t->shared, i)->done, __ATOMIC_ACQUIRE) / 2 < round)
            ;
    return __atomic_load_n(&control(t->shared, 0)->done, __ATOMIC_ACQUIRE) == 2 * round + 1; /* it may be a round ahead by now */
}

/* All leave at the same time, and each a little later by chance. `before`: when the round of the same parity began. */
static uint64_t start(const struct nb_thread *t, uint64_t round, uint64_t before, uint64_t *random)
{
    uint64_t *named = &control(t->shared, 0)->start[round % 2], at;
    if (t->index == 0)
        __atomic_store_n(named, nb_now() + AHEAD, __ATOMIC_RELEASE);
    while ((at = __atomic_load_n(named, __ATOMIC_ACQUIRE)) <= before)
        ;
    while (nb_now() < at)
        ;
    *random ^= *random << 13, *random ^= *random >> 7, *random ^= *random << 17;
    for (uint64_t delay = *random & MOST_DELAY; delay; delay--)
        NB_OPAQUE(delay);
    return at;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->threads != (c->parameter[TEST] == IRIW ? 4u : 2u) || c->buffer_bytes < CONTROLS + c->threads * CONTROL)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        if (t->index == 0)
            memset(c->buffer, 0, c->buffer_bytes);
        return NB_OK;
    }
    struct control *own = control(c, t->index);
    uint64_t first = t->executed / INSTANCES, round = first, random = 0x9e3779b97f4a7c15u * (t->index + 1);
    uint64_t began[2] = {control(c, 0)->start[0], control(c, 0)->start[1]};
    own->done &= ~1ull; /* the end of the last window */
    memset(t->value, 0, sizeof t->value);
    nb_gate(t);
    t->begin_ns = nb_now();
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    do {
        uint64_t read[2] = {0, 0};
        if (round++ > first)
            count(t, round - 1);
        began[round % 2] = start(t, round, began[round % 2], &random);
        play(t, round, read);
        memcpy(own->read[round % 2], read, sizeof read);
        const int last = t->index == 0 && nb_now() >= t->begin_ns + c->window_ns;
        __atomic_store_n(&own->done, 2 * round + (uint64_t)last, __ATOMIC_RELEASE);
    } while (!meet(t, round));
    count(t, round);
    t->end_ns = nb_now();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    t->operations = (round - first) * INSTANCES;
    t->executed += t->operations;
    t->check = 0;
    for (unsigned i = 0; i < 2 * INSTANCES; i++)
        t->check += *(uint64_t *)(c->buffer + i * APART);
    return NB_OK;
}
