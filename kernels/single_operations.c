/* One operation on a line in a known state: load, store, compare-and-swap, add, swap.
 *
 * A round prepares 128 lines, hands them over, and times one operation on each, in an order of its own. The next address needs the result of
 * the operation before, so that no two overlap. One thread measures; a second one, if there is one, prepares. The lines hold the round's stamp: an
 * operation that finds another, or leaves another than it must, is seen in the check value. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_clock.h"
#include "nb_window.h"

enum { OPERATION, STATE, SEED };
enum { LOAD, STORE, STORE_DRAINED, CAS, ADD, SWAP };
enum { LATENCY_PS, CLOCK_PS, STEP, ROUND_PS, COUNTED, SIZE }; /* value[]: two readings; the clock's step in ns; the mean round, of so
                                                                  * many; lines of one */
enum { MODIFIED, EXCLUSIVE, SHARED, OWNED, INVALID };

static const struct nb_parameter parameters[] = {
    [OPERATION] = {"operation", "load|store|store_drained|cas|add|swap", "what is done to each line", LOAD, 0, 5},
    [STATE] = {"state", "modified|exclusive|shared|owned|invalid",
               "written by the holder; read by it alone; read by both; written by it and then read by the measuring thread; in no cache", MODIFIED, 0, 4},
    [SEED] = {"seed", NULL, "of the order of the lines", 1, 0, INT64_MAX},
};
static const struct nb_metric metrics[] = {
    {"latency", "ns", "of one operation: mean over the rounds that nothing interrupted", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("single_operations", 2, "operations on lines in a prepared state", parameters, metrics);

#define LINES (NB_LINE > 128 ? 16384u / NB_LINE : 128u) /* 128, and 16 KiB at most: they stay in a first cache, a few in each of its sets */
#define CONTROL (LINES * NB_APART_ODD)
#define MOST_ROUNDS 4096u
#define CLOCK_READS 64
#define CLOCK_BLOCKS 15

struct control { /* two rounds' numbers, on lines of their own: prepared by the holder, finished by the measuring thread */
    uint64_t prepared, pad0[NB_APART / 8 - 1], finished, pad1[NB_APART / 8 - 1];
};

static uint64_t *line(const struct nb_case *c, uint32_t number) { return (uint64_t *)(c->buffer + number * NB_APART_ODD); }

static void write_all(const struct nb_case *c, uint64_t stamp)
{
    for (uint32_t i = 0; i < LINES; i++)
        nb_store_relaxed(line(c, i), stamp);
}

static uint64_t read_all(const struct nb_case *c)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < LINES; i++)
        sum += nb_load_relaxed(line(c, i));
    NB_OPAQUE(sum);
    return sum;
}

/* What the holder of the lines does. */
static void hold(const struct nb_case *c, uint64_t stamp)
{
    const int64_t state = c->parameter[STATE];
    write_all(c, stamp);
    if (state == MODIFIED || state == OWNED)
        return;
    for (uint32_t i = 0; i < LINES; i++)
        nb_flush(line(c, i));
    nb_flushed();
    if (state != INVALID)
        read_all(c);
}

/* One operation on each line. `nothing` is zero, but only the processor finds out: the address waits for the result before, and behind a drain everything
 * does. The last one of the stores waits until all of them are visible. */
static uint64_t operate(const struct nb_case *c, const uint32_t *order, uint64_t stamp)
{
    uint64_t nothing = 0, x = 0, sum = 0, base = (uint64_t)(uintptr_t)c->buffer;
    NB_OPAQUE(nothing);
#define EACH(OP)                                                                                                                     \
    for (uint32_t i = 0; i < LINES; i++) {                                                                                           \
        uint64_t *p = (uint64_t *)(uintptr_t)(base + order[i] + (x & nothing));                                                      \
        OP;                                                                                                                          \
        sum += x;                                                                                                                    \
    }                                                                                                                                \
    break;
    switch (c->parameter[OPERATION]) {
    case LOAD:
        EACH(x = nb_load_relaxed(p))
    case STORE:
        EACH(nb_store_relaxed(p, stamp + 1))
    case STORE_DRAINED:
        EACH(nb_store_relaxed(p, stamp + 1); nb_drain())
    case CAS:
        EACH(x = stamp; nb_cas(p, &x, stamp + 1))
    case ADD:
        EACH(x = nb_add(p, 1))
    default:
        EACH(x = nb_swap(p, stamp + 1))
    }
    if (c->parameter[OPERATION] == STORE)
        nb_drain();
    return sum;
}

