/* Handing the processor over while a task blocks in a system call: what the next runnable task waits, and what it costs all threads.
 *
 * A processor is, as in Go's scheduler, the right to run tasks; threads carry it. The first thread, the carrier, makes a call that blocks, with one more task
 * runnable behind it. Three policies: the carrier keeps the processor, and runs the next task when its call is over (none); it hands the processor to a spare
 * thread before each call (eager); or a monitor looks at the processor again and again and takes it from a call that it sees twice, as Go's sysmon does
 * (monitored). Whoever has taken over runs the one task that there is and leaves the processor idle, which the carrier takes back after its call. While it is
 * idle the monitor sleeps until it is woken; where it finds nothing to do for long it looks less and less often.
 *
 * Who ran which task is counted, and what it was called is added up: each ran once, in its turn. */
#include "nb.h"
#include "nb_each.h"
#include "nb_series.h"
#include "nb_usage.h"
#include "nb_wait.h"
#include <errno.h>
#include <pthread.h>
#include <sys/prctl.h>

enum { POLICY, BLOCKING, PERIOD, SLACK };
enum { NONE, EAGER, MONITORED };
enum { CARRIER, SPARE, MONITOR, MOST_THREADS }; /* by their index; each policy has one thread more than the one before it */

/* Of value[], behind those of nb_each. Of the carrier: ps of the median call; in the window ps of CPU time of all threads for one call, and calls whose next
 * task the spare ran; since NB_PREPARE: calls, tasks that it ran itself, tasks out of turn, calls that were refused or ended early, tasks that ran before their
 * time, sleeps, and whether somebody did not come back. */
enum { BLOCKED_PS = 6, CPU_PS, HANDED, CALLS, OWN, OUT_OF_TURN, SHORT, TOO_SOON, SLEPT, LOST };
enum { RAN = 6, SPARE_OUT_OF_TURN }; /* of the spare, since NB_PREPARE */
enum { TAKEN = 6, LOOKS };           /* of the monitor, likewise */

#define LONGEST_NS 10000000u /* between two looks of the monitor, as in Go */
#define PATIENCE 50          /* looks in which it found nothing, after which it doubles the time between two, as in Go */
#define SETTLE_NS 60000000u  /* for which the monitor may look for its pace before anything counts: to LONGEST_NS it takes some 25 ms */
#define LIMIT_NS 3000000000u /* who waits for longer is not woken any more */
#define EARLY_NS 10          /* by which a sleep may seem short: what the kernel reads of the clock and what programs do are rounded apart */
#define SECOND 1000000000u

static const struct nb_parameter parameters[] = {
    [POLICY] = {"policy", "none|eager|monitored", "who runs the tasks behind one that blocks", EAGER, 0, MONITORED},
    [BLOCKING] = {"blocking", NULL, "ns for which the call is to block", 1000000, 1000, 1000000000},
    [PERIOD] = {"period", NULL, "ns between two looks of the monitor, at least", 20000, 1000, LONGEST_NS},
    [SLACK] = {"slack", NULL, "ns by which the kernel may delay the monitor's timers (PR_SET_TIMERSLACK)", 50000, 1, 1000000000},
};
static const struct nb_metric metrics[] = {
    {"delay", "ns", "from before the blocking call to the first instruction of the next task: median", NB_LOWER_IS_BETTER},
    {"delay_p99", "ns", "the same, 99th percentile", NB_LOWER_IS_BETTER},
    {"cpu_time", "ns", "of all threads for one blocking call", NB_LOWER_IS_BETTER},
    {"cost", "ns", "delay and CPU time together: a hand-off pays where it lowers this", NB_LOWER_IS_BETTER},
    {"blocked", "ns", "from begin to end of the call: median", NB_NEITHER_IS_BETTER},
    {"handoffs", "1", "of the processor for one blocking call", NB_NEITHER_IS_BETTER},
    {"handed", "1", "whether another thread runs the next task: |0 rarely|1 mostly|2 at times", NB_NEITHER_IS_BETTER},
};
NB_DESCRIBE("hand_off", 1, "the tasks behind one that blocks", parameters, metrics);

/* What the processor's word says: the number of the call, and whose it is. */
enum { IDLE, RUNS, IN_CALL, GIVEN, WANTED, STATE_BITS = 3 }; /* wanted: given, and the carrier waits for it */

struct place {
    uint32_t processor;
    uint8_t pad0[NB_APART - 4];
    uint32_t given; /* to the spare: the number of the last call; a futex */
    uint8_t pad1[NB_APART - 4];
    uint32_t asleep; /* whether the monitor waits for the processor to be in use; a futex */
    uint8_t pad2[NB_APART - 4];
    uint32_t leave; /* a futex */
    uint8_t pad3[NB_APART - 4];
    uint64_t queued, last; /* the task that is runnable, and the last one that ran */
    uint64_t ran;          /* when that was */
    uint32_t slow;         /* whether the monitor looks as rarely as it gets */
    uint32_t taken;        /* by the monitor, in this entry */
    uint8_t pad4[NB_APART - 32];
    pthread_t thread[MOST_THREADS];
    uint64_t cpu_ns, first; /* at the begin of the window: CPU time of all threads, calls */
    uint32_t start; /* the last call of the entry before */
    uint32_t measures, settled, lost;
    struct nb_series blocked;
};

