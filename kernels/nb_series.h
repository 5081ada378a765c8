/* Times beside those that nb_each keeps, where an event has several parts. */
#ifndef NB_SERIES_H
#define NB_SERIES_H
#include "nb_each.h"

struct nb_series {
    uint64_t usual, warm, count; /* ns that NB_FINE bins stand for; how many were added in the warm-up and after it */
    uint32_t bins[NB_BINS];      /* as a window's histogram */
};

static inline void nb_series_begin(struct nb_series *s) { memset(s, 0, sizeof *s); }

/* `measures`: whether the window has begun. In nb_each it has when begin_ns is set, which who uses this clears before. */
static inline void nb_series_add(struct nb_series *s, uint64_t ns, int measures)
{
    if (!measures) {
        nb_count(s->bins, ns, 1);
        s->warm++;
        return;
    }
    if (!s->count++) {
        s->usual = s->warm ? nb_usual_event(s->bins, s->warm) : ns + 1;
        memset(s->bins, 0, sizeof s->bins);
    }
    s->bins[nb_batch_bin(ns, s->usual)]++;
}

/* 0 where none was counted. */
static inline uint64_t nb_series_median_ps(const struct nb_series *s) { return s->count ? (uint64_t)(nb_median_event(s->bins, s->count, s->usual) * 1000) : 0; }
#endif
