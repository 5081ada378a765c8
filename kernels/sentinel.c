/* What the pinned CPUs are like at this moment: their clock rate, how far apart they are, and the price of calibrated
 * work. Runs around every sample, since a hypervisor or a governor changes all three without any sign. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"

enum { STATE, WORK };
#define BATCHES 7 /* of a hop: their median is not moved by an interruption of one or two */
#define ROUND_TRIPS 200
#define FIRST 2           /* value[2..8]: batches between threads 0 and 1 */
#define LAST (2 + BATCHES) /* value[9..15]: between thread 0 and the last one, if that is another */

static const struct nb_parameter parameters[] = {
    {"probe", "state|work", "one-cycle chain and CAS ping-pong, or dependent multiplies", STATE, 0, 1},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one step of the chain; values 2 to 15 are batches of hops", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("sentinel", 1, "clock rate, distance and calibrated work of the pinned CPUs", parameters, metrics);

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

/* Thread 0 turns even into odd, its partner odd into even, by compare-and-swap without any pause. The others wait. */
static void hop(struct nb_thread *t, uint32_t partner, int slot)
{
    uint64_t *word = (uint64_t *)t->shared->buffer, next = __atomic_load_n(word, __ATOMIC_RELAXED) + (t->index != 0);
    nb_gate(t);
    for (int b = 0; b < BATCHES && (t->index == 0 || t->index == partner); b++) {
        uint64_t before = nb_now(), seen;
        for (int i = 0; i < ROUND_TRIPS; i++, next += 2)
            do
                seen = next;
            while (!__atomic_compare_exchange_n(word, &seen, next + 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
        t->value[slot + b] = nb_now() - before;
    }
    nb_gate(t);
}

int nb_run(struct nb_thread *t)
{
    const uint32_t threads = t->shared->threads;
    if (t->shared->phase == NB_PREPARE)
        return NB_OK;
    nb_window(t, t->shared->parameter[0] == WORK ? multiplies : steps);
    if (t->shared->parameter[0] == STATE && threads > 1) {
        hop(t, 1, FIRST);
        if (threads > 2)
            hop(t, threads - 1, LAST);
    }
    return NB_OK;
}
