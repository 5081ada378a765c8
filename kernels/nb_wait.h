/* How one thread waits for another: awake, giving way where it shares its CPU, or asleep in a futex for a while. What is measured itself (locks, channels, wake_up, fibers) has calls of its own. */
#ifndef NB_WAIT_H
#define NB_WAIT_H
#include "nb_atomic.h"
#include "nb_cpu.h"
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* One turn of who waits awake. `crowded`: of the case, whether who is waited for may need this CPU. */
static inline void nb_give_way(uint32_t crowded)
{
    if (crowded)
        sched_yield();
    else
        nb_relax();
}

static inline void nb_await(const uint64_t *word, uint64_t value, uint32_t crowded)
{
    while (nb_load_acquire(word) != value)
        nb_give_way(crowded);
}

/* Sleeps while *word is `while_it_is`, for `ns` at most: a wake-up that got lost costs that much and no more. */
static inline void nb_sleep_for(uint32_t *word, uint32_t while_it_is, uint64_t ns)
{
    const struct timespec most = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, while_it_is, &most, NULL, 0);
}

static inline void nb_wake(uint32_t *word, int most)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}
#endif