static struct place *place_of(const struct nb_case *c) { return (struct place *)c->buffer; }

static uint32_t word(uint64_t number, uint32_t state) { return (uint32_t)number << STATE_BITS | state; }
static uint32_t state_of(uint32_t word) { return word & ((1u << STATE_BITS) - 1); }

static struct timespec of(uint64_t ns) { return (struct timespec){(time_t)(ns / SECOND), (long)(ns % SECOND)}; }

/* -- a task ---------------------------------------------------------------------------------------------------------------------------------- */

/* Runs the task that is runnable, which notes when. Returns whether it was its turn. */
static int run_next(struct nb_thread *t, struct place *p)
{
    p->ran = nb_now();
    const uint64_t number = p->queued;
    const int in_turn = number == p->last + 1;
    p->last = number;
    t->check += number;
    return in_turn;
}

static void give(struct place *p, uint64_t number)
{
    nb_store32_release(&p->given, (uint32_t)number);
    nb_wake(&p->given, 1);
}

/* -- the carrier ------------------------------------------------------------------------------------------------------------------------------ */

static uint64_t cpu_of_all(const struct nb_case *c)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < c->threads; i++) {
        struct timespec spent = {0, 0};
        clockid_t clock;
        if (!pthread_getcpuclockid(place_of(c)->thread[i], &clock))
            clock_gettime(clock, &spent);
        sum += (uint64_t)spent.tv_sec * SECOND + (uint64_t)spent.tv_nsec;
    }
    return sum;
}

/* Back to the carrier; whether the processor had been another's, who has then run the next task. */
static int take_back(struct place *p)
{
    for (const uint64_t last = nb_now() + LIMIT_NS;;) {
        uint32_t seen = nb_load32(&p->processor);
        const uint32_t state = state_of(seen), call = seen - state;
        if (state == IN_CALL || state == IDLE) {
            if (!nb_cas32(&p->processor, &seen, call | RUNS))
                continue;
            if (nb_load32(&p->asleep)) {
                nb_store32(&p->asleep, 0);
                nb_wake(&p->asleep, 1);
            }
            return state == IDLE;
        }
        if (nb_now() > last) {
            p->lost = 1;
            return 1;
        }
        if (state == WANTED || nb_cas32(&p->processor, &seen, call | WANTED))
            nb_sleep_for(&p->processor, call | WANTED, LIMIT_NS);
    }
}

static uint64_t call(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = place_of(c);
    const int64_t policy = c->parameter[POLICY];
    const uint64_t blocking = (uint64_t)c->parameter[BLOCKING], number = ++t->cursor;
    const struct timespec until = of(blocking);
    if (p->lost)
        return 1;
    p->queued = number;
    const uint64_t before = nb_now();
    if (policy == EAGER) {
        nb_store32(&p->processor, word(number, GIVEN));
        give(p, number);
    } else if (policy == MONITORED)
        nb_store32(&p->processor, word(number, IN_CALL));
    const uint64_t entered = nb_now();
    const int refused = clock_nanosleep(CLOCK_MONOTONIC, 0, &until, NULL);
    const uint64_t blocked = nb_now() - entered;
    t->value[SHORT] += refused || blocked + EARLY_NS < blocking;
    const int handed = policy != NONE && take_back(p);
    if (!handed) {
        t->value[OUT_OF_TURN] += !run_next(t, p);
        t->value[OWN]++;
    } else if (p->ran < before || (policy == MONITORED && p->ran - before + EARLY_NS < (uint64_t)c->parameter[PERIOD]))
        t->value[TOO_SOON]++;
    t->value[HANDED] += (uint64_t)handed;
    nb_series_add(&p->blocked, blocked, t->begin_ns > 0);
    return p->ran > before ? p->ran - before : 0;
}

/* Until the monitor has its pace: it takes calls away, or it has backed off. */
static void settle(struct nb_thread *t, struct place *p)
{
    const uint64_t last = nb_now() + SETTLE_NS;
    while (nb_now() < last && !p->lost && nb_load32_relaxed(&p->taken) < 2 && !nb_load32_relaxed(&p->slow))
        call(t);
}

static uint64_t call_once(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = place_of(c);
    if (!p->settled) {
        p->settled = 1;
        if (c->parameter[POLICY] == MONITORED)
            settle(t, p);
    }
    if (t->begin_ns && !p->measures) {
        p->measures = 1;
        p->cpu_ns = cpu_of_all(c);
        p->first = t->cursor;
        t->value[HANDED] = 0;
    }
    return call(t);
}

