/* nb_single.h with a clock of the test's own: every reading is `between` ns after the last one, and after a load by what that load is said to take more. */
#define _GNU_SOURCE
#include <time.h>
static int fake_gettime(clockid_t which, struct timespec *t);
#define clock_gettime fake_gettime
#define NB_PORTABLE
#include "nb_single.h"

static uint64_t now, between, readings, fast, slow;

/* The first 512 are of the counter with nothing between; then a pair for each load, of which every fourth is fast. */
static int fake_gettime(clockid_t which, struct timespec *t)
{
    (void)which;
    now += between;
    if (readings >= 512 && readings % 2)
        now += readings / 2 % 4 ? slow : fast;
    readings++;
    t->tv_sec = (time_t)(now / 1000000000), t->tv_nsec = (long)(now % 1000000000);
    return 0;
}

void time_loads(struct nb_thread *t, uint64_t **cell, uint64_t usual_ns, uint64_t between_ns, uint64_t fast_ns, uint64_t slow_ns)
{
    now = readings = 0, between = between_ns, fast = fast_ns, slow = slow_ns;
    static struct nb_case c = {.window_ns = 25000000};
    t->shared = &c;
    t->value[NB_BATCH] = 64;
    t->value[NB_MEAN_PS] = usual_ns * 64 * 1000;
    *cell = nb_single_loads(t, *cell, 1000, 1000);
}
