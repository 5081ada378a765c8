/* kernels/nb_deque.h on a machine that does everything that x86 may: two threads access memory one at a time in every order, and each store waits in its
 * thread's buffer until the thread's next fence or locked operation at the latest. All orders are gone through, and those counted after which a task was taken
 * twice, or by nobody. What weaker processors may do beyond that (loads that overtake each other) is not in it. */
#include "nb_atomic.h"
#include "nb_cpu.h"
#include <string.h>
#include <ucontext.h>

static uint64_t see(const uint64_t *at);
static void put(uint64_t *at, uint64_t value);
static void drain(void);
static int replace(uint64_t *at, uint64_t *seen, uint64_t value);
#define nb_load_relaxed(at) see(at)
#define nb_load_acquire(at) see(at)
#define nb_store_relaxed(at, value) put(at, value)
#define nb_full_fence() drain()
#define nb_release_fence() ((void)0)
#define nb_cas(at, seen, value) replace(at, seen, value)
#include "nb_deque.h"

enum { OWNER, THIEF, THREADS };
#define BUFFERED 16
#define MOST_CHOICES 256
#define MOST_TASKS 16

static struct thread {
    ucontext_t context;
    uint8_t stack[1 << 16];
    uint64_t *at[BUFFERED], value[BUFFERED]; /* stores that nobody else sees yet, oldest first */
    int buffered, ended;
} threads[THREADS];
static ucontext_t scheduler;
static int running; /* THREADS: nobody, and stores are seen at once */
static struct nb_deque deque;
static int pushes, pops, steals, taken[MOST_TASKS];

/* The choices that led here, and how many there were each time. */
static int path[MOST_CHOICES], choices[MOST_CHOICES], known, depth;

static int choose(int among)
{
    if (among == 1)
        return 0;
    if (depth == known) {
        path[depth] = 0;
        choices[depth] = among;
        known++;
    }
    return path[depth++];
}

/* To the next path that has not been gone; 0: there is none. */
static int go_on(void)
{
    while (known && path[known - 1] + 1 == choices[known - 1])
        known--;
    if (!known)
        return 0;
    path[known - 1]++;
    return 1;
}

static void give_way(void)
{
    if (running < THREADS)
        swapcontext(&threads[running].context, &scheduler);
}

static void flush(struct thread *t)
{
    *t->at[0] = t->value[0];
    t->buffered--;
    memmove(t->at, t->at + 1, (size_t)t->buffered * sizeof *t->at);
    memmove(t->value, t->value + 1, (size_t)t->buffered * sizeof *t->value);
}

static void drain(void)
{
    while (running < THREADS && threads[running].buffered)
        flush(&threads[running]);
}

static uint64_t see(const uint64_t *at)
{
    give_way();
    for (int i = running < THREADS ? threads[running].buffered : 0; i--;)
        if (threads[running].at[i] == at)
            return threads[running].value[i];
    return *at;
}

static void put(uint64_t *at, uint64_t value)
{
    if (running == THREADS) {
        *at = value;
        return;
    }
    give_way();
    struct thread *t = &threads[running];
    t->at[t->buffered] = at;
    t->value[t->buffered++] = value;
}

static int replace(uint64_t *at, uint64_t *seen, uint64_t value)
{
    give_way();
    drain();
    const uint64_t was = *at;
    if (was == *seen) {
        *at = value;
        return 1;
    }
    *seen = was;
    return 0;
}

static void take(uint64_t task)
{
    if (task != NB_EMPTY && task != NB_ABORTED)
        taken[task % MOST_TASKS]++;
}

static void own(int tasks)
{
    for (int i = 0; i < pushes; i++)
        nb_push(&deque, (uint64_t)(tasks + i + 1));
    for (int i = 0; i < pops; i++)
        take(nb_pop(&deque));
    threads[OWNER].ended = 1;
}

static void rob(void)
{
    for (int i = 0; i < steals; i++)
        take(nb_steal(&deque));
    threads[THIEF].ended = 1;
}

static void begin(int tasks)
{
    memset(&deque, 0, sizeof deque);
    memset(taken, 0, sizeof taken);
    running = THREADS;
    for (int i = 1; i <= tasks; i++)
        nb_push(&deque, (uint64_t)i);
    for (int i = 0; i < THREADS; i++) {
        struct thread *t = &threads[i];
        t->buffered = t->ended = 0;
        getcontext(&t->context);
        t->context.uc_stack.ss_sp = t->stack;
        t->context.uc_stack.ss_size = sizeof t->stack;
        t->context.uc_link = &scheduler;
    }
    makecontext(&threads[OWNER].context, (void (*)(void))own, 1, tasks);
    makecontext(&threads[THIEF].context, rob, 0);
}

/* One step: a thread's next access, or its oldest store becomes visible. 0: all is done. */
static int step(void)
{
    int can[2 * THREADS], count = 0;
    for (int i = 0; i < THREADS; i++) {
        if (!threads[i].ended)
            can[count++] = i;
        if (threads[i].buffered)
            can[count++] = THREADS + i;
    }
    if (!count)
        return 0;
    const int chosen = can[choose(count)];
    if (chosen >= THREADS) {
        flush(&threads[chosen - THREADS]);
        return 1;
    }
    running = chosen;
    swapcontext(&scheduler, &threads[chosen].context);
    running = THREADS;
    return 1;
}

/* A deque of so many tasks, and what both do. found: orders, and those that went wrong. */
void explore(int tasks, int pushed, int popped, int stolen, uint64_t *found)
{
    pushes = pushed, pops = popped, steals = stolen;
    found[0] = found[1] = 0;
    known = 0;
    do {
        int wrong = 0;
        depth = 0;
        begin(tasks);
        while (step())
            ;
        for (int i = 0; i < MOST_TASKS; i++) /* what is left; a broken one may never be empty */
            take(nb_pop(&deque));
        for (int i = 1; i <= tasks + pushed; i++)
            wrong |= taken[i] != 1;
        found[0]++;
        found[1] += (uint64_t)wrong;
    } while (go_on());
}
