/* The clock of a core, without any hardware counter: a chain of operations that take one cycle each. */
#ifndef NB_CYCLES_H
#define NB_CYCLES_H
#include "nb.h"
#include "nb_cpu.h"

/* `n` steps, a multiple of 64; `x` is as it was after an even number of them. */
static inline uint64_t nb_steps(uint64_t x, uint64_t n)
{
    uint64_t y = 0x5851f42d4c957f2du;
    NB_OPAQUE(y);
    for (; n; n -= 64) {
        NB_TIMES_64(x = nb_step(x, y);)
    }
    return x;
}

#define NB_CLOCK_BATCHES 5 /* their median is not moved by an interruption of one or two */

/* The core's clock as it is at this moment: ps of NB_CLOCK_STEPS steps in each of some batches. Each takes half as long as a batch of the window, so
 * that reading the clock costs as little of it: 350 us in all for streams. A core that lowers its clock for wide vectors goes back after some
 * 670 us at the earliest (Downs 2020), so that what follows a window at once is the clock of the window. */
#define NB_CLOCK_STEPS 1024
static inline void nb_clock(struct nb_thread *t, uint64_t *ps)
{
    uint64_t n = NB_CLOCK_STEPS, before, took = 0, x = 1;
    for (int batch = 0; batch < NB_CLOCK_BATCHES;) {
        before = nb_now();
        x = nb_steps(x, n);
        NB_OPAQUE(x);
        took = nb_now() - before;
        if (took < t->shared->batch_ns / 2 && !batch)
            n *= 2;
        else
            ps[batch++] = took * 1000 / (n / NB_CLOCK_STEPS);
    }
}
#endif
