/* A window of single events: operations of 1 us to 10 ms, each timed by itself. A batch of 64 wake-ups would take 2.6 ms, one of forks half a second; and
 * what comes between two of them (mapping again what was unmapped, falling asleep before being woken) belongs to neither. */
#ifndef NB_EACH_H
#define NB_EACH_H
#include "nb_window.h"

#define NB_LEAST_EVENTS 8 /* in a window, however long it gets: a median of fewer is whatever the first one was */
#define NB_CLOCK_TRIES_EACH 64

/* Performs one event and returns the ns of what counts, between two readings of nb_now: the cost of one reading is taken off here. */
typedef uint64_t (*nb_event)(struct nb_thread *t);

/* ns between two readings that follow each other: the least of several, since an interruption only adds. */
static inline uint64_t nb_clock_cost(void)
{
    uint64_t least = UINT64_MAX, before = nb_now(), now;
    for (int i = 0; i < NB_CLOCK_TRIES_EACH; i++, before = now)
        if ((now = nb_now()) - before < least)
            least = now - before;
    return least;
}

/* Events for warmup_ns, and a few at least, then for window_ns. Leaves what nb_window does, with batches of one operation; nothing counts as a gap, since an event may
 * wait by design: NB_LONGEST says how long one took. */
static inline void nb_each(struct nb_thread *t, nb_event event)
{
    const struct nb_case *c = t->shared;
    const uint64_t clock = nb_clock_cost(), begin = nb_gate(t) + c->warmup_ns;
    uint64_t usual = UINT64_MAX, shortest = UINT64_MAX, longest = 0, events = 0, took;
    for (int n = 0; n < NB_LEAST_EVENTS || nb_now() < begin; n++) {
        took = event(t);
        t->executed++;
        if (took < usual)
            usual = took;
    }
    usual = usual > clock ? usual - clock : 1;
    nb_empty_histogram(t);
    t->gaps = 0;
    t->gap_ns = 0;
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    t->begin_ns = nb_now();
    const uint64_t end = t->begin_ns + c->window_ns;
    do {
        took = event(t);
        took = took > clock ? took - clock : 0;
        t->executed++;
        events++;
        t->histogram[nb_batch_bin(took, usual)]++;
        if (took < shortest)
            shortest = took;
        if (took > longest)
            longest = took;
        t->end_ns = nb_now();
    } while (t->end_ns < end || events < NB_LEAST_EVENTS);
    t->cpu_end = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->operations = events;
    t->value[NB_BATCH] = 1;
    t->value[NB_SHORTEST] = shortest;
    t->value[NB_LONGEST] = longest;
    t->value[NB_USUAL] = usual;
    t->value[NB_MEDIAN_PS] = (uint64_t)(nb_median_batch(t->histogram, events) * (double)usual * 1000 / NB_FINE);
    t->value[NB_MEAN_PS] = (uint64_t)(nb_mean_batch(t->histogram, events) * (double)usual * 1000 / NB_FINE);
}
#endif
