/* A window of single events: operations of 1 us to 10 ms, each timed by itself. A batch of 64 wake-ups would take 2.6 ms, one of forks half a second; and
 * what comes between two of them (mapping again what was unmapped, falling asleep before being woken) belongs to neither. */
#ifndef NB_EACH_H
#define NB_EACH_H
#include "nb_window.h"

#define NB_LEAST_EVENTS NB_FEW /* in a window, however long it gets: a median of fewer is whatever the first one was */
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

/* The middle of the bin of the `rank`-th shortest event. */
static inline double nb_event_at(const uint32_t *bins, uint64_t rank)
{
    uint64_t seen = 0;
    uint32_t bin = 0;
    while (bin < NB_BINS - 1 && (seen += bins[bin]) < rank)
        bin++;
    return nb_batch_middle(bin);
}

/* ns of the median of so many events in a histogram whose NB_FINE bins stand for `usual`. A window may have eight: of an even number it lies between the two in the
 * middle, since the lower one of eight is their 44th percentile. */
static inline double nb_median_event(const uint32_t *bins, uint64_t events, uint64_t usual)
{
    return (nb_event_at(bins, (events + 1) / 2) + nb_event_at(bins, events / 2 + 1)) / 2 * (double)usual / NB_FINE;
}

/* ns that a histogram's bins are to be fine around: the median of the `events` of a warm-up that nb_count counted. Not the shortest, which may be none at all (a sleep that
 * ended in time): bins end at 512 times that. */
static inline uint64_t nb_usual_event(const uint32_t *bins, uint64_t events)
{
    uint64_t seen = 0;
    uint32_t bin = 0;
    while (bin < NB_BINS - 1 && (seen += bins[bin]) * 2 < events)
        bin++;
    return bin ? nb_bin_ns(bin) : 1;
}

/* Events for warmup_ns, and a few at least, then for window_ns. Leaves what nb_window does, with batches of one operation; nothing counts as a gap, since an event may
 * wait by design: NB_LONGEST says how long one took. */
static inline void nb_each(struct nb_thread *t, nb_event event)
{
    const struct nb_case *c = t->shared;
    const uint64_t clock = nb_clock_cost(), begin = nb_gate(t) + c->warmup_ns;
    uint64_t shortest = UINT64_MAX, longest = 0, events = 0, took;
    memset(t->histogram, 0, sizeof t->histogram);
    for (; events < NB_LEAST_EVENTS || nb_now() < begin; events++) {
        took = event(t);
        t->executed++;
        nb_count(t->histogram, took > clock ? took - clock : 0, 1);
    }
    const uint64_t usual = nb_usual_event(t->histogram, events);
    events = 0;
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
    t->value[NB_MEDIAN_PS] = (uint64_t)(nb_median_event(t->histogram, events, usual) * 1000);
    t->value[NB_MEAN_PS] = (uint64_t)(nb_mean_batch(t->histogram, events) * (double)usual * 1000 / NB_FINE);
}
#endif
