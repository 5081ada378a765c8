/* The sentinel's price of work under a clock of its own: a multiply takes a ns, and from one moment on the thread is kept from its CPU now and then. */
#define _GNU_SOURCE
#include <stdint.h>
static uint64_t nb_test_clock(void);
static uint64_t test_work(uint64_t x, uint64_t n);
#define NB_CLOCK nb_test_clock
#include "nb_cpu.h"
#define nb_work test_work
#include "sentinel.c"

enum { READING = 25 };

static uint64_t now, next, apart, left, away;

static uint64_t nb_test_clock(void) { return now += READING; }

static uint64_t test_work(uint64_t x, uint64_t n)
{
    for (; n; n--)
        if (++now >= next && left)
            now += away, next = now + apart, left--;
    return x;
}

/* Times in ns; kept away `times` times for `away_ns`, first at `first` after the gate, then each time `apart_ns` after it came back. Returns ps of a multiply. */
uint64_t price(uint64_t first, uint64_t apart_ns, uint64_t times, uint64_t away_ns, uint64_t window)
{
    static struct nb_case c;
    static struct nb_thread t;
    memset(&c, 0, sizeof c);
    memset(&t, 0, sizeof t);
    c.threads = 1, c.window_ns = window, c.batch_ns = 20000, c.phase = NB_MEASURE;
    c.parameter[PROBE] = WORK, c.parameter[LONGER] = 1;
    t.shared = &c, t.schedstat = -1;
    now = 1000000, next = now + 5050 + first, apart = apart_ns, left = times, away = away_ns;
    return nb_run(&t) == NB_OK ? t.value[NB_SHORTEST] * 1000 / t.value[NB_BATCH] : 0;
}
