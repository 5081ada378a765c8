/* The system's clock as a system call makes it: no reading takes less than SLOW_NS. Included before a kernel, with NB_CLOCK=slow_clock. */
#define _GNU_SOURCE
#include <stdint.h>
#include <time.h>
static inline uint64_t slow_clock(void)
{
    struct timespec t;
    uint64_t begin = 0, now;
    do {
        clock_gettime(CLOCK_MONOTONIC, &t);
        now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
        begin = begin ? begin : now;
    } while (now - begin < SLOW_NS);
    return now / STEP_NS * STEP_NS;
}
