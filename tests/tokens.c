/* The times at which a loader of loaded_latency lets its bursts go, by a clock that advances 100 ns with each reading. */
#define _GNU_SOURCE
#include <stdint.h>
static uint64_t clock_ns;
static uint64_t ticking(void)
{
    return clock_ns += 100;
}
#define NB_CLOCK ticking
#include "loaded_latency.c"

/* `times`: of `n` bursts of loader `index`, in ns since the gate; before burst `late` the loader is kept away for `away` ns. */
void tokens(uint32_t threads, uint32_t index, int64_t rate, int64_t seed, uint64_t n, uint64_t late, uint64_t away, uint64_t *times)
{
    static uint64_t memory[UNIT * BURST / 4];
    static struct nb_case c;
    struct nb_thread t = {.shared = &c, .index = index, .gates = 1};
    c = (struct nb_case){.threads = threads, .parameter = {[RATE] = rate, [SEED] = seed}};
    c.buffer_bytes = 2 * UNIT * BURST * (threads - 1);
    c.buffer = (uint8_t *)memory - c.buffer_bytes / 2 - (index - 1) * part_bytes(&c);
    c.opens[0] = clock_ns = 1000000000;
    c.phase = NB_PREPARE;
    nb_run(&t);
    make_timetable(&t);
    for (uint64_t i = 0; i < n; i++) {
        clock_ns += i == late ? away : 0;
        wait_for_token(&t);
        times[i] = clock_ns - c.opens[0];
    }
}
