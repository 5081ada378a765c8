/* How finely the clock tells times: what is shorter than its steps is known by the mean over many beginnings alone. */
#ifndef NB_CLOCK_H
#define NB_CLOCK_H
#include "nb.h"
#include <string.h>

#define NB_CLOCK_TRIES 512

/* ns of one step. Differences of readings that have more and more between them are multiples of it; those that are next to each other come from
 * rounding to ns and count as one. */
static inline uint64_t nb_clock_step(void)
{
    static const uint64_t rounding = 2;
    uint64_t found[NB_CLOCK_TRIES], n = 0, step = 0;
    for (uint64_t i = 0; i < NB_CLOCK_TRIES; i++) {
        uint64_t before = nb_now(), took;
        for (uint64_t spin = i % 128; spin; spin--)
            NB_OPAQUE(spin);
        took = nb_now() - before;
        uint64_t k = n;
        for (; k && found[k - 1] > took; k--)
            ;
        if (k && found[k - 1] == took)
            continue;
        memmove(found + k + 1, found + k, (n - k) * sizeof *found);
        found[k] = took;
        n++;
    }
    for (uint64_t k = 1; k < n; k++) {
        const uint64_t apart = found[k] - found[k - 1];
        if (apart >= rounding && (!step || apart < step))
            step = apart;
    }
    if (n == 1 && !*found) { /* it stood still: from one of its steps to the next */
        uint64_t first = nb_now(), second = first;
        for (int i = 0; i < 2; i++)
            for (first = second; (second = nb_now()) == first;)
                ;
        return second - first;
    }
    return step ? step : 1;
}
#endif
