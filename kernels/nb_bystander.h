/* Bystanders of address_space.c: what other threads, or other processes, do while one thread makes calls, and what they lose by each.
 *
 * Before each call every one that runs says that it is there. What it then loses until the call is over (turns of its loop that took far longer than usual) is what that call has
 * taken from it. One that sleeps waits for a futex. One of another process is that process, on the CPU of the thread that made it. */
#ifndef NB_BYSTANDER_H
#define NB_BYSTANDER_H
#include "nb_each.h"
#include "nb_range.h"
#include "nb_wait.h"
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { NONE, SLEEPING, SPINNING, READING, PROCESS };

/* Of value[] of each bystander: times that it slept, turns of its loop in the window, ns of a usual one, ns lost in the window in all, pages read that were as they should be. */
enum { SLEPT = 6, TURNS, TURN_NS, LOST_NS, READ };

#define LEAST_LOSS_NS 400     /* more than the usual turn: a line that comes from another package takes less, an interrupt more */
#define LOSS_SCALE_NS 4096    /* what NB_FINE bins of the histogram of losses stand for: 16 ns each up to 8 us, then within 3 % */
#define PATIENCE_NS 100000000u /* for which a bystander may be away before a call: some time slices of a busy CPU */
#define SLEEP_NS 1000000000   /* a wake-up that got lost costs that much and no more */
#define TRIES 64              /* turns of which the shortest is the usual one */

enum { WARMING, WINDOW, COUNTING }; /* what calls are for */
enum { READY = 1, CALLING, UNDOING };
#define STOP UINT64_MAX

/* From the thread that calls to all others, in the first page of the scratch memory. That and the seats are shared with other processes. */
struct words {
    uint64_t turn; /* number of the call, and what is done of it */
    uint32_t purpose, stop;
    uint64_t begin_ns, end_ns;
    uint32_t blind; /* whether mincore tells nothing, as in some sandboxes */
};

/* From each of the others to that one: a page of its own behind the range. */
struct seat {
    uint64_t ready, away; /* the turn for which it says that it is there; whether it has lost its CPU since */
    int32_t cpu;
    uint8_t pad[NB_APART - 20];
    struct nb_thread found; /* where it is another process */
};
_Static_assert(sizeof(struct seat) <= LEAST_BASE && sizeof(struct words) <= LEAST_BASE, "each has a page");

static inline struct words *words_of(const struct nb_case *c) { return (struct words *)c->scratch; }

/* Of thread `index`, from 1. */
static inline struct seat *seat_of(const struct range *r, uint32_t index)
{
    return (struct seat *)(r->elsewhere + r->bytes + (index - 1) * r->base);
}

/* Until all say that they are there. Returns whether they did; `absent`: calls before which some did not. */
static int await_all(const struct nb_case *c, const struct range *r, uint64_t turn, uint64_t *absent)
{
    const uint64_t until = nb_now() + PATIENCE_NS / (1 + *absent); /* who never comes holds up nobody for long */
    nb_store_release(&words_of(c)->turn, turn);
    for (uint32_t i = 1; i < c->threads; i++)
        while (nb_load_acquire(&seat_of(r, i)->ready) != turn) {
            if (nb_now() > until) {
                ++*absent;
                return 0;
            }
            if (c->crowded)
                sched_yield();
        }
    return 1;
}

/* Whether one has lost its CPU since it said that it is there: who has is not interrupted. */
static int any_away(const struct nb_case *c, const struct range *r)
{
    uint64_t away = 0;
    for (uint32_t i = 1; i < c->threads; i++)
        away |= seat_of(r, i)->away;
    return away != 0;
}

