/* Single loads of a chase, each timed by itself, after its window: whether they all come from where their mean says. A mean of 104 ns was that of
 * memory at 150 and, in 31 of 100 loads, of caches that a prefetcher had filled. */
#ifndef NB_SINGLE_H
#define NB_SINGLE_H
#include "nb.h"
#include "nb_window.h"

#define NB_SINGLES 20480u /* a share of 2 % of them is known within 0.2 % (95 %); five processes, the fewest, time 10^5. Three milliseconds in memory, and at most ... */
#define NB_SINGLES_SHARE 8 /* ... of the window's time: one in so many */
/* Of value[]: loads timed, and those that took under half of the mean of the window; 0 loads: the counter cannot tell. ps of its step. */
enum { NB_SINGLE_LOADS = 11, NB_SINGLE_FAST, NB_SINGLE_STEP_PS };

/* The finest counter there is. All loads before it are complete, and none after it has begun. */
static inline uint64_t nb_ticks(void)
{
#if defined(__x86_64__) && !defined(NB_PORTABLE)
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
#elif defined(__aarch64__) && !defined(NB_PORTABLE)
    uint64_t ticks;
    __asm__ volatile("dsb ishld\n\tisb\n\tmrs %0, cntvct_el0\n\tisb" : "=r"(ticks) : : "memory");
    return ticks;
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    const uint64_t now = nb_now();
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return now;
#endif
}

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(NB_PORTABLE)
#define NB_WHOLE_TICKS 1
#else
#define NB_WHOLE_TICKS 0 /* the clock's steps are rounded to ns */
#endif

/* Ticks between two readings with nothing between them, at least, and what all such times are multiples of: the step of the counter, which
 * may be coarser than its unit (26 ticks, 10 ns, on a Zen 4). Of rounded steps the shortest such time that is none: no step is longer. */
struct nb_counter {
    uint64_t empty, step;
};

static inline struct nb_counter nb_know_counter(void)
{
    struct nb_counter found = {UINT64_MAX, 0};
    for (int i = 0; i < 256; i++) {
        uint64_t took = nb_ticks(), a, b;
        took = nb_ticks() - took;
        found.empty = took < found.empty ? took : found.empty;
        if (!NB_WHOLE_TICKS) {
            found.step = took && (!found.step || took < found.step) ? took : found.step;
            continue;
        }
        for (a = took, b = found.step; b; took = a % b, a = b, b = took) /* Euclid */
            ;
        found.step = a;
    }
    return found;
}

/* `p` after NB_SINGLES loads or less, whose times in ns are in t->histogram (nb_count) after this. `ticks`, `ns`: a long time in both, from which the counter's
 * rate comes. Where a step is over a quarter of a load, or reading takes longer than one, nothing is timed. */
static inline uint64_t *nb_single_loads(struct nb_thread *t, uint64_t *p, uint64_t ticks, uint64_t ns)
{
    const double tick = ticks ? (double)ns / (double)ticks : 0, usual = (double)t->value[NB_MEAN_PS] / 1000 / (double)t->value[NB_BATCH];
    const struct nb_counter counter = nb_know_counter();
    t->value[NB_SINGLE_LOADS] = t->value[NB_SINGLE_FAST] = 0;
    t->value[NB_SINGLE_STEP_PS] = (uint64_t)((double)counter.step * tick * 1000);
    if (!ticks || !counter.step || 4 * (double)counter.step * tick > usual || (double)counter.empty * tick > usual)
        return p;
    nb_empty_histogram(t);
    const uint64_t fit = (uint64_t)((double)t->shared->window_ns / NB_SINGLES_SHARE / usual), loads = fit < NB_SINGLES ? fit : NB_SINGLES;
    for (uint64_t i = 0; i < loads; i++) {
        const uint64_t begin = nb_ticks();
        p = (uint64_t *)(uintptr_t)*(volatile uint64_t *)p;
        const uint64_t took = nb_ticks() - begin;
        const double load = took > counter.empty ? (double)(took - counter.empty) * tick : 0;
        t->value[NB_SINGLE_FAST] += 2 * load < usual;
        nb_count(t->histogram, (uint64_t)load, 1);
    }
    t->value[NB_SINGLE_LOADS] = loads;
    return p;
}
#endif