static void shuffle(uint32_t *order, uint64_t *state)
{
    for (uint32_t i = LINES; i > 1; i--) {
        *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
        uint32_t k = (uint32_t)(*state % i), swap = order[k];
        order[k] = order[i - 1];
        order[i - 1] = swap;
    }
}

static int by_size(const void *a, const void *b)
{
    const uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;
    return (one > other) - (one < other);
}

static uint32_t median(uint32_t *took, uint64_t n)
{
    qsort(took, n, sizeof *took, by_size);
    return took[(n - 1) / 2];
}

/* ps between two readings of the clock that have nothing between them but, for stores, the drain. */
static uint64_t clock_cost(int64_t operation)
{
    uint32_t took[CLOCK_BLOCKS];
    for (int i = 0; i < CLOCK_BLOCKS; i++) {
        const uint64_t before = nb_now();
        for (int k = 0; k < CLOCK_READS; k++) {
            if (operation == STORE)
                nb_drain();
            NB_OPAQUE(k);
            (void)nb_now();
        }
        took[i] = (uint32_t)(nb_now() - before);
    }
    return median(took, CLOCK_BLOCKS) * 1000ull / (CLOCK_READS + 1);
}

/* ps of the mean round without those that took twice as long as the median one: the mean, since a clock whose steps are longer than a round tells it by how
 * many of them saw a step. `counted`: how many are in it. */
static uint64_t usual_round(uint32_t *took, uint64_t n, uint64_t step, uint64_t *counted)
{
    const uint64_t most = 2 * (median(took, n) + step);
    uint64_t sum = 0;
    for (*counted = 0; *counted < n && took[*counted] <= most; ++*counted)
        sum += took[*counted];
    return sum * 1000 / *counted;
}

static void serve(struct nb_thread *t, struct control *control, uint64_t round)
{
    for (;; round++) {
        uint64_t finished;
        while ((finished = nb_load_acquire(&control->finished)) / 2 < round)
            ;
        if (finished & 1)
            break;
        hold(t->shared, 2 * (round + 1));
        nb_store_release(&control->prepared, round + 1);
        t->executed += LINES;
    }
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t state = c->parameter[STATE];
    const int alone = c->threads == 1;
    struct control *control = (struct control *)(c->buffer + CONTROL);
    if (c->threads > 2 || c->buffer_bytes < CONTROL + sizeof *control || (alone && (state == SHARED || state == OWNED)) ||
        (!alone && state == INVALID) || (!NB_CAN_FLUSH && state != MODIFIED && state != OWNED))
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        if (t->index == 0)
            memset(c->buffer, 0, c->buffer_bytes);
        t->check = 0;
        return NB_OK;
    }
    uint32_t order[LINES], took[MOST_ROUNDS];
    const uint64_t first = t->executed / LINES;
    uint64_t round = first, rounds = 0, random = (uint64_t)c->parameter[SEED] * 2 + 1;
    for (uint32_t i = 0; i < LINES; i++)
        order[i] = i * NB_APART_ODD;
    if (t->index == 0)
        nb_store_release(&control->finished, 2 * round);
    const uint64_t clock = clock_cost(c->parameter[OPERATION]), step = nb_clock_step();
    nb_gate(t);
    t->begin_ns = nb_now();
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    if (t->index == 1)
        serve(t, control, round);
    for (int last = t->index == 1; !last;) {
        const uint64_t stamp = 2 * (round + 1);
        shuffle(order, &random);
        if (alone)
            hold(c, stamp);
        while (!alone && nb_load_acquire(&control->prepared) != round + 1)
            ;
        if (state == SHARED || state == OWNED)
            read_all(c);
        nb_drain();
        uint64_t before = nb_now(), seen = operate(c, order, stamp), after = nb_now();
        took[rounds++] = (uint32_t)(after - before);
        t->check += seen + read_all(c);
        round++;
        last = after >= t->begin_ns + c->window_ns || rounds == MOST_ROUNDS;
        nb_store_release(&control->finished, 2 * round + (uint64_t)last);
    }
    t->end_ns = nb_now();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    if (t->index == 1) {
        t->operations = t->executed - first * LINES;
        return NB_OK;
    }
    t->operations = rounds * LINES;
    t->executed += t->operations;
    const uint64_t all = usual_round(took, rounds, step, &t->value[COUNTED]);
    t->value[LATENCY_PS] = (all > clock ? all - clock : 0) / LINES;
    t->value[CLOCK_PS] = clock;
    t->value[STEP] = step;
    t->value[ROUND_PS] = all;
    t->value[SIZE] = LINES;
    return NB_OK;
}
