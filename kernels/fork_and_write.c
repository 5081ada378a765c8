/* What a fork costs the one who forks, by memory, and what its first write to each page costs while the child lives.
 *
 * Before each event all pages are given back and touched anew: after one fork and writes a huge page is small ones for ever. The child waits until the parent has
 * written, and then looks whether its own pages hold what they held at the fork; it says so by its exit code.
 *
 * Only the thread that forks is in the child. The others of the process sleep, or run, meanwhile: those that run have to forget that they may write. */
#include "nb.h"
#include "nb_each.h"
#include "nb_usage.h"
#include "nb_wait.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { OPERATION, PAGE, OTHERS };
enum { FORK, WRITE };
enum { NONE, SLEEPING, SPINNING };
enum { APART = 6, CHILDREN, TOUCHED }; /* of value[], with the warm-up: children that found their own pages, children in all; pages of one event */
enum { SLEPT = 6, TURNS, LOST_CPU }; /* of the other threads: times that they slept, turns of their loop, times that they lost their CPU */

#define OUT_SLOT 0 /* of descriptor[]: by which a child is told to go on */
#define IN_SLOT 1
#define SMALL 4096u
#define SLEEP_NS 1000000000 /* a wake-up that got lost costs that much and no more */

static const struct nb_parameter parameters[] = {
    [OPERATION] = {"operation", "fork|write", "what is timed: the fork, or the parent's first write to each page after it", FORK, 0, WRITE},
    [PAGE] = {"page_bytes", NULL, "distance of the writes: the size of the pages asked for", SMALL, SMALL, 1 << 30},
    [OTHERS] = {"others", "none|sleeping|spinning", "what the other threads of the process do", NONE, 0, SPINNING},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one fork, or of the first writes to all pages", NB_LOWER_IS_BETTER},
    {"time_per_page", "ns", "of that, for each page of the size asked for", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("fork_and_write", 3, "a fork, and what is copied when it is written to", parameters, metrics);

struct words { /* to the other threads, in the scratch memory */
    uint32_t stop;
    uint64_t begin_ns, end_ns;
};

static uint64_t old(uint64_t at) { return at * 2 + 1; }

static uint64_t pages_of(const struct nb_case *c) { return c->buffer_bytes / (uint64_t)c->parameter[PAGE]; }

/* A process of its own, with a copy of all memory: it may call the kernel and nothing else. */
static __attribute__((noreturn)) void child(const struct nb_case *c)
{
    const uint64_t page = (uint64_t)c->parameter[PAGE];
    uint64_t wrong = 0;
    char word;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (read(c->descriptor[IN_SLOT], &word, 1) != 1)
        wrong = 1;
    for (uint64_t i = 0; i < pages_of(c); i++)
        wrong += *(volatile uint64_t *)(c->buffer + i * page) != old(i);
    syscall(SYS_exit_group, wrong ? 1 : 0);
    __builtin_unreachable();
}

static uint64_t event(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const uint64_t page = (uint64_t)c->parameter[PAGE], pages = pages_of(c);
    uint64_t took;
    int status = 1;
    madvise(c->buffer, pages * page, MADV_DONTNEED);
    for (uint64_t i = 0; i < pages; i++)
        *(volatile uint64_t *)(c->buffer + i * page) = old(i);
    uint64_t before = nb_now();
    const long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* and not fork(), whose handlers are others' */
    if (!pid)
        child(c);
    took = nb_now() - before;
    if (pid < 0)
        return took;
    before = nb_now();
    for (uint64_t i = 0; i < pages; i++)
        *(volatile uint64_t *)(c->buffer + i * page) = ~old(i);
    if (c->parameter[OPERATION] == WRITE)
        took = nb_now() - before;
    t->value[CHILDREN]++;
    if (write(c->descriptor[OUT_SLOT], "", 1) == 1) {
        while (waitpid((pid_t)pid, &status, __WALL) < 0 && errno == EINTR)
            ;
        t->value[APART] += WIFEXITED(status) && !WEXITSTATUS(status);
    }
    return took;
}

/* Until the one that forks has done, whose window is this one's. It writes nothing meanwhile: a write after a fork faults, and waits for the next fork to end. */
static void stand_by(struct nb_thread *t, struct words *w)
{
    const struct nb_case *c = t->shared;
    nb_gate(t);
    t->cpu_begin = sched_getcpu();
    const struct rusage before = nb_usage();
    uint64_t turns = 0;
    t->run_delay_ns = nb_run_delay(t);
    for (; !nb_load32_acquire(&w->stop); turns++)
        if (c->parameter[OTHERS] == SLEEPING)
            nb_sleep_for(&w->stop, 0, SLEEP_NS);
        else if (c->crowded)
            sched_yield();
    const struct rusage after = nb_usage();
    t->value[SLEPT] = (uint64_t)(after.ru_nvcsw - before.ru_nvcsw);
    t->value[LOST_CPU] = (uint64_t)(after.ru_nivcsw - before.ru_nivcsw);
    t->value[TURNS] = turns;
    t->cpu_end = sched_getcpu();
    t->begin_ns = w->begin_ns;
    t->end_ns = w->end_ns;
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->gaps = 0;
    t->gap_ns = 0;
    t->operations = 1;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const uint64_t page = (uint64_t)c->parameter[PAGE];
    struct words *w = (struct words *)c->scratch;
    if ((c->threads == 1) != (c->parameter[OTHERS] == NONE) || c->scratch_bytes < sizeof *w || page & (page - 1) || !pages_of(c) || c->descriptor[OUT_SLOT] < 0 || c->descriptor[IN_SLOT] < 0)
        return NB_UNSUPPORTED;
#ifdef NB_SANITIZED /* its own thread is not in the child, and may hold a lock */
    return NB_UNSUPPORTED;
#endif
    if (c->phase == NB_PREPARE) {
        t->check = t->executed = 0;
        if (t->index)
            return NB_OK;
        for (uint64_t i = 0; i < pages_of(c); i++)
            *(uint64_t *)(c->buffer + i * page) = old(i);
        return NB_OK;
    }
    if (t->index) {
        stand_by(t, w);
        return NB_OK;
    }
    const uint64_t executed = t->executed;
    w->stop = 0; /* the others look behind the gate */
    t->value[APART] = t->value[CHILDREN] = 0;
    nb_each(t, event);
    t->value[TOUCHED] = pages_of(c);
    t->check = t->executed - executed;
    w->begin_ns = t->begin_ns, w->end_ns = t->end_ns;
    nb_store32_release(&w->stop, 1);
    nb_wake(&w->stop, INT_MAX);
    return NB_OK;
}
