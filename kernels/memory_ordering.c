/* Litmus tests: which outcomes do two accesses to two words have, seen from two or four CPUs at the same time?
 *
 * A round is 64 instances of a test, each on two lines of its own. All threads wait for each other before a round, begin it at a time that the first of
 * them names (released by a line, the last to see it would come a hop too late: the reads of a round take 20 ns) and run through it as fast as they can. Word i holds the number of the round that wrote it:
 * a read is new or old by that, and nothing needs to be put back. What each thread read goes out as masks with a bit for each instance. Every
 * thread counts all outcomes for itself: the counts of all must be equal.
 *
 * Rare outcomes need stirring (litmus7; Alglave, Maranget, Sarkar, Sewell 2011): each thread begins a round later by chance, has fetched some of its lines and
 * flushed others, and in some rounds goes through the instances in an order of its own, or finds x and y in one line. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"

enum { TEST, ORDERING, SEED };
enum { STORE_BUFFERING, MESSAGE_PASSING, LOAD_BUFFERING, IRIW };
enum { PLAIN, ACQUIRE_RELEASE, FENCE, SEQ_CST, ORDERINGS };

static const struct nb_parameter parameters[] = {
    [TEST] = {"test", "store_buffering|message_passing|load_buffering|iriw", "who writes and reads what", STORE_BUFFERING, 0, 3},
    [ORDERING] = {"ordering", "plain|acquire_release|fence|seq_cst",
                  "plain accesses; acquire loads and release stores; a full fence between two; sequentially consistent ones", PLAIN, 0, 3},
    [SEED] = {"seed", NULL, "of all that is by chance", 1, 0, INT64_MAX},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one trial, waiting for the others before each 64 included", NB_LOWER_IS_BETTER},
    {"weak", "per 10^8", "trials whose outcome no interleaving of the threads explains", NB_NEITHER_IS_BETTER},
    {"all_old", "per 10^8", "trials in which every read saw the old value", NB_NEITHER_IS_BETTER},
    {"all_new", "per 10^8", "trials in which every read saw the new value", NB_NEITHER_IS_BETTER},
    {"trials", "1", "in the window", NB_NEITHER_IS_BETTER},
};
NB_DESCRIBE("memory_ordering", 2, "litmus tests", parameters, metrics);

#define INLINE static inline __attribute__((always_inline))
#define INSTANCES 64u
#define BESIDE 8u                  /* from x to y where they are in one line */
#define CONTROLS (2 * INSTANCES * NB_APART_ODD)
#define CONTROL NB_APART
#define AHEAD 500u    /* ns from naming the time to it: longer than a line takes to any thread */
#define OCTAVES 14u   /* of delays: 0, 1, 2 to 3, ... up to 8,191 steps, which are 2 us */
#define IN_ONE_LINE 8 /* one round in so many has x and y in one line */
#define OWN_ORDER 4   /* and one in so many has its instances in another order for each thread */

struct control {
    uint64_t done;        /* twice the last round that the thread has finished, plus one if it was the window's last */
    uint64_t read[2][2]; /* by parity of the round: what its first and its second read saw */
    uint64_t start[2];   /* of the first thread, likewise: when the round begins */
};

static struct control *control(const struct nb_case *c, uint32_t index)
{
    return (struct control *)(c->buffer + CONTROLS + index * CONTROL);
}

/* How a thread plays a round: x and y of the first instance, and the order of them, k -> k * step + first. */
struct turn {
    uint8_t *x, *y;
    uint64_t step, first;
};

INLINE void put(uint64_t *word, uint64_t value, int ordering)
{
    if (ordering == SEQ_CST)
        nb_store(word, value);
    else if (ordering == ACQUIRE_RELEASE)
        nb_store_release(word, value);
    else
        nb_store_relaxed(word, value);
}

INLINE uint64_t is_new(uint64_t *word, uint64_t value, int ordering)
{
    if (ordering == SEQ_CST)
        return nb_load(word) == value;
    if (ordering == ACQUIRE_RELEASE) /* ldar on aarch64, whatever the compiler may take: with ldapr other outcomes are allowed */
        return nb_load_acquire(word) == value;
    return nb_load_relaxed(word) == value;
}

INLINE void then(int ordering)
{
    if (ordering == FENCE)
        nb_full_fence();
    else
        __asm__ volatile("" : : : "memory"); /* what is tested is the processor, not the compiler */
}

