/* What the pinned CPUs are like at this moment: their clock rate, the price of calibrated work, and how far apart they
 * are. Runs around every sample, since a hypervisor or a governor changes all three without any sign. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"

enum { FREQUENCY, WORK, HOP };
#define BATCHES 8     /* the median of 8 is not moved by an interruption of one or two */
#define ROUND_TRIPS 200

static const struct nb_parameter parameters[] = {
    {"probe", "frequency|work|hop", "one-cycle chain, dependent multiplies, or CAS ping-pong of threads 0 and 1", FREQUENCY, 0, 2},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "per operation; one way for a hop", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("sentinel", 1, "clock rate, calibrated work and distance of the pinned CPUs", parameters, metrics);

static void steps(struct nb_thread *t, uint64_t n)
{
    uint64_t x = t->cursor, y = 0x5851f42d4c957f2du;
    NB_OPAQUE(y);
    for (; n; n -= 64) {
        NB_TIMES_64(x = nb_step(x, y);)
    }
    t->cursor = x; /* an even number of steps: as it was */
}

static void multiplies(struct nb_thread *t, uint64_t n)
{
    t->cursor = nb_work(t->cursor, n);
}

/* Thread 0 turns even into odd, thread 1 odd into even, by compare-and-swap without any pause. */
static void hop(struct nb_thread *t)
{
    uint64_t *word = (uint64_t *)t->shared->buffer, start = __atomic_load_n(word, __ATOMIC_RELAXED), next;
    nb_gate(t);
    t->cpu_begin = sched_getcpu();
    t->begin_ns = nb_now();
    next = start + t->index;
    for (int b = 0; b < BATCHES; b++) {
        uint64_t before = nb_now();
        for (int i = 0; i < ROUND_TRIPS; i++, next += 2) {
            uint64_t seen;
            do
                seen = next;
            while (!__atomic_compare_exchange_n(word, &seen, next + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
        }
        t->value[b] = nb_now() - before;
    }
    t->end_ns = nb_now();
    t->cpu_end = sched_getcpu();
    t->operations = BATCHES * ROUND_TRIPS;
    t->executed += t->operations;
    nb_gate(t);
    t->check = __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

int nb_run(struct nb_thread *t)
{
    if (t->shared->phase == NB_PREPARE)
        return NB_OK;
    switch (t->shared->parameter[0]) {
    case FREQUENCY: nb_window(t, steps); break;
    case WORK: nb_window(t, multiplies); break;
    case HOP: hop(t); break;
    default: return NB_UNSUPPORTED;
    }
    return NB_OK;
}
