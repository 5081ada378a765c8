/* Single events under a clock of their own: each takes so long, of which a part does not count. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
static uint64_t nb_test_clock(void);
#define NB_CLOCK nb_test_clock
#include "nb_each.h"

static uint64_t now, reading, done;
static const uint64_t *takes, *between;
static uint64_t kinds;

static uint64_t nb_test_clock(void) { return now += reading; }

static uint64_t event(struct nb_thread *t)
{
    (void)t;
    const uint64_t kind = done++ % kinds, before = nb_now();
    now += takes[kind];
    const uint64_t took = nb_now() - before;
    now += between[kind];
    return took;
}

/* All in ns. Events of so many kinds in turn; returns how many there were in the window, and its values in `value`. */
uint64_t each(uint64_t n, const uint64_t *takes_ns, const uint64_t *between_ns, uint64_t reading_ns, uint64_t window, uint64_t *value)
{
    static struct nb_case c;
    static struct nb_thread t;
    memset(&c, 0, sizeof c);
    memset(&t, 0, sizeof t);
    c.threads = 1, c.warmup_ns = 100000, c.window_ns = window;
    t.shared = &c, t.schedstat = -1;
    now = 1000000, done = 0, kinds = n, takes = takes_ns, between = between_ns, reading = reading_ns;
    nb_each(&t, event);
    memcpy(value, t.value, sizeof t.value);
    return t.executed == done ? t.operations : 0;
}
