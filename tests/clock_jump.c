/* Preloaded into a process: from the moment CLOCK_JUMP_AT (seconds of CLOCK_MONOTONIC) on, the time of day is CLOCK_JUMP_BY seconds off. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);
static double at, by;

__attribute__((constructor)) static void begin(void)
{
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    at = atof(getenv("CLOCK_JUMP_AT"));
    by = atof(getenv("CLOCK_JUMP_BY"));
}

static time_t off(void)
{
    struct timespec now;
    real(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9 < at ? 0 : (time_t)by;
}

int clock_gettime(clockid_t clock, struct timespec *found)
{
    const int failed = real(clock, found);
    if (!failed && clock == CLOCK_REALTIME)
        found->tv_sec += off();
    return failed;
}

time_t time(time_t *found)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (found)
        *found = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *found, void *zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    found->tv_sec = now.tv_sec;
    found->tv_usec = now.tv_nsec / 1000;
    return 0;
}
