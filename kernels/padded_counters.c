/* What sharing a cache line costs: every thread works on its own counter, `stride` bytes from its neighbour's.
 *
 * Back to back, the store buffer and the owner's batching hide most of the price. With `spacing` dependent multiplies
 * between two accesses, fed by the value read and feeding the next address, nothing can be hidden, and the difference
 * to padded counters is the time that a line needs from core to core. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"

enum { OPERATION, STRIDE, SPACING, OFFSET, READERS };
enum { STORE, INCREMENT, ATOMIC_ADD };
enum { SPACING_DONE = NB_MEAN_PS + 1 }; /* of value[] */

static const struct nb_parameter parameters[] = {
    [OPERATION] = {"operation", "store|increment|atomic_add", "what a thread does to its counter", INCREMENT, 0, 2},
    [STRIDE] = {"stride", NULL, "bytes between neighbouring counters; 0 is one counter for all", 64, 0, 4096},
    [SPACING] = {"spacing", NULL, "dependent multiplies between two accesses", 0, 0, 100000},
    [OFFSET] = {"offset", NULL, "bytes from a page's begin to the first counter", 0, 0, 4032},
    [READERS] = {"readers", NULL, "threads, the last ones, that only load their counter", 0, 0, 4095},
};
static const struct nb_metric metrics[] = {
    {"time_per_operation", "ns", "time of one operation in one thread that writes", NB_LOWER_IS_BETTER},
    {"read_time", "ns", "time of one load in one thread that only reads", NB_LOWER_IS_BETTER},
    {"throughput", "operation/s", "operations of all threads that write", NB_HIGHER_IS_BETTER},
    {"fairness", "1", "Jain index of their rates", NB_HIGHER_IS_BETTER},
};
NB_DESCRIBE("padded_counters", 3, "counters of several threads at a given distance", parameters, metrics);

static volatile uint64_t *counter(const struct nb_thread *t)
{
    const int64_t *p = t->shared->parameter;
    return (volatile uint64_t *)(t->shared->buffer + (uint64_t)p[OFFSET] + t->index * (uint64_t)p[STRIDE]);
}

static void store(struct nb_thread *t, uint64_t n)
{
    volatile uint64_t *p = counter(t);
    uint64_t value = t->executed;
    for (uint64_t i = 0; i < n; i += 64) {
        value += 64; /* one new value per turn: computing one per store took 15 % of the time */
        NB_TIMES_64(*p = value;)
    }
}

static void increment(struct nb_thread *t, uint64_t n)
{
    volatile uint64_t *p = counter(t);
    for (uint64_t i = 0; i < n; i += 64) {
        NB_TIMES_64(*p = *p + 1;)
    }
}

static void atomic_add(struct nb_thread *t, uint64_t n)
{
    uint64_t *p = (uint64_t *)counter(t);
    for (uint64_t i = 0; i < n; i += 64) {
        NB_TIMES_64((void)nb_add_relaxed(p, 1);)
    }
}

static void load(struct nb_thread *t, uint64_t n)
{
    volatile uint64_t *p = counter(t);
    for (uint64_t i = 0; i < n; i += 64) {
        NB_TIMES_64((void)*p;)
    }
}

/* The spaced forms: value -> work -> address. `nothing` is zero, but only the processor finds out. */
#define SPACED(NAME, ACCESS)                                                                                                         \
    static void NAME##_spaced(struct nb_thread *t, uint64_t n)                                                                       \
    {                                                                                                                                \
        uint64_t spacing = (uint64_t)t->shared->parameter[SPACING], nothing = 0, count = t->executed, x = count;                    \
        uintptr_t base = (uintptr_t)counter(t);                                                                                      \
        NB_OPAQUE(nothing);                                                                                                          \
        for (; n; n--) {                                                                                                             \
            volatile uint64_t *p = (volatile uint64_t *)(base + (x & nothing));                                                      \
            ACCESS                                                                                                                   \
            x = nb_work(x, spacing);                                                                                                 \
        }                                                                                                                            \
        (void)count;                                                                                                                 \
    }

SPACED(store, *p = ++count; x++;)
SPACED(increment, x = *p; *p = x + 1;)
SPACED(load, x += *p;)
SPACED(atomic_add, x = nb_add_relaxed((uint64_t *)p, 1);)

int nb_run(struct nb_thread *t)
{
    enum { READ = ATOMIC_ADD + 1 };
    static const nb_batch plain[] = {store, increment, atomic_add, load};
    static const nb_batch spaced[] = {store_spaced, increment_spaced, atomic_add_spaced, load_spaced};
    const struct nb_case *c = t->shared;
    const int reads = t->index + (uint64_t)c->parameter[READERS] >= c->threads;
    const uint64_t last = (uint64_t)c->parameter[OFFSET] + (c->threads - 1) * (uint64_t)c->parameter[STRIDE];
    if ((c->parameter[OFFSET] | c->parameter[STRIDE]) % 8 || last + 8 > c->buffer_bytes)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        nb_store_relaxed((uint64_t *)counter(t), 0); /* of several threads where the stride is 0 */
        return NB_OK;
    }
    nb_window(t, (c->parameter[SPACING] ? spaced : plain)[reads ? READ : c->parameter[OPERATION]]);
    t->value[SPACING_DONE] = (uint64_t)c->parameter[SPACING];
    nb_gate(t);
    t->check = *counter(t);
    return NB_OK;
}