/* A thread's part of a round: two accesses, in this order, to `first` and `second` of each instance. */
#define SHAPE(NAME, FIRST, SECOND)                                                                                                   \
    INLINE void NAME(uint8_t *first, uint8_t *second, const struct turn *turn, uint64_t round, uint64_t *read, int ordering)         \
    {                                                                                                                                \
        for (unsigned k = 0; k < INSTANCES; k++) {                                                                                   \
            const uint64_t i = (k * turn->step + turn->first) % INSTANCES;                                                           \
            uint64_t *a = (uint64_t *)(first + i * NB_APART_ODD), *b = (uint64_t *)(second + i * NB_APART_ODD);                                    \
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

/* What thread `index` does in a test. */
INLINE void play_as(int64_t test, int ordering, uint32_t index, const struct turn *turn, uint64_t round, uint64_t *read)
{
    uint8_t *mine = index % 2 ? turn->y : turn->x, *other = index % 2 ? turn->x : turn->y;
    if (test == STORE_BUFFERING)
        write_read(mine, other, turn, round, read, ordering);
    else if (test == LOAD_BUFFERING)
        read_write(mine, other, turn, round, read, ordering);
    else if (test == IRIW && index < 2)
        write_only(mine, other, turn, round, read, ordering);
    else if (test == IRIW)
        read_read(mine, other, turn, round, read, ordering);
    else if (index == 0)
        write_write(turn->x, turn->y, turn, round, read, ordering);
    else
        read_read(turn->y, turn->x, turn, round, read, ordering);
}

static void play(const struct nb_thread *t, const struct turn *turn, uint64_t round, uint64_t *read)
{
    const int64_t *p = t->shared->parameter;
    if (p[ORDERING] == PLAIN)
        play_as(p[TEST], PLAIN, t->index, turn, round, read);
    else if (p[ORDERING] == ACQUIRE_RELEASE)
        play_as(p[TEST], ACQUIRE_RELEASE, t->index, turn, round, read);
    else if (p[ORDERING] == FENCE)
        play_as(p[TEST], FENCE, t->index, turn, round, read);
    else
        play_as(p[TEST], SEQ_CST, t->index, turn, round, read);
}

/* A number by chance that follows from a seed and another number alone (splitmix64; Steele, Lea, Flood 2014). */
static uint64_t by_chance(uint64_t seed, uint64_t number)
{
    uint64_t x = seed + number * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Where all threads find the words of a round, and in which order this one goes through them. */
static struct turn turn_of(const struct nb_thread *t, uint64_t round, uint64_t own)
{
    const uint64_t common = by_chance((uint64_t)t->shared->parameter[SEED], round), order = common >> 8 & (OWN_ORDER - 1) ? common : own;
    uint8_t *x = t->shared->buffer;
    return (struct turn){x, x + (common & (IN_ONE_LINE - 1) ? INSTANCES * NB_APART_ODD : BESIDE), order >> 16 | 1, order >> 32};
}

/* Brings a quarter of the lines that the thread uses near, and a sixteenth nowhere: of x or of y. */
static void stir(const struct turn *turn, uint64_t random)
{
    uint8_t *side = random & 1 ? turn->x : turn->y;
    for (unsigned i = 0; i < INSTANCES; i++) {
        const uint64_t what = by_chance(random, i) % 16;
        if (what == 0 && NB_CAN_FLUSH)
            nb_flush(side + i * NB_APART_ODD);
        else if (what < 5)
            nb_prefetch(side + i * NB_APART_ODD);
    }
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
        while (nb_load_acquire(&control(t->shared, i)->done) / 2 < round)
            ;
    return nb_load_acquire(&control(t->shared, 0)->done) == 2 * round + 1; /* it may be a round ahead by now */
}

/* Steps by which a thread begins later: as often 2 to 3 as 4,096 to 8,191. */
static uint64_t delay_of(uint64_t random)
{
    const uint64_t octave = 1ull << random % OCTAVES >> 1;
    return octave ? octave + (random >> 8) % octave : 0;
}

/* All leave at the same time, and each later by chance. `before`: when the round of the same parity began. */
static uint64_t start(const struct nb_thread *t, uint64_t round, uint64_t before, uint64_t random)
{
    uint64_t *named = &control(t->shared, 0)->start[round % 2], at;
    if (t->index == 0)
        nb_store_release(named, nb_now() + AHEAD);
    while ((at = nb_load_acquire(named)) <= before)
        ;
    while (nb_now() < at)
        ;
    for (uint64_t delay = delay_of(random); delay; delay--)
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
    uint64_t first = t->executed / INSTANCES, round = first;
    const uint64_t seed = by_chance((uint64_t)c->parameter[SEED], UINT64_MAX - t->index);
    uint64_t began[2] = {control(c, 0)->start[0], control(c, 0)->start[1]};
    struct turn turn;
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
        const uint64_t random = by_chance(seed, round);
        turn = turn_of(t, round, random);
        stir(&turn, random);
        began[round % 2] = start(t, round, began[round % 2], random >> 40);
        play(t, &turn, round, read);
        memcpy(own->read[round % 2], read, sizeof read);
        const int last = t->index == 0 && nb_now() >= t->begin_ns + c->window_ns;
        nb_store_release(&own->done, 2 * round + (uint64_t)last);
    } while (!meet(t, round));
    count(t, round);
    t->end_ns = nb_now();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    t->operations = (round - first) * INSTANCES;
    t->executed += t->operations;
    t->check = 0;
    for (unsigned i = 0; i < INSTANCES; i++) /* of the last round */
        t->check += nb_load_relaxed((uint64_t *)(turn.x + i * NB_APART_ODD)) + nb_load_relaxed((uint64_t *)(turn.y + i * NB_APART_ODD));
    return NB_OK;
}