/* One that runs. */
static void stay_awake(struct nb_thread *t, struct words *w, const struct range *r)
{
    const struct nb_case *c = t->shared;
    struct seat *own = seat_of(r, t->index);
    uint64_t usual = UINT64_MAX, last, now, turn, seen = 0, lost = 0, zero = 0, switches = 0;
    uint32_t purpose = WARMING;
    int open = 0; /* whether it has said that it is there, and the call is not over yet */
    last = nb_now();
    for (int i = 0; i < TRIES; i++, last = now) {
        (void)nb_load_acquire(&w->turn);
        now = nb_now();
        if (now - last < usual)
            usual = now - last;
    }
    t->value[TURN_NS] = usual;
    for (;;) {
        turn = nb_load_acquire(&w->turn);
        now = nb_now();
        if (now - last > usual + LEAST_LOSS_NS)
            lost += now - last - usual;
        last = now;
        t->value[TURNS] += purpose == WINDOW;
        if (c->crowded)
            sched_yield();
        if (turn == seen)
            continue;
        seen = turn;
        if (open && (turn & 3) != CALLING) {
            open = 0;
            if (purpose == WINDOW) {
                t->histogram[nb_batch_bin(lost, LOSS_SCALE_NS)]++;
                t->value[LOST_NS] += lost;
                t->operations++;
            } else if (purpose == COUNTING) {
                own->away = (uint64_t)nb_usage().ru_nivcsw != switches;
                nb_store_release(&own->ready, turn);
            }
        }
        const uint32_t next = turn == STOP ? COUNTING : nb_load32_relaxed(&w->purpose);
        if (next == WINDOW && purpose == WARMING) {
            t->run_delay_ns = nb_run_delay(t);
            t->cpu_begin = sched_getcpu();
            t->begin_ns = nb_now();
        } else if (next == COUNTING && purpose == WINDOW) {
            t->end_ns = nb_now();
            t->cpu_end = sched_getcpu();
            t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
        }
        purpose = next;
        if (turn == STOP) {
            nb_store_release(&own->ready, STOP);
            return;
        }
        if ((turn & 3) == READY) {
            if (c->parameter[BYSTANDER] == READING)
                t->value[READ] += old_pages(r, r->at, (turn >> 2) - 1, &zero);
            t->executed++;
            t->check++;
            switches = (uint64_t)nb_usage().ru_nivcsw;
            lost = 0, open = 1;
            last = nb_now();
            nb_store_release(&own->ready, turn);
        }
    }
}

/* One that does not. Its window is that of the calls, which it only hears of. */
static void sleep_through(struct nb_thread *t, struct words *w)
{
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    while (!nb_load32_acquire(&w->stop))
        nb_sleep_for(&w->stop, 0, SLEEP_NS);
    t->cpu_end = sched_getcpu();
    t->begin_ns = w->begin_ns;
    t->end_ns = w->end_ns;
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->operations = 1;
    t->executed++;
}

/* No call comes any more. One that reads may be late and reading still: the pages stay as they are until it has gone. */
static void send_home(const struct nb_case *c, const struct range *r)
{
    struct words *w = words_of(c);
    nb_store_release(&w->turn, STOP);
    nb_store32_release(&w->stop, 1);
    nb_wake(&w->stop, INT_MAX);
    for (uint32_t i = 1; i < c->threads && c->parameter[BYSTANDER] == READING; i++)
        while (nb_load_acquire(&seat_of(r, i)->ready) != STOP)
            if (c->crowded)
                sched_yield();
}

static void be_there(struct nb_thread *t, struct words *w, const struct range *r)
{
    const long slept = nb_usage().ru_nvcsw;
    if (t->shared->parameter[BYSTANDER] == SLEEPING)
        sleep_through(t, w);
    else
        stay_awake(t, w, r);
    t->value[SLEPT] = (uint64_t)(nb_usage().ru_nvcsw - slept);
}

/* A process of its own, which calls the kernel and nothing else. Not by fork(), whose handlers are others': that of a library of this process, which ends its threads there, waits for ever where two
 * threads fork at once (OpenBLAS). */
static pid_t split_off(void)
{
#ifdef NB_SANITIZED
    return fork(); /* which a sanitizer has to know of */
#else
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
#endif
}

/* The bystander as another process, on the CPU of this thread, which waits for its end: it has no address of what is measured. It ends with this thread,
 * whatever happens. */
static int stand_by_elsewhere(struct nb_thread *t, struct words *w, const struct range *r)
{
    struct nb_thread *found = &seat_of(r, t->index)->found;
    found->shared = NULL;
    const pid_t own = getpid(), child = split_off();
    if (!child) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != own)
            _exit(1);
        t->schedstat = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
        be_there(t, w, r);
        memcpy(found, t, sizeof *t);
        _exit(0);
    }
    if (child < 0)
        return NB_UNSUPPORTED;
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (found->shared != t->shared) /* it has not come to its end */
        return NB_UNSUPPORTED;
    const int32_t schedstat = t->schedstat;
    memcpy(t, found, sizeof *t);
    t->schedstat = schedstat;
    return NB_OK;
}

static int stand_by(struct nb_thread *t, const struct range *r)
{
    struct words *w = words_of(t->shared);
    nb_empty_histogram(t);
    memset(t->value, 0, sizeof t->value);
    t->value[NB_BATCH] = 1;
    t->value[NB_USUAL] = LOSS_SCALE_NS;
    t->gaps = 0, t->gap_ns = 0, t->operations = 0, t->executed = 0, t->check = 0;
    seat_of(r, t->index)->ready = 0;
    seat_of(r, t->index)->cpu = sched_getcpu(); /* read by the one that calls behind the gate */
    nb_gate(t);
    if (t->shared->parameter[BYSTANDER] == PROCESS) /* made while the other one waits for it */
        return stand_by_elsewhere(t, w, r);
    be_there(t, w, r);
    return NB_OK;
}
#endif
