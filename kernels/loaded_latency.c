/* Latency under load: thread 0 chases pointers through its half of the memory, all others stream through the other half, each at its
 * share of a given rate. Loaders move bursts of a page against a token bucket, so that what varies is bytes per second and not
 * a number of idle instructions between two accesses, which means something else on every machine. */
#include "nb.h"
#include "nb_chase.h"
#include "nb_single.h"
#include "nb_stream.h"
#include "nb_window.h"

enum { RATE, MIX, VECTOR, GROUP, SEED };
/* Of value[]: the next place in the loader's timetable, in ps since the gate; sum of the words in the first CHECKED bursts of its part; the state of
 * its generator. */
enum { NEXT = 8, LEFT, RANDOM };

/* Reads of every `reads + writes` bursts; whether the writes go past the caches. */
static const struct mix {
    uint64_t reads, writes;
    int stream;
} mixes[] = {{1, 0, NB_WRITE}, {3, 1, NB_WRITE}, {2, 1, NB_WRITE}, {1, 1, NB_WRITE}, {0, 1, NB_WRITE}, {1, 1, NB_WRITE_NT}, {0, 1, NB_WRITE_NT}};

static const struct nb_parameter parameters[] = {
    [RATE] = {"rate", NULL, "MB/s of all loaders; 0: as fast as they can, -1: none", 0, -1, 100000000},
    [MIX] = {"mix", "1:0|3:1|2:1|1:1|0:1|1:1_nt|0:1_nt", "reads to writes of the load; _nt: with stores past the caches", 0, 0,
             NB_COUNT(mixes) - 1},
    [VECTOR] = {"vector", NB_VECTOR_NAMES, "instruction set of the load", NB_PORTABLE_WORDS, 0, NB_SVE_SET},
    [GROUP] = {"group_bytes", NULL, "the chase's lines are shuffled within groups of this size", 262144, 0, INT64_MAX},
    [SEED] = {"seed", NULL, "of the chase's order", 1, 0, INT64_MAX},
};
static const struct nb_metric metrics[] = {
    {"latency", "ns", "time of one dependent load, in the mean block of some 10 us (1 % trimmed at either end)", NB_LOWER_IS_BETTER},
    {"latency_p50", "ns", "the same in the median block", NB_LOWER_IS_BETTER},
    {"latency_p95", "ns", "the same in the block that 95 % of the blocks do not exceed", NB_LOWER_IS_BETTER},
    {"latency_p99", "ns", "the same in the block that 99 % of the blocks do not exceed", NB_LOWER_IS_BETTER},
    {"load", "B/s", "bytes that all threads read and write meanwhile, the chase's lines included", NB_HIGHER_IS_BETTER},
};
NB_DESCRIBE("loaded_latency", 2, "pointer chase beside streams of a given rate", parameters, metrics);

#define BURST 4096u /* of 64 operations */
#define UNIT 12u    /* bursts of a loader's part are a multiple: every mix divides it */
#define CHECKED (64u * UNIT)
#define LATE 16u    /* bursts that a loader may catch up on after an interruption */

static uint64_t part_bytes(const struct nb_case *c)
{
    return c->buffer_bytes / 2 / (c->threads - 1);
}

static uint64_t bursts_of(const struct nb_case *c)
{
    return part_bytes(c) / BURST / UNIT * UNIT;
}

static uint8_t *part(const struct nb_thread *t)
{
    return t->shared->buffer + t->shared->buffer_bytes / 2 + (t->index - 1) * part_bytes(t->shared);
}

static struct nb_chain chain(const struct nb_case *c)
{
    const uint64_t line = NB_VISITED;
    return (struct nb_chain){c->buffer, (uint32_t *)c->scratch, (c->threads > 1 ? c->buffer_bytes / 2 : c->buffer_bytes) / line, line,
                             (uint64_t)c->parameter[GROUP] / line, (uint64_t)c->parameter[SEED], 1, nb_classes(line)};
}

static void chase(struct nb_thread *t, uint64_t n)
{
    t->cursor = (uint64_t)(uintptr_t)nb_chase((uint64_t *)(uintptr_t)t->cursor, n);
}

/* Loads of the chase that are timed by themselves, where no load is meant to be beside it; the window's own histogram stays. */
static void prove_idle(struct nb_thread *t, uint64_t ticks, uint64_t ns)
{
    uint32_t blocks[NB_BINS];
    memcpy(blocks, t->histogram, sizeof blocks);
    t->cursor = (uint64_t)(uintptr_t)nb_single_loads(t, (uint64_t *)(uintptr_t)t->cursor, ticks, ns);
    t->executed += t->value[NB_SINGLE_LOADS];
    memcpy(t->histogram, blocks, sizeof blocks);
}

