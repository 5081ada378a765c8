/* What each thread notes beside a window: how far it was at the end of each ms, and times that are counted in bins. From it fairness over time. */
#ifndef NB_NOTES_H
#define NB_NOTES_H
#include "nb_window.h"

#define MOST_MS 1024u

struct notes { /* a thread's, in the scratch memory */
    uint64_t executed[MOST_MS]; /* at the end of each ms since the common start */
    uint64_t section;           /* multiplies inside, where the clock is read there as well */
    uint32_t every;             /* operations of which one is stamped */
    uint32_t handovers[NB_BINS];
};

static inline struct notes *notes(const struct nb_case *c, uint64_t i) { return (struct notes *)c->scratch + i; }

/* From the ends of the ms in which something was noted to those of all: a longer batch ends none. */
static inline void nb_note_ends(const struct nb_thread *t, uint64_t before)
{
    struct notes *own = notes(t->shared, t->index);
    for (uint64_t ms = 0; ms < MOST_MS; ms++)
        before = own->executed[ms] = own->executed[ms] ? own->executed[ms] : before;
}

/* Millionths of the mean of Jain's index over windows of `ms` from `first` to `last`; 0 where there is none. */
static inline uint64_t nb_fairness(const struct nb_case *c, uint64_t ms, uint64_t first, uint64_t last)
{
    uint64_t windows = 0;
    double indices = 0;
    last = last < MOST_MS - 1 ? last : MOST_MS - 1;
    for (uint64_t from = first; from + ms < last; from += ms) { /* the last ms is not whole */
        double all = 0, squares = 0;
        for (uint32_t i = 0; i < c->threads; i++) {
            const double done = (double)(notes(c, i)->executed[from + ms] - notes(c, i)->executed[from]);
            all += done;
            squares += done * done;
        }
        if (squares > 0)
            indices += all * all / (c->threads * squares), windows++;
    }
    return windows ? (uint64_t)(indices / (double)windows * 1e6) : 0;
}

/* How much what all did together varies from ms to ms: the variance, in 10^-9 of the mean's square; 0 of fewer than three. */
static inline uint64_t nb_unsteadiness(const struct nb_case *c, uint64_t first, uint64_t last)
{
    double n = 0, sum = 0, squares = 0;
    last = last < MOST_MS - 1 ? last : MOST_MS - 1;
    for (uint64_t from = first; from + 1 < last; from++) {
        double all = 0;
        for (uint32_t i = 0; i < c->threads; i++)
            all += (double)(notes(c, i)->executed[from + 1] - notes(c, i)->executed[from]);
        n++, sum += all, squares += all * all;
    }
    const double variance = n > 2 && sum > 0 ? (squares - sum * sum / n) / (n - 1) : 0;
    return variance > 0 ? (uint64_t)(variance * n * n / (sum * sum) * 1e9) : 0;
}
#endif
