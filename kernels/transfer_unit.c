/* How many bytes travel together between two caches? What the firmware declares can be wrong, and where the unit is larger than that, what the
 * other kernels keep apart is not.
 *
 * Two threads increment a counter each, with dependent multiplies in between. Where the counters come closer to each other than the unit they share
 * it, and each increment waits for it (see padded_counters). Distances are powers of two, the first counter at the begin of an aligned piece of twice
 * the distance, and in its middle: of two units that a prefetcher brings along in pairs, the former are one pair. The control is two pages apart.
 * Both threads begin a slot at a time that the first one names; one that came late or was interrupted says so, since the other was alone then. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"

enum { SPACING };
static const struct nb_parameter parameters[] = {
    [SPACING] = {"spacing", NULL, "dependent multiplies between two increments", 40, 0, 100000},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of an increment at each distance, by round: histogram[round * 19 + slot] in ps, 0 where it was disturbed", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("transfer_unit", 1, "two counters at distances of 8 to 2,048 bytes", parameters, metrics);

#define NEAREST 8u
#define DISTANCES 9u
#define SLOTS (2 * DISTANCES + 1) /* by distance: aligned, in the middle; then the control */
#define ROUNDS 11u
_Static_assert(SLOTS * ROUNDS <= NB_BINS, "all results have room");
#define SLOT_BYTES 16384u
#define CONTROL 8192u
#define MEETING (SLOTS * SLOT_BYTES) /* two pages: what each of the threads tells the other */
#define AHEAD 1500u                  /* ns from naming a time to it */
#define TURNS 8u                     /* increments between two looks at the clock */

static volatile uint64_t *counter(const struct nb_thread *t, uint32_t slot)
{
    const uint64_t distance = slot < SLOTS - 1 ? (uint64_t)NEAREST << slot / 2 : CONTROL;
    return (volatile uint64_t *)(t->shared->buffer + slot * SLOT_BYTES + (slot % 2 + t->index) * distance);
}

/* When slot `number` begins: the first thread names it once both are there. */
static uint64_t meet(const struct nb_thread *t, uint64_t number, uint64_t before)
{
    uint64_t *named = (uint64_t *)(t->shared->buffer + MEETING), *there = (uint64_t *)(t->shared->buffer + MEETING + 4096), at;
    if (t->index)
        __atomic_store_n(there, number, __ATOMIC_RELEASE);
    else {
        while (__atomic_load_n(there, __ATOMIC_ACQUIRE) != number)
            ;
        __atomic_store_n(named, nb_now() + AHEAD, __ATOMIC_RELEASE);
    }
    while ((at = __atomic_load_n(named, __ATOMIC_ACQUIRE)) == before)
        ;
    while (nb_now() < at)
        ;
    return at;
}

/* ps of an increment; 0 if the thread began late, or was away in between. */
static uint32_t increments(struct nb_thread *t, volatile uint64_t *mine, uint64_t at)
{
    const uint64_t spacing = (uint64_t)t->shared->parameter[SPACING], window = t->shared->window_ns, begin = nb_now();
    uint64_t done = 0, nothing = 0, x = 0, now;
    NB_OPAQUE(nothing);
    do {
        for (uint32_t i = 0; i < TURNS; i++) {
            volatile uint64_t *p = (volatile uint64_t *)((uintptr_t)mine + (x & nothing));
            x = *p;
            *p = x + 1;
            x = nb_work(x, spacing);
        }
        done += TURNS;
        now = nb_now();
    } while (now < at + window);
    t->executed += done;
    return begin > at + window / 8 || now > at + window + window / 4 ? 0 : (uint32_t)((now - begin) * 1000 / done);
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->threads != 2 || c->buffer_bytes < MEETING + 8192)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        if (t->index == 0)
            memset(c->buffer, 0, MEETING + 8192);
        return NB_OK;
    }
    uint64_t at = *(uint64_t *)(c->buffer + MEETING), number = t->cursor;
    t->check = 0;
    t->begin_ns = nb_gate(t);
    t->cpu_begin = sched_getcpu();
    for (uint32_t round = 0; round < ROUNDS; round++)
        for (uint32_t slot = 0; slot < SLOTS; slot++) {
            at = meet(t, ++number, at);
            t->histogram[round * SLOTS + slot] = increments(t, counter(t, slot), at);
        }
    t->end_ns = nb_now();
    t->cpu_end = sched_getcpu();
    t->cursor = number;
    t->operations = t->executed;
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        t->check += *counter(t, slot);
    return NB_OK;
}
