/* Times beside those that nb_each keeps, where an event has several parts. */
#ifndef NB_SERIES_H
#define NB_SERIES_H
#include "nb_each.h"

struct nb_series {
    uint64_t usual, count; /* ns of the shortest one of the warm-up; how many were counted after it */
    uint32_t bins[NB_BINS]; /* as a window's histogram */
};

static inline void nb_series_begin(struct nb_series *s)
{
    memset(s, 0, sizeof *s);
    s->usual = UINT64_MAX;
}

/* `measures`: whether the window has begun. In nb_each it has when begin_ns is set, which who uses this clears before. */
static inline void nb_series_add(struct nb_series *s, uint64_t ns, int measures)
{
    if (measures) {
        s->bins[nb_batch_bin(ns, s->usual)]++;
        s->count++;
    } else if (ns < s->usual)
        s->usual = ns ? ns : 1;
}

/* 0 where none was counted. */
static inline uint64_t nb_series_median_ps(const struct nb_series *s)
{
    return s->count ? (uint64_t)(nb_median_batch(s->bins, s->count) * (double)s->usual * 1000 / NB_FINE) : 0;
}
#endif
