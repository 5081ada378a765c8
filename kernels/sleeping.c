/* How late a thread wakes that sleeps for a given time: by several calls, by the slack that the kernel may take with its timer, and by the class that schedules it.
 *
 * Who sleeps is a thread of its own for each sample: who is of class SCHED_IDLE gets out of it by privilege alone.
 *
 * What is proven: no sleep ended early, each gave the CPU up (by the kernel's count of voluntary context switches), and the slack and the class are what was asked for. */
#include "nb.h"
#include "nb_each.h"
#include "nb_usage.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

enum { CALL, DURATION, SLACK, SCHEDULING };
enum { NANOSLEEP, CLOCK_NANOSLEEP, EPOLL_WAIT, EPOLL_PWAIT2, TIMERFD };
enum { NORMAL, BATCH, IDLE };

static const struct nb_parameter parameters[] = {
    [CALL] = {"call", "nanosleep|clock_nanosleep|epoll_wait|epoll_pwait2|timerfd", "what the thread sleeps in", NANOSLEEP, 0, 4},
    [DURATION] = {"duration", NULL, "ns for which it is to sleep", 100000, 1, 1000000000},
    [SLACK] = {"slack", NULL, "ns of timer slack (PR_SET_TIMERSLACK)", 50000, 1, 1000000000},
    [SCHEDULING] = {"scheduling", "normal|batch|idle", "class of the thread", NORMAL, 0, IDLE},
};
static const struct nb_metric metrics[] = {
    {"late", "ns", "from the end of the time asked for to the thread's next instruction: median", NB_LOWER_IS_BETTER},
    {"late_p99", "ns", "the same, 99th percentile", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("sleeping", 2, "how late sleeps end", parameters, metrics);

/* Of `value`, behind those of nb_each. */
enum { REFUSED = 6, EARLY, SWITCHES, SLACK_SEEN, CLASS_SEEN };

/* Descriptors: a timer that is read, and an epoll instance in which nothing ever happens. */
enum { TIMER = 1, WAITS = 5 };

#define STACK_BYTES (128u << 10) /* of who sleeps, in the scratch memory */
#define SECOND 1000000000u
#define MILLISECOND 1000000u
#define EARLY_NS 10 /* by which a sleep may seem early: what the kernel reads of the clock and what programs do are rounded apart */

static struct timespec of(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / SECOND), (long)(ns % SECOND)};
}

static long pause_in_epoll(int waits, const struct timespec *t)
{
    struct epoll_event event;
#ifdef SYS_epoll_pwait2
    return syscall(SYS_epoll_pwait2, waits, &event, 1, t, NULL, 0);
#else
    (void)waits, (void)t, (void)event;
    errno = ENOSYS;
    return -1;
#endif
}

/* Sleeps once; 0 where the call does not do it. */
static int doze(const struct nb_case *c, uint64_t before, uint64_t ns)
{
    const struct timespec relative = of(ns), absolute = of(before + ns);
    struct epoll_event event;
    uint64_t expired;
    switch (c->parameter[CALL]) {
    case NANOSLEEP:
        return !nanosleep(&relative, NULL);
    case CLOCK_NANOSLEEP:
        return !clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &absolute, NULL);
    case EPOLL_WAIT: /* in whole ms, as event loops round: up, since nothing may be early */
        return !epoll_wait(c->descriptor[WAITS], &event, 1, (int)((ns + MILLISECOND - 1) / MILLISECOND));
    case EPOLL_PWAIT2:
        return !pause_in_epoll(c->descriptor[WAITS], &relative);
    default: {
        const struct itimerspec once = {{0, 0}, relative};
        return !timerfd_settime(c->descriptor[TIMER], 0, &once, NULL) && read(c->descriptor[TIMER], &expired, sizeof expired) == sizeof expired && expired == 1;
    }
    }
}

static uint64_t sleep_once(struct nb_thread *t)
{
    const uint64_t duration = (uint64_t)t->shared->parameter[DURATION], before = nb_now();
    const int slept = doze(t->shared, before, duration);
    const uint64_t took = nb_now() - before;
    t->check += (uint64_t)slept;
    t->value[REFUSED] += !slept;
    t->value[EARLY] += slept && took + EARLY_NS < duration;
    return took > duration ? took - duration : 0;
}

/* The thread that sleeps, in the other one's place. NULL: it is of the class that it is to be. */
static void *sleep_in_class(void *at)
{
    static const int classes[] = {SCHED_OTHER, SCHED_BATCH, SCHED_IDLE};
    struct nb_thread *t = at;
    const struct nb_case *c = t->shared;
    const struct sched_param none = {0};
    const int wanted = classes[c->parameter[SCHEDULING]], before = t->schedstat;
    if (before >= 0)
        t->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    const int refused = sched_getscheduler(0) != wanted && sched_setscheduler(0, wanted, &none);
    t->value[CLASS_SEEN] = (uint64_t)sched_getscheduler(0);
    prctl(PR_SET_TIMERSLACK, (unsigned long)c->parameter[SLACK], 0, 0, 0);
    t->value[SLACK_SEEN] = (uint64_t)prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    const uint64_t switches = (uint64_t)nb_usage().ru_nvcsw;
    if (!refused)
        nb_each(t, sleep_once);
    t->value[SWITCHES] += (uint64_t)nb_usage().ru_nvcsw - switches;
    if (t->schedstat >= 0)
        close(t->schedstat);
    t->schedstat = before;
    return refused ? at : NULL;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t call = c->parameter[CALL];
    if (c->threads != 1 || c->buffer_bytes < 64 || c->scratch_bytes < STACK_BYTES || (call == TIMERFD && c->descriptor[TIMER] < 0) ||
        ((call == EPOLL_WAIT || call == EPOLL_PWAIT2) && c->descriptor[WAITS] < 0))
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        const struct timespec none = {0, 0};
        memset(c->buffer, 0, 64);
        memset(t->value, 0, sizeof t->value);
        t->check = 0;
        return call == EPOLL_PWAIT2 && pause_in_epoll(c->descriptor[WAITS], &none) ? NB_UNSUPPORTED : NB_OK;
    }
    pthread_attr_t attributes;
    pthread_t sleeper;
    void *refused = t;
    pthread_attr_init(&attributes);
#ifndef NB_SANITIZED /* what it keeps for each thread has no room on this stack */
    pthread_attr_setstack(&attributes, c->scratch, STACK_BYTES);
#endif
    const int started = !pthread_create(&sleeper, &attributes, sleep_in_class, t);
    pthread_attr_destroy(&attributes);
    if (started)
        pthread_join(sleeper, &refused);
    return refused ? NB_UNSUPPORTED : NB_OK;
}
