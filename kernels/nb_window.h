/* A measured window: all threads work from a common start for a common time, by the clock and not by a count (with a
 * fixed count the threads overlap by half, and the rest of the time is not what was asked). */
#ifndef NB_WINDOW_H
#define NB_WINDOW_H
#include "nb.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An empty one, to be filled; what no entry has filled is not brought back. */
static inline void nb_empty_histogram(struct nb_thread *t)
{
    t->binned = 1;
    memset(t->histogram, 0, sizeof t->histogram);
}

/* What a window leaves in value[]: operations in a batch, ns of the shortest batch, ps of the median one (its rate without
 * the interruptions that every window has), the longest wait in ns of those recorded, the ns that NB_FINE bins of the
 * histogram of batches stand for, and ps of the mean batch without the shortest and the longest NB_TRIMMED of them. */
enum { NB_BATCH, NB_SHORTEST, NB_MEDIAN_PS, NB_LONGEST, NB_USUAL, NB_MEAN_PS };

/* A batch that takes this long was interrupted. Ten times the usual one (not the shortest, which a cache may have served): no level of
 * memory is ten times slower than the one before it; 20 us more: a timer tick takes 2 to 5. */
#define NB_GAP_NS(usual) (10 * (usual) + 20000)

/* Executes `n` operations (a multiple of 64). */
typedef void (*nb_batch)(struct nb_thread *t, uint64_t n);

/* The histogram of batches: NB_FINE bins per duration of a usual one up to twice that (the median batch is known to 0.4 %), then NB_COARSE per octave
 * (within 3 %) up to 2^9 times that. The last bin has no end. */
#define NB_FINE 256
#define NB_COARSE 16
#define NB_TRIMMED 0.01 /* at either end: a timer's tick comes to one in 400 batches of 10 us, and costs several of them */
#define NB_FEW 8        /* from which on a whole batch is left out at either end: a hundredth of fewer than a hundred is none, and one interruption would weigh as much as all */

static inline uint32_t nb_batch_bin(uint64_t took, uint64_t usual)
{
    const uint64_t fine = took * NB_FINE / usual;
    if (fine < 2 * NB_FINE)
        return (uint32_t)fine;
    const uint32_t octave = 63 - (uint32_t)__builtin_clzll(fine); /* 9 and more */
    const uint64_t bin = 2 * NB_FINE + (octave - 9) * NB_COARSE + (fine >> (octave - 4)) % NB_COARSE;
    return bin < NB_BINS ? (uint32_t)bin : NB_BINS - 1;
}

/* The middle of a bin, in NB_FINE per usual duration. */
static inline double nb_batch_middle(uint32_t bin)
{
    const uint32_t coarse = bin - 2 * NB_FINE;
    return bin < 2 * NB_FINE ? bin + 0.5 : (double)(2 * (NB_COARSE + coarse % NB_COARSE) + 1) * (double)(1u << coarse / NB_COARSE << 4);
}

static inline double nb_median_batch(const uint32_t *bins, uint64_t batches)
{
    uint64_t seen = 0;
    uint32_t bin = 0;
    while (bin < NB_BINS - 1 && (seen += bins[bin]) * 2 < batches)
        bin++;
    return nb_batch_middle(bin);
}

/* Tukey's trimmed mean (1962). Where operations differ, as the loads of a set that a cache holds in part do, the median batch is one kind of them
 * and not what they cost: 33 ns where the mean was 28. The trimming leaves out what interrupted the window. */
static inline double nb_mean_batch(const uint32_t *bins, uint64_t batches)
{
    const double share = NB_TRIMMED * (double)batches, cut = share < 1 && batches >= NB_FEW ? 1 : share, end = (double)batches - cut;
    double seen = 0, sum = 0;
    for (uint32_t bin = 0; bin < NB_BINS; bin++) {
        const double from = seen > cut ? seen : cut;
        seen += bins[bin];
        const double to = seen < end ? seen : end;
        if (to > from)
            sum += (to - from) * nb_batch_middle(bin);
    }
    return sum / (end - cut);
}

/* ns for which the thread was runnable and not running since it began, by the kernel's own count; a microsecond to read. Read here and not
 * around the entry: waking up before the gate and waiting for the interpreter afterwards disturb nothing. */
static inline uint64_t nb_run_delay(const struct nb_thread *t)
{
    char text[64] = "", *second;
    if (t->schedstat < 0 || pread(t->schedstat, text, sizeof text - 1, 0) <= 0 || !(second = strchr(text, ' ')))
        return 0;
    return strtoull(second, NULL, 10);
}

/* Batches so many times longer than wanted are halved until they are not: they were doubled while the other threads had not begun
 * yet, and a thread with long batches begins and ends its window long after the others. A doubled one takes less than twice what
 * is wanted. */
#define NB_TOO_LONG 4

/* Warm-up with batches doubled until the clock is read every batch_ns, then the window. The threads go on working
 * between the two, so that nobody measures alone. The clock's own 20-60 ns per batch stay below 1 % of 10 us. */