/* ps between two bursts of a loader. */
static uint64_t interval_of(const struct nb_case *c)
{
    return (c->threads - 1) * (uint64_t)BURST * 1000000 / (uint64_t)c->parameter[RATE];
}

/* A loader's timetable: one place per interval, the loaders' first ones evenly apart within one. All at once, they would ask for their bursts together
 * and rest together, and the chase would measure that. */
static void make_timetable(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    t->value[NEXT] = c->parameter[RATE] > 0 ? interval_of(c) * (t->index - 1) / (c->threads - 1) : 0;
    t->value[RANDOM] = ((uint64_t)c->parameter[SEED] + t->cursor) * 0x9e3779b97f4a7c15u ^ t->index * 0xd1342543de82ef95u;
}

/* Waits until the loader's next burst is due: at its place in the timetable, shifted by up to a quarter of the interval to either side (and by one
 * quarter for all, so that none is before the gate). One that was kept away leaves out all but LATE of the places that it missed. */
static void wait_for_token(struct nb_thread *t)
{
    const uint64_t interval = interval_of(t->shared), gate = t->shared->opens[(t->gates - 1) % NB_GATES];
    uint64_t *next = &t->value[NEXT], *random = &t->value[RANDOM], now;
    *random = *random * 6364136223846793005u + 1442695040888963407u; /* Knuth's */
    const uint64_t due = *next + (interval / 2 * (*random >> 48) >> 16);
    while ((now = (nb_now() - gate) * 1000) < due)
        nb_relax();
    if (now > *next + LATE * interval)
        *next += (now - *next) / interval * interval - LATE * interval;
    *next += interval;
}

/* `n` lines in bursts. t->cursor: bursts since the memory was filled, t->check: sum of the first words of the steps that were read. */
static void load(struct nb_thread *t, uint64_t n)
{
    const struct nb_case *c = t->shared;
    const struct mix *mix = &mixes[c->parameter[MIX]];
    if (c->parameter[RATE] < 0) { /* busy, as a loader is, but away from memory */
        for (uint64_t end = nb_now() + n * 5; nb_now() < end;)
            nb_relax();
        return;
    }
    nb_stream read = nb_find_stream(c->parameter[VECTOR], NB_READ), write = nb_find_stream(c->parameter[VECTOR], mix->stream);
    for (uint64_t bursts = bursts_of(c); n; n -= BURST / 64, t->cursor++) {
        uint64_t block = t->cursor % bursts, turn = t->cursor / bursts;
        uint8_t *at = part(t) + block * BURST;
        if (c->parameter[RATE])
            wait_for_token(t);
        if (block % (mix->reads + mix->writes) < mix->reads)
            t->check += read(NULL, at, NULL, BURST, 0);
        else
            write(at, NULL, NULL, BURST, (turn + 1) * 0x9e3779b97f4a7c15u);
    }
    if (mix->stream == NB_WRITE_NT)
        nb_drain();
}

/* The words of every burst are 1, 2, ... at first, so that each has the same sum. All of the part, so that all of it can be proven. */
static void fill(struct nb_thread *t)
{
    uint64_t *words = (uint64_t *)part(t);
    for (uint64_t i = 0; i < part_bytes(t->shared) / 8; i++)
        words[i] = i % (BURST / 8) + 1;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE) {
        struct nb_chain mine = chain(c);
        t->check = t->cursor = 0;
        if (t->index) {
            if (!bursts_of(c) || c->buffer_bytes / 2 % 8 || part_bytes(c) % 8 || !nb_find_stream(c->parameter[VECTOR], mixes[c->parameter[MIX]].stream))
                return NB_UNSUPPORTED;
            fill(t);
            return NB_OK;
        }
        if (mine.group % mine.classes || mine.lines > UINT32_MAX || mine.lines * sizeof(uint32_t) > c->scratch_bytes)
            return NB_UNSUPPORTED;
        uint64_t *start = NULL;
        nb_chain_build(&mine, &start, 1);
        t->cursor = (uint64_t)(uintptr_t)start;
        return NB_OK;
    }
    if (!t->index) {
        const uint64_t ticks = nb_ticks(), begin = nb_now();
        nb_window(t, chase);
        t->value[NB_SINGLE_LOADS] = 0;
        if (c->parameter[RATE] < 0)
            prove_idle(t, nb_ticks() - ticks, nb_now() - begin);
        t->check = *nb_chain_number((uint64_t *)(uintptr_t)t->cursor);
        t->value[NB_VISITED_BYTES] = NB_VISITED;
        return NB_OK;
    }
    uint64_t bursts = bursts_of(c);
    make_timetable(t);
    nb_window(t, load);
    t->value[LEFT] = nb_find_stream(c->parameter[VECTOR], NB_SUM)(NULL, part(t), NULL, (bursts < CHECKED ? bursts : CHECKED) * BURST, 0);
    return NB_OK;
}
