/* Latency of a cache line between two CPUs: round trips on sixteen lines (fewer where they are wide) of a page of the pair's own, one line after the other.
 *
 * Threads 2k and 2k+1 are a pair; any number of pairs run at the same time, each in its part of the memory. Both time their blocks of
 * round trips: the first leaves the median block of each line, the second the quantiles over all. */
#include "nb.h"
#include "nb_hop.h"
#include "nb_window.h"

enum { OPERATION };
enum { CAS, LOAD_STORE, TWO_LINES, ATOMIC_ADD };
enum { MEDIAN, P99, SAMPLED }; /* of the second thread's value[], the last one LINES; of the first one's: the lines */
#define APART NB_APART             /* bytes */
#define LINES (4096 / APART)       /* sampled, every fourth of a small page: where a line's home is has a distance of its own */
#define BACK (APART / 2)           /* from a line to the one of the way back */
#define CONTROL (APART / 4)        /* where the pair agrees on another pass */
#define FINISHED (APART + CONTROL) /* where the second says that it has made its last way */
#define ROUND_TRIPS 200
#define MOST_PASSES 8

static const struct nb_parameter parameters[] = {
    [OPERATION] = {"operation", "cas|load_store|two_lines|atomic_add",
                   "compare-and-swap on one word; load and store on one; on two lines, one each way; atomic adds on one word", CAS, 0, 3},
};
static const struct nb_metric metrics[] = {
    {"latency", "ns", "one way, half of a round trip: mean over the lines of the median block of each", NB_LOWER_IS_BETTER},
    {"latency_p50", "ns", "one way, in the block that half of all do not exceed", NB_LOWER_IS_BETTER},
    {"latency_p99", "ns", "one way, in the block that 99 % do not exceed", NB_LOWER_IS_BETTER},
    {"line_spread", "ns", "slowest less fastest of the lines, by their medians", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("core_to_core", 3, "a cache line between two CPUs", parameters, metrics);

/* ROUND_TRIPS from `next` on, the value that this side waits for; its partner answers with the next one. */
static void load_store(uint64_t *word, uint64_t next)
{
    for (int i = 0; i < ROUND_TRIPS; i++, next += 2) {
        while (nb_load_acquire(word) != next)
            ;
        nb_store_release(word, next + 1);
    }
}

static void atomic_add(uint64_t *word, uint64_t next)
{
    for (int i = 0; i < ROUND_TRIPS; i++, next += 2) {
        while (nb_add(word, 0) != next)
            ;
        nb_add(word, 1);
    }
}

/* `mine` counts what this side has sent, `other` what it has got: the one that leads sends first. */
static void two_lines(uint64_t *mine, uint64_t *other, uint64_t sent, int leads)
{
    const uint64_t end = sent + ROUND_TRIPS;
    if (leads)
        while (sent != end) {
            nb_store_release(mine, ++sent);
            while (nb_load_acquire(other) != sent)
                ;
        }
    else
        while (sent++ != end) {
            while (nb_load_acquire(other) != sent)
                ;
            nb_store_release(mine, sent);
        }
}

/* ns of one block on a line. Words on it count the ways: one each for both directions, or one for each. */
static uint32_t block(const struct nb_thread *t, uint8_t *line, uint64_t blocks)
{
    const int64_t operation = t->shared->parameter[OPERATION];
    const int follows = t->index % 2;
    uint64_t *word = (uint64_t *)line, *back = (uint64_t *)(line + BACK), next = 2 * ROUND_TRIPS * blocks + (uint64_t)follows;
    uint64_t before = nb_now();
    if (operation == CAS)
        nb_hops(word, next, ROUND_TRIPS);
    else if (operation == LOAD_STORE)
        load_store(word, next);
    else if (operation == ATOMIC_ADD)
        atomic_add(word, next);
    else
        two_lines(follows ? back : word, follows ? word : back, ROUND_TRIPS * blocks, !follows);
    return (uint32_t)(nb_now() - before);
}

static int by_size(const void *a, const void *b)
{
    const uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;
    return (one > other) - (one < other);
}

/* ps of one way in the block that `share` percent do not exceed. */
static uint64_t quantile(uint32_t *blocks, uint64_t n, uint64_t share)
{
    qsort(blocks, n, sizeof *blocks, by_size);
    return (uint64_t)blocks[(n - 1) * share / 100] * 1000 / (2 * ROUND_TRIPS);
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const uint64_t part = c->threads < 2 ? 0 : c->buffer_bytes / (c->threads / 2);
    uint8_t *memory = c->buffer + t->index / 2 * part;
    if (c->threads % 2 || part < LINES * APART)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        if (t->index % 2 == 0)
            memset(memory, 0, part);
        return NB_OK;
    }
    uint64_t *control = (uint64_t *)(memory + CONTROL), *finished = (uint64_t *)(memory + FINISHED), passes = 0, end, said;
    const uint64_t done = t->executed / (2 * ROUND_TRIPS * LINES); /* passes of earlier entries */
    uint32_t took[LINES][MOST_PASSES];
    nb_gate(t);
    t->begin_ns = nb_now();
    end = t->begin_ns + c->window_ns;
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    do {
        for (int line = 0; line < LINES; line++)
            took[line][passes] = block(t, memory + line * APART, done + passes);
        passes++;
        if (t->index % 2 == 0) {
            said = 2 * (done + passes) + (nb_now() >= end || passes == MOST_PASSES);
            nb_store_release(control, said);
        } else
            while ((said = nb_load_acquire(control)) / 2 != done + passes)
                ;
    } while (said % 2 == 0);
    t->end_ns = nb_now();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    t->operations = passes * LINES * 2 * ROUND_TRIPS;
    t->executed += t->operations;
    if (t->index % 2)
        nb_store_release(finished, done + passes);
    else /* its last way may still be under way */
        while (nb_load_acquire(finished) != done + passes)
            ;
    t->check = 0;
    for (int line = 0; line < LINES; line++)
        t->check += nb_load_relaxed((uint64_t *)(memory + line * APART)) + nb_load_relaxed((uint64_t *)(memory + line * APART + BACK));
    if (t->index % 2 == 0) {
        for (int line = 0; line < LINES; line++)
            t->value[line] = quantile(took[line], passes, 50);
        return NB_OK;
    }
    for (int line = 1; line < LINES; line++)
        memmove(*took + line * passes, took[line], passes * sizeof **took);
    t->value[P99] = quantile(*took, LINES * passes, 99);
    t->value[MEDIAN] = quantile(*took, LINES * passes, 50);
    t->value[SAMPLED] = LINES;
    return NB_OK;
}
