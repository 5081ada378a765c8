/* The crew: the threads of a worker process. They are created once, pin themselves where they are told, and enter kernels together.
 *
 * The caller (Python's main thread) is member 0: were it another thread, it would take a time slice from one that measures. It calls the first
 * member on each CPU through a tree, each of these wakes the next one on its CPU, which costs no interrupt of another CPU, and so on; who comes
 * back last tells the caller. Who waits looks at a word of its own for a moment and then sleeps: nobody who measures shares its CPU with
 * somebody who only waits. Python owns the memory and judges. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_pin.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FAN 8              /* other CPUs that one wakes: at 512 each is three wake-ups from the first, and none wakes more than eight */
#define NOT_FIRST UINT32_MAX
#define STACK_BYTES (1u << 20)
#define STAGGER 320        /* bytes */
#define BLOCKS 2           /* of each member: one for the kernel, one for the sentinels, whose entries leave the first alone */

/* What one thread brings back from one entry. */
struct nb_found {
    struct nb_thread thread;
    int32_t status;            /* what nb_run returned */
    uint32_t switches, faults; /* involuntary switches and page faults of the thread inside the entry */
    uint32_t pad;
};

/* One entry of members 0 to threads - 1, or of those named, of which the first is 0. Without `run` they pin themselves. */
struct nb_step {
    int (*run)(struct nb_thread *);
    struct nb_case *shared;
    struct nb_found *found; /* one for each thread */
    const uint32_t *members;
    uint32_t threads, block;
};

/* A member's words lie pages from those of all others, so that no prefetcher couples two of them, and not at the same place of a page: of many members they would
 * have to share a few sets of a cache. */
struct nb_member {
    uint32_t called, asleep; /* number of the last step that it was called to: a futex; whether it must be woken */
    uint32_t arrived;        /* of this member and those below it, in the step under way */
    int32_t worst;           /* status of those */
    uint32_t seat;           /* its index in that step, */
    uint32_t above, below;   /* whom it tells that all below it are back, and how many tell it so */
    uint32_t next, last;     /* of its CPU: whom it calls, 0 if nobody; of the first one: the last of them so far */
    uint32_t place, listed;  /* its place among the first ones, NOT_FIRST; member at the place of this number */
    uint32_t first;          /* the first member on its CPU */
    int32_t cpu, wanted;     /* where it is pinned, where it is to be; -1: nowhere yet */
    int32_t error;           /* of its last pinning: errno */
    int32_t schedstat;
    uint32_t group;
    struct nb_crew *crew;
    pthread_t thread;
    uint8_t pad[4096 - 88];
    union {
        struct nb_thread thread;
        uint8_t page[4096];
    } block[BLOCKS];
    uint8_t pad1[STAGGER];
};

struct nb_crew {
    uint32_t size, running; /* members; threads that there are, the caller with them */
    uint32_t number, stop;  /* of steps; whether called members leave */
    uint32_t firsts, pad;   /* CPUs of the step under way */
    int32_t worst, error;   /* status of the last step; errno of a thread that could not be created */
    uint64_t spin_ns;       /* for how long who waits looks before it sleeps; 0 where it shares its CPU */
    const struct nb_step *step;
    uint8_t rest[4096 - 48];
    struct nb_member member[];
};

/* Sizes and offsets that the loader compares with its own. */
const uint32_t nb_crew_layout[] = {sizeof(struct nb_crew), sizeof(struct nb_member), offsetof(struct nb_member, block), sizeof(struct nb_found),
                                   offsetof(struct nb_found, status), sizeof(struct nb_step), offsetof(struct nb_crew, spin_ns),
                                   sizeof(struct nb_case), sizeof(struct nb_thread), NB_ABI};

