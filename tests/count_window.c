/* One thread in the window that counts between two common times, under a clock of its own: an operation takes so long, and at one moment the thread has to wait. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
static uint64_t nb_test_clock(void);
#define NB_CLOCK nb_test_clock
#include "nb_window.h"

enum { START = 1000000, READING = 25 };

static uint64_t now, operation, waits_at, waits, begin, end, inside;

static uint64_t nb_test_clock(void) { return now += READING; }

static void batch(struct nb_thread *t, uint64_t n)
{
    (void)t;
    for (; n; n--) {
        const uint64_t began = now;
        now += operation;
        if (began < waits_at && now >= waits_at)
            now += waits;
        inside += began > begin && began <= end;
    }
}

/* All in ns, `at` since the window's begin. Returns what is counted; `*truth` operations began inside. */
uint64_t count(uint64_t operation_ns, int64_t at, uint64_t waits_ns, uint64_t window, uint64_t batch_ns, uint64_t *truth)
{
    static struct nb_case c;
    static struct nb_thread t;
    memset(&c, 0, sizeof c);
    memset(&t, 0, sizeof t);
    c.threads = 1, c.warmup_ns = 2000000, c.window_ns = window, c.batch_ns = batch_ns;
    t.shared = &c, t.schedstat = -1;
    now = START, operation = operation_ns, waits = waits_ns, inside = 0;
    begin = START + READING + 5050 + nb_count_warmup(&c), /* as nb_gate says */ end = begin + window, waits_at = begin + (uint64_t)at;
    nb_count_window(&t, batch);
    *truth = inside;
    return t.operations;
}
