/* A word that goes to and fro between two threads by compare-and-swap, without any pause: the hop of a cache line. */
#ifndef NB_HOP_H
#define NB_HOP_H
#include "nb_atomic.h"

/* This side waits for `next`, answers with the number after it, and so on, `times` times; its partner does the same one number on. */
static inline void nb_hops(uint64_t *word, uint64_t next, int times)
{
    for (int i = 0; i < times; i++, next += 2) {
        uint64_t seen;
        do
            seen = next;
        while (!nb_cas(word, &seen, next + 1));
    }
}
#endif