static void call(struct nb_member *m, uint32_t number)
{
    __atomic_store_n(&m->called, number, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&m->asleep, __ATOMIC_SEQ_CST)) /* either it sees the number, or this sees that it sleeps */
        syscall(SYS_futex, &m->called, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Until the member is called to another step than `last`. */
static uint32_t await(struct nb_member *m, uint32_t last)
{
    const uint64_t spin = m->crew->spin_ns, until = spin ? nb_now() + spin : 0;
    uint32_t called;
    while ((called = __atomic_load_n(&m->called, __ATOMIC_ACQUIRE)) == last) {
        if (spin && nb_now() < until) {
            nb_relax();
            continue;
        }
        __atomic_store_n(&m->asleep, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &m->called, FUTEX_WAIT_PRIVATE, last, NULL, NULL, 0); /* returns at once if it has been called since */
        __atomic_store_n(&m->asleep, 0, __ATOMIC_SEQ_CST);
    }
    return called;
}

/* This member has come back: who comes last of some tells the one above them, and who comes last of all the caller. */
static void come_back(struct nb_crew *crew, struct nb_member *m, int32_t status)
{
    const uint32_t number = crew->number;
    for (;; m = &crew->member[m->above]) {
        if (status)
            __atomic_store_n(&m->worst, status, __ATOMIC_RELAXED);
        if (nb_add32(&m->arrived, 1) + 1 <= m->below)
            return;
        status = m->worst;
        m->arrived = 0;
        m->worst = 0;
        if (!m->place) {
            crew->worst = status;
            call(m, number);
            return;
        }
    }
}

static int32_t move(struct nb_member *m)
{
    if (m->cpu == m->wanted)
        return 0;
    m->error = nb_pin(m->wanted);
    m->cpu = m->error ? -1 : m->wanted;
    return m->error;
}

static int32_t enter(const struct nb_step *step, struct nb_member *m)
{
    struct nb_thread *t = &m->block[step->block].thread;
    struct nb_found *found = &step->found[m->seat];
    struct rusage before, after;
    t->shared = step->shared;
    t->index = m->seat;
    t->group = m->group;
    t->gates = 0;
    t->binned = 0;
    t->schedstat = m->schedstat;
    getrusage(RUSAGE_THREAD, &before);
    const int32_t status = step->run(t);
    getrusage(RUSAGE_THREAD, &after);
    memcpy(&found->thread, t, t->binned ? sizeof *t : offsetof(struct nb_thread, histogram)); /* as much again, of many threads, is more than a cache holds */
    found->status = status;
    found->switches = (uint32_t)(after.ru_nivcsw - before.ru_nivcsw);
    found->faults = (uint32_t)(after.ru_minflt + after.ru_majflt - before.ru_minflt - before.ru_majflt);
    return status;
}

static void take_part(struct nb_crew *crew, struct nb_member *m)
{
    const struct nb_step *step = crew->step;
    if (m->place != NOT_FIRST)
        for (uint32_t place = m->place * FAN + 1; place <= m->place * FAN + FAN && place < crew->firsts; place++)
            call(&crew->member[crew->member[place].listed], crew->number);
    if (m->next)
        call(&crew->member[m->next], crew->number);
    come_back(crew, m, step->run ? enter(step, m) : move(m));
}

/* Who calls whom in a step, and who tells whom that it is over. */
static void order(struct nb_crew *crew, const struct nb_step *step)
{
    crew->firsts = 0;
    for (uint32_t seat = 0; seat < step->threads; seat++) {
        const uint32_t own = step->members ? step->members[seat] : seat;
        struct nb_member *m = &crew->member[own], *first = &crew->member[m->first];
        m->seat = seat;
        m->below = m->next = 0;
        m->place = NOT_FIRST;
        if (first != m && first->place < crew->firsts && crew->member[first->place].listed == m->first) { /* it is in this step */
            crew->member[first->last].next = own;
            first->last = own;
            m->above = m->first;
        } else {
            crew->member[crew->firsts].listed = own;
            m->last = own;
            m->place = crew->firsts++;
            m->above = crew->member[m->place ? (m->place - 1) / FAN : 0].listed;
        }
        if (m->place)
            crew->member[m->above].below++;
    }
}

static int alike(const struct nb_step *a, const struct nb_step *b)
{
    return a->threads == b->threads && a->members && b->members && !memcmp(a->members, b->members, a->threads * sizeof *a->members);
}

static void *serve(void *argument)
{
    struct nb_member *m = argument;
    m->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC); /* -1 on kernels without it */
    for (uint32_t last = 0;;) {
        last = await(m, last);
        if (m->crew->stop)
            break;
        take_part(m->crew, m);
    }
    close(m->schedstat);
    return NULL;
}

/* Makes `size` members out of zeroed memory; how many threads there are then: fewer where the system gives no more. */
uint32_t nb_crew_start(struct nb_crew *crew, uint32_t size)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the caller's */
    crew->size = size;
    crew->running = 1;
    for (uint32_t i = 0; i < size; i++) {
        crew->member[i].crew = crew;
        crew->member[i].cpu = -1;
        crew->member[i].first = i;
    }
    crew->member[0].schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    for (; crew->running < size && !crew->error; crew->running += !crew->error)
        crew->error = pthread_create(&crew->member[crew->running].thread, &attributes, serve, &crew->member[crew->running]);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return crew->running;
}

/* All threads but the caller are gone afterwards, and the memory can be. */
void nb_crew_stop(struct nb_crew *crew)
{
    crew->stop = 1;
    for (uint32_t i = 1; i < crew->running; i++)
        call(&crew->member[i], crew->number + 1);
    for (uint32_t i = 1; i < crew->running; i++)
        pthread_join(crew->member[i].thread, NULL);
    close(crew->member[0].schedstat);
}

/* The steps one after the other, each when all have come back from the one before; how many were done without any status but 0. */
uint32_t nb_crew_follow(struct nb_crew *crew, const struct nb_step *steps, uint32_t count)
{
    struct nb_member *first = &crew->member[0];
    for (uint32_t i = 0; i < count; i++) {
        const struct nb_step *step = crew->step = &steps[i];
        if (step->run) {
            step->shared->threads = step->threads;
            step->shared->arrived = 0;
            memset(step->shared->opens, 0, sizeof step->shared->opens);
        }
        if (!i || !alike(step, step - 1))
            order(crew, step);
        const uint32_t last = crew->number++;
        take_part(crew, first);
        await(first, last);
        if (crew->worst)
            return i;
    }
    return count;
}

/* Pins member i to cpus[i], of which firsts[i] is the first member, before any of them enters a kernel: a gate that one never reaches never opens. How many could not be: their
 * errors are left in `errors`. */
uint32_t nb_crew_place(struct nb_crew *crew, const int32_t *cpus, const int32_t *groups, const uint32_t *firsts, int32_t *errors, uint32_t count)
{
    const struct nb_step pinning = {.threads = count};
    uint32_t failed = 0, moved = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct nb_member *m = &crew->member[i];
        m->wanted = cpus[i];
        m->group = (uint32_t)groups[i];
        m->first = firsts[i];
        m->error = 0;
        moved += m->cpu != cpus[i];
    }
    if (moved)
        nb_crew_follow(crew, &pinning, 1);
    for (uint32_t i = 0; i < count; i++)
        failed += (errors[i] = crew->member[i].error) != 0;
    return failed;
}