static void carry(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = place_of(c);
    const int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    const uint64_t sleeps = (uint64_t)nb_usage().ru_nvcsw;
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* the call is to block as long as asked for */
    nb_each(t, call_once);
    t->value[CPU_PS] = (cpu_of_all(c) - p->cpu_ns) * 1000 / (t->cursor - p->first);
    nb_store32(&p->leave, 1);
    nb_wake(&p->leave, 1);
    give(p, t->cursor + 1);
    nb_store32(&p->asleep, 0);
    nb_wake(&p->asleep, 1);
    if (slack > 0)
        prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
    t->value[SLEPT] += (uint64_t)nb_usage().ru_nvcsw - sleeps;
    t->value[CALLS] = t->cursor;
    t->value[LOST] |= p->lost;
    t->value[BLOCKED_PS] = nb_series_median_ps(&p->blocked);
}

/* -- the others ------------------------------------------------------------------------------------------------------------------------------- */

static void stand_by(struct nb_thread *t, struct place *p)
{
    for (uint32_t last = p->start, given;; last = given) {
        while ((given = nb_load32_acquire(&p->given)) == last)
            nb_sleep_for(&p->given, last, LIMIT_NS);
        if (nb_load32(&p->leave)) /* the number that says so is the next call's: it stands for nothing yet */
            return;
        t->value[SPARE_OUT_OF_TURN] += !run_next(t, p);
        t->value[RAN]++;
        if (state_of(nb_swap32(&p->processor, word(given, IDLE))) == WANTED)
            nb_wake(&p->processor, 1);
    }
}

/* Until the time is over, or the carrier leaves. */
static void sleep_for(struct place *p, uint64_t ns)
{
    for (uint64_t now = nb_now(), until = now + ns; now < until && !nb_load32(&p->leave); now = nb_now())
        nb_sleep_for(&p->leave, 0, until - now);
}

/* Either this sees that the processor is in use, or the carrier sees that it sleeps. */
static void sleep_while_idle(struct place *p)
{
    nb_store32(&p->asleep, 1);
    while (state_of(nb_load32(&p->processor)) == IDLE && nb_load32(&p->asleep) && !nb_load32(&p->leave))
        nb_sleep_for(&p->asleep, 1, LIMIT_NS);
    nb_store32(&p->asleep, 0);
}

static void watch(struct nb_thread *t, struct place *p)
{
    const struct nb_case *c = t->shared;
    const uint64_t least = (uint64_t)c->parameter[PERIOD];
    const int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
    uint64_t period = least;
    uint32_t seen = 0, idle = 0;
    prctl(PR_SET_TIMERSLACK, (unsigned long)c->parameter[SLACK], 0, 0, 0);
    while (!nb_load32(&p->leave)) {
        if (!idle)
            period = least;
        else if (idle > PATIENCE)
            period *= 2;
        if (period > LONGEST_NS)
            period = LONGEST_NS;
        nb_store32_relaxed(&p->slow, period == LONGEST_NS);
        sleep_for(p, period);
        if (state_of(nb_load32(&p->processor)) == IDLE) {
            sleep_while_idle(p);
            idle = 0;
            period = least;
        }
        uint32_t now = nb_load32(&p->processor);
        t->value[LOOKS]++;
        if (state_of(now) == IN_CALL && now == seen && nb_cas32(&p->processor, &now, now - IN_CALL + GIVEN)) {
            give(p, now >> STATE_BITS);
            nb_store32_relaxed(&p->taken, p->taken + 1);
            t->value[TAKEN]++;
            idle = 0;
        } else {
            seen = now;
            idle++;
        }
    }
    if (slack > 0)
        prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = place_of(c);
    if (c->threads != 1 + (uint32_t)c->parameter[POLICY] || c->buffer_bytes < sizeof *p)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        memset(t->value, 0, sizeof t->value);
        t->check = t->cursor = 0;
        if (t->index == CARRIER)
            memset(c->buffer, 0, c->buffer_bytes);
        return NB_OK;
    }
    p->thread[t->index] = pthread_self();
    t->begin_ns = 0;
    if (t->index == CARRIER) {
        p->processor = word(t->cursor, RUNS);
        p->given = p->start = (uint32_t)t->cursor;
        p->leave = p->asleep = p->taken = p->slow = p->measures = p->settled = 0;
        p->lost = (uint32_t)t->value[LOST];
        nb_series_begin(&p->blocked);
        carry(t);
        return NB_OK;
    }
    t->gaps = 0;
    t->gap_ns = 0;
    nb_gate(t);
    t->run_delay_ns = nb_run_delay(t);
    t->begin_ns = nb_now();
    t->cpu_begin = sched_getcpu();
    if (t->index == SPARE)
        stand_by(t, p);
    else
        watch(t, p);
    t->cpu_end = sched_getcpu();
    t->end_ns = nb_now();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->operations = t->executed = t->index == SPARE ? t->value[RAN] : t->value[LOOKS];
    return NB_OK;
}
