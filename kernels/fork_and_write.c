/* What a fork costs the one who forks, by memory, and what its first write to each page costs while the child lives.
 *
 * Before each event all pages are given back and touched anew: after one fork and writes a huge page is small ones for ever. The child waits until the parent has
 * written, and then looks whether its own pages hold what they held at the fork; it says so by its exit code. */
#include "nb.h"
#include "nb_each.h"
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { OPERATION, PAGE };
enum { FORK, WRITE };
enum { APART = 6, CHILDREN, TOUCHED }; /* of value[], with the warm-up: children that found their own pages, children in all; pages of one event */

#define OUT_SLOT 0 /* of descriptor[]: by which a child is told to go on */
#define IN_SLOT 1
#define SMALL 4096u

static const struct nb_parameter parameters[] = {
    [OPERATION] = {"operation", "fork|write", "what is timed: the fork, or the parent's first write to each page after it", FORK, 0, WRITE},
    [PAGE] = {"page_bytes", NULL, "distance of the writes: the size of the pages asked for", SMALL, SMALL, 1 << 30},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one fork, or of the first writes to all pages", NB_LOWER_IS_BETTER},
    {"time_per_page", "ns", "of that, for each page of the size asked for", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("fork_and_write", 2, "a fork, and what is copied when it is written to", parameters, metrics);

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

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const uint64_t page = (uint64_t)c->parameter[PAGE];
    if (c->threads != 1 || page & (page - 1) || !pages_of(c) || c->descriptor[OUT_SLOT] < 0 || c->descriptor[IN_SLOT] < 0)
        return NB_UNSUPPORTED;
#ifdef NB_SANITIZED /* its own thread is not in the child, and may hold a lock */
    return NB_UNSUPPORTED;
#endif
    if (c->phase == NB_PREPARE) {
        for (uint64_t i = 0; i < pages_of(c); i++)
            *(uint64_t *)(c->buffer + i * page) = old(i);
        return NB_OK;
    }
    const uint64_t executed = t->executed;
    t->value[APART] = t->value[CHILDREN] = 0;
    nb_each(t, event);
    t->value[TOUCHED] = pages_of(c);
    t->check = t->executed - executed;
    return NB_OK;
}
