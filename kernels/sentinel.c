/* What the pinned CPUs are like at this moment: their clock rate, how much of a core each has, how far apart they are,
 * the price of calibrated work, that of reading the time, and what it takes to interrupt them. Runs around every sample, since a hypervisor or a governor changes all of it
 * without any sign. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_cycles.h"
#include "nb_hop.h"
#include "nb_window.h"
#include <linux/membarrier.h>
#include <sys/syscall.h>

enum { STATE, WORK, TIME, INTERRUPT };
enum { PROBE, LONGER };
/* Of value[], where the time is probed: ps of one reading, ns by which two readings differ at least; where interrupts are: ns of a call that interrupts all other
 * CPUs of the case, 0 where the kernel has none. */
enum { COST = 4, STEP, CALL = 4 };
#define READINGS 200
#define BATCHES 5 /* of a hop: their median is not moved by an interruption of one or two; and after a window */
#define ROUND_TRIPS 200
#define CALLS 15 /* of membarrier: some 0.2 ms; their median */
#define FIRST 4             /* value[4..8]: batches between threads 0 and 1 */
#define LAST (4 + BATCHES)  /* value[9..13]: between thread 0 and the last one, if that is another */
#define WIDTH 14            /* value[14]: least ns of WIDTH_TURNS turns of the wide loop */
#define WIDTH_TURNS 1024

static const struct nb_parameter parameters[] = {
    {"probe", "state|work|time|interrupt",
     "one-cycle chain, wide loop and CAS ping-pong; dependent multiplies; readings of the clock; or calls that interrupt the other CPUs", STATE, 0, INTERRUPT},
    {"longer", NULL, "times as many turns and round trips as usual, where reading the clock takes long", 1, 1, 10000},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one step of the chain; values from 4 on are batches of hops and the width", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("sentinel", 3, "clock rate, distance, calibrated work and interrupts of the pinned CPUs", parameters, metrics);

static void steps(struct nb_thread *t, uint64_t n)
{
    t->cursor = nb_steps(t->cursor, n);
}

/* 64 operations a turn, eight independent ones at a time: as fast as the core can issue, half as fast if a sibling thread
 * takes the other half. A function of its own, so that all nine values stay in registers. */
static __attribute__((noinline)) uint64_t wide(uint64_t turns)
{
    uint64_t a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8, y = turns;
    for (; turns; turns--) {
        NB_TIMES_8(a = nb_step(a, y); b = nb_step(b, y); c = nb_step(c, y); d = nb_step(d, y); e = nb_step(e, y); f = nb_step(f, y);
                   g = nb_step(g, y); h = nb_step(h, y);)
    }
    return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h;
}

/* Two siblings of one core may be no closer by compare-and-swap than two cores (seen on Zen 5: 24 and 28 ns); this tells
 * them apart. The last two batches do not count: a partner may have finished. */
static void width(struct nb_thread *t)
{
    uint64_t least = UINT64_MAX;
    nb_gate(t);
    for (int batch = 0; batch < 6; batch++) {
        uint64_t before = nb_now(), took;
        t->cursor ^= wide(WIDTH_TURNS * (uint64_t)t->shared->parameter[LONGER]); /* used: Python puts the cursor back */
        took = nb_now() - before;
        if (batch < 4 && took < least)
            least = took;
    }
    t->value[WIDTH] = least;
}

static void multiplies(struct nb_thread *t, uint64_t n)
{
    t->cursor = nb_work(t->cursor, n);
}

/* The fastest batch of the window and of some more that are long enough. A thread that loses its CPU for longer than its window has one batch in it, which took
 * a hundred times as long, or batches too short to be timed, since those by which they were sized had been interrupted. */
static void settle(struct nb_thread *t, nb_batch batch)
{
    uint64_t n = t->value[NB_BATCH], least = t->value[NB_SHORTEST];
    for (int k = 0; k < BATCHES; k++) {
        const uint64_t before = nb_now();
        batch(t, n);
        const uint64_t took = nb_now() - before;
        if (took < least)
            least = took;
        if (2 * least < t->shared->batch_ns)
            n *= 2, least = UINT64_MAX, k = -1;
    }
    t->value[NB_BATCH] = n;
    t->value[NB_SHORTEST] = least;
}

/* The least of several tries: an interruption only adds. A clock that stands still for longer than all readings take is awaited. */
static void read_clock(struct nb_thread *t)
{
    uint64_t cost = UINT64_MAX, step = UINT64_MAX, before, last;
    for (int batch = 0; batch < BATCHES; batch++) {
        before = last = nb_now();
        for (int i = 0; i < READINGS; i++)
            last = nb_now();
        if ((last - before) * 1000 / READINGS < cost)
            cost = (last - before) * 1000 / READINGS;
        for (before = last; before == last;)
            last = nb_now();
        if (last - before < step)
            step = last - before;
    }
    t->value[COST] = cost;
    t->value[STEP] = step;
}

/* Thread 0 turns even into odd, its partner odd into even, by compare-and-swap without any pause. The others wait. */
static void hop(struct nb_thread *t, uint32_t partner, int slot)
{
    const uint64_t trips = ROUND_TRIPS * (uint64_t)t->shared->parameter[LONGER];
    uint64_t *word = (uint64_t *)t->shared->buffer, next = nb_load_relaxed(word) + (t->index != 0);
    nb_gate(t);
    for (int b = 0; b < BATCHES && (t->index == 0 || t->index == partner); b++) {
        uint64_t before = nb_now();
        nb_hops(word, next, trips);
        next += 2 * trips;
        t->value[slot + b] = nb_now() - before;
    }
    nb_gate(t);
}

/* Thread 0 interrupts the others, which run: membarrier(2) makes each of them pass a barrier before it returns (Desnoyers 2010). A virtual machine leaves for its host
 * each time, whatever lies between the CPUs: no hop tells. */
static void interrupt(struct nb_thread *t)
{
    uint64_t took[CALLS], *word = (uint64_t *)t->shared->buffer;
    if (!t->index)
        nb_store_relaxed(word, 0);
    nb_gate(t);
    if (t->index) {
        while (!nb_load_acquire(word))
            nb_relax();
    } else {
        t->value[CALL] = 0;
        if (!syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)) {
            for (int i = 0; i < CALLS; i++) {
                uint64_t before = nb_now(), now;
                syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
                now = nb_now() - before;
                int k = i;
                for (; k && took[k - 1] > now; k--)
                    took[k] = took[k - 1];
                took[k] = now;
            }
            t->value[CALL] = took[CALLS / 2];
        }
        nb_store_release(word, 1);
    }
    nb_gate(t);
}

int nb_run(struct nb_thread *t)
{
    const uint32_t threads = t->shared->threads;
    if (t->shared->phase == NB_PREPARE)
        return NB_OK;
    if (t->shared->parameter[PROBE] == TIME) {
        read_clock(t);
        return NB_OK;
    }
    if (t->shared->parameter[PROBE] == INTERRUPT) {
        interrupt(t);
        return NB_OK;
    }
    const nb_batch batch = t->shared->parameter[PROBE] == WORK ? multiplies : steps;
    nb_window(t, batch);
    settle(t, batch);
    if (t->shared->parameter[PROBE] == STATE)
        width(t);
    if (t->shared->parameter[PROBE] == STATE && threads > 1) {
        hop(t, 1, FIRST);
        if (threads > 2)
            hop(t, threads - 1, LAST);
    }
    return NB_OK;
}