static inline void nb_window(struct nb_thread *t, nb_batch batch)
{
    const struct nb_case *c = t->shared;
    uint64_t n = 64, done = 0, batches = 0, usual = 1, shortest = UINT64_MAX;
    uint64_t begin = nb_gate(t) + c->warmup_ns, now = nb_now(), next, end;
    for (int enough = 0; now < begin || enough < 2; now = next) { /* twice: one may have been long by an interruption */
        batch(t, n);
        t->executed += n;
        t->end_ns = next = nb_now(); /* of the last batch, for batches that want to know how late it is */
        uint64_t took = next - now;
        if (enough == 0 || (took < usual && took >= c->batch_ns))
            usual = took + 1;
        if (took < c->batch_ns && enough < 2) /* once it is settled, a short batch means that another thread was interrupted */
            n *= 2, enough = 0;
        else
            enough++;
        for (; took > NB_TOO_LONG * c->batch_ns && n > 64; took /= 2)
            n /= 2, enough = 0;
    }
    nb_empty_histogram(t);
    t->gaps = 0;
    t->gap_ns = 0;
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    t->begin_ns = now = nb_now();
    end = (now > begin ? now : begin) + c->window_ns;
    do {
        batch(t, n);
        t->executed += n;
        done += n;
        t->end_ns = next = nb_now();
        uint64_t took = next - now;
        t->histogram[nb_batch_bin(took, usual)]++;
        batches++;
        if (took < shortest)
            shortest = took;
        if (took > NB_GAP_NS(usual))
            t->gaps++, t->gap_ns += took - usual;
        now = next;
    } while (now < end);
    t->cpu_end = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->operations = done;
    t->value[NB_BATCH] = n;
    t->value[NB_SHORTEST] = shortest;
    t->value[NB_USUAL] = usual;
    t->value[NB_MEDIAN_PS] = (uint64_t)(nb_median_batch(t->histogram, batches) * (double)usual * 1000 / NB_FINE);
    t->value[NB_MEAN_PS] = (uint64_t)(nb_mean_batch(t->histogram, batches) * (double)usual * 1000 / NB_FINE);
}

/* Crowds warm up for longer: who left the gate first was alone for a while. */
static inline uint64_t nb_count_warmup(const struct nb_case *c) { return c->warmup_ns * (1 + c->threads / 64); }

/* How many whole operations of a batch of `n`, which took so long and ended `now`, began after `when`; `usual`: how long it was meant to take. */
static inline uint64_t nb_after(uint64_t when, uint64_t now, uint64_t took, uint64_t usual, uint64_t n)
{
    if (took > NB_TOO_LONG * usual)
        return n / 2;
    return when + took > now ? n * (now - when) / took : n - 1;
}

/* A window for threads that may starve each other: what everybody has done between two times that all share. How far each was then lies between its looks at the clock,
 * in proportion to the time; what is under way at the begin belongs to before, at the end to the window. Where a batch took far longer than it was meant to, the thread waited,
 * nobody knows when, and half of it lies on either side: of a batch across the whole window, nothing. Who gets nowhere has done nothing: that is a result, and all go on
 * until the end. */
static inline void nb_count_window(struct nb_thread *t, nb_batch batch)
{
    const struct nb_case *c = t->shared;
    const uint64_t begin = nb_gate(t) + nb_count_warmup(c), end = begin + c->window_ns;
    t->run_delay_ns = nb_run_delay(t); /* with the warm-up: a thread that waits for its CPU beyond the begin is not starved by a lock */
    uint64_t n = 1, before = 0, now = t->end_ns = nb_now();
    for (int inside = 0; now < end || !inside;) {
        const uint64_t last = now, size = n;
        batch(t, n);
        t->executed += n;
        now = t->end_ns = nb_now();
        const uint64_t took = now - last;
        if (!inside && now >= begin) {
            inside = 1;
            before = t->executed - nb_after(begin, now, took, c->batch_ns, size);
            t->cpu_begin = sched_getcpu();
            t->begin_ns = now;
        }
        if (!inside && took < c->batch_ns)
            n *= 2;
        else if (took > NB_TOO_LONG * c->batch_ns && n > 1)
            n /= 2;
        if (now >= end)
            before += nb_after(end, now, took, c->batch_ns, size);
    }
    t->cpu_end = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->operations = t->executed - before;
    t->gaps = 0;
    t->gap_ns = 0;
    t->value[NB_BATCH] = n;
}

/* Counts `ns` in one of NB_BINS, 16 per octave, for so many operations that it stands for. */
static inline void nb_count(uint32_t *bins, uint64_t ns, uint32_t operations)
{
    uint32_t bin = (uint32_t)ns;
    if (ns >= 16) {
        uint32_t octave = 63 - (uint32_t)__builtin_clzll(ns);
        bin = (octave - 3) * 16 + (uint32_t)(ns >> (octave - 4) & 15);
    }
    bins[bin < NB_BINS ? bin : NB_BINS - 1] += operations;
}

/* The middle of a bin. */
static inline uint64_t nb_bin_ns(uint32_t bin)
{
    return bin < 16 ? bin : ((uint64_t)(16 + bin % 16) * 2 + 1) << (bin / 16 - 1) >> 1;
}

static inline void nb_record(struct nb_thread *t, uint64_t ns, uint32_t operations)
{
    nb_count(t->histogram, ns, operations);
    if (ns > t->value[NB_LONGEST])
        t->value[NB_LONGEST] = ns;
}
#endif
