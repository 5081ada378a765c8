/* A measured window: all threads work from a common start for a common time, by the clock and not by a count (with a
 * fixed count the threads overlap by half, and the rest of the time is not what was asked). */
#ifndef NB_WINDOW_H
#define NB_WINDOW_H
#include "nb.h"

/* A batch that takes this long was interrupted. Ten times the shortest: no level of memory is ten times slower than the
 * one before it; 20 us more: a timer tick takes 2 to 5. */
#define NB_GAP_NS(shortest) (10 * (shortest) + 20000)

/* Executes `n` operations (a multiple of 64). */
typedef void (*nb_batch)(struct nb_thread *t, uint64_t n);

/* Warm-up with batches doubled until the clock is read every batch_ns, then the window. The threads go on working
 * between the two, so that nobody measures alone. The clock's own 20-60 ns per batch stay below 1 % of 10 us. */
static inline void nb_window(struct nb_thread *t, nb_batch batch)
{
    const struct nb_case *c = t->shared;
    uint64_t n = 64, done = 0, shortest = UINT64_MAX;
    uint64_t begin = nb_gate(t) + c->warmup_ns, now = nb_now(), next, end;
    for (int enough = 0; now < begin || enough < 2; now = next) { /* twice: one may have been long by an interruption */
        batch(t, n);
        t->executed += n;
        next = nb_now();
        if (next - now >= c->batch_ns)
            enough++;
        else
            n *= 2, enough = 0;
    }
    t->cpu_begin = sched_getcpu();
    t->begin_ns = now = nb_now();
    end = (now > begin ? now : begin) + c->window_ns;
    t->gaps = 0;
    t->gap_ns = done = 0;
    do {
        batch(t, n);
        t->executed += n;
        done += n;
        next = nb_now();
        if (next - now < shortest)
            shortest = next - now;
        else if (next - now > NB_GAP_NS(shortest))
            t->gaps++, t->gap_ns += next - now - shortest;
        now = next;
    } while (now < end);
    t->end_ns = now;
    t->cpu_end = sched_getcpu();
    t->operations = done;
    t->value[0] = n;        /* operations in a batch, and ns of the shortest: */
    t->value[1] = shortest; /* the rate without any interruption */
}

/* Counts a wait of `ns` in 16 bins per octave. */
static inline void nb_record(struct nb_thread *t, uint64_t ns)
{
    uint32_t bin = (uint32_t)ns;
    if (ns >= 16) {
        uint32_t octave = 63 - (uint32_t)__builtin_clzll(ns);
        bin = (octave - 3) * 16 + (uint32_t)(ns >> (octave - 4) & 15);
    }
    t->histogram[bin < NB_BINS ? bin : NB_BINS - 1]++;
    if (ns > t->value[2])
        t->value[2] = ns;
}
#endif
