/* What it costs a thread to be moved to another CPU: the call or the wait, and the lines that it had written and must fetch from where it was.
 *
 * The first thread writes a set of lines, has itself moved to the second one's CPU and updates the set there, one line after the other, each named by the one
 * before it. Then it moves back, which does not count: what places threads knows nothing of this. As the control it makes the same call with the CPU that it is on,
 * which moves nothing. Lines that are to be clean are written back to memory and read again before the call. No line
 * brings another one along: beside each other, they came in pairs by a prefetcher, in some processes and not in others. The second thread only says where it is, and sleeps.
 *
 * Or nobody asks for the move: a third thread, a rival, begins to run on the first one's CPU, and takes its time slices. If the first one is pinned, it waits for its turn. If it may
 * run on both CPUs, the scheduler pulls it to the free one, sooner or later. The wait goes from its last look at the clock before to its first one after. */
#include "nb.h"
#include "nb_chase.h"
#include "nb_pin.h"
#include "nb_series.h"
#include "nb_wait.h"
#include <limits.h>

enum { ACTION, LINES, DIRTY };
enum { STAY, MOVE, PINNED, PULLED };
/* Of value[]: ps of the median call or wait; since NB_PREPARE, events in which the update ran on the CPU that it was to run on; lines that were written as often as they were to be; of the
 * window, events beside a rival in which it came to what was waited for: the thread's turn, or its being pulled; of the entry, events in
 * which the thread was at home when the rival was told to run, of how many. */
enum { CALL_PS = 6, ARRIVED, RIGHT, CAME, AT_HOME, TRIED };

#define LIMIT_NS 50000000u /* for which an event waits for that: some ticks of a slow timer, and slices of several rivals */
#define GIVE_UP 4          /* events without, after which none waits any more: a kernel that balances no load between these CPUs (isolcpus) never will */
#define RIVAL_LOOK_NS 20000000 /* after which a rival that sleeps looks whether it is woken, should it have missed that */

static const struct nb_parameter parameters[] = {
    [ACTION] = {"action", "stay|move|pinned|pulled",
                "what happens between writing and updating: a call that moves nothing, one that moves the thread; a rival on its CPU, beside which it is pinned, or not", MOVE, 0, PULLED},
    [LINES] = {"lines", NULL, "of the set", 64, 2, 1 << 20},
    [DIRTY] = {"dirty", NULL, "lines of a hundred that are written before the call; the others are read", 100, 0, 100},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "to update one line after the call", NB_LOWER_IS_BETTER},
    {"call", "ns", "of the call, or of the wait beside a rival, until the thread runs where it is to", NB_LOWER_IS_BETTER},
    {"pulled", "1", "share of events in which the scheduler moved a thread that was free to go to the free CPU", NB_NEITHER_IS_BETTER},
};
NB_DESCRIBE("migration", 2, "the price of a move to another CPU", parameters, metrics);

struct line {
    struct line *next;
    uint64_t updates;
    uint8_t pad[NB_APART_ODD - sizeof(struct line *) - sizeof(uint64_t)];
};

struct state { /* at the begin of the scratch memory */
    uint32_t rival; /* what it is to do: a futex */
    uint32_t sleeps;
    uint64_t turns; /* of the rival */
    uint8_t pad[NB_APART - 16];
    int32_t cpu[3], failed; /* of the threads */
    uint64_t arrived, came, missed, at_home;
    struct nb_series call;
};
enum { SLEEP, RUN, LEAVE };

static struct state *state_of(const struct nb_case *c) { return (struct state *)c->scratch; }

static uint64_t lines_of(const struct nb_case *c) { return (uint64_t)c->parameter[LINES]; }

static int is_dirty(uint64_t number, uint64_t share) { return number * share % 100 < share; }

static void write_set(const struct nb_case *c)
{
    struct line *set = (struct line *)c->buffer;
    const uint64_t n = lines_of(c), share = (uint64_t)c->parameter[DIRTY];
    for (uint64_t i = 0; i < n; i++)
        if (is_dirty(i, share))
            set[i].updates++;
    if (share == 100)
        return;
    for (uint64_t i = 0; i < n; i++)
        if (!is_dirty(i, share))
            nb_flush(&set[i]);
    nb_flushed();
    for (uint64_t i = 0; i < n; i++)
        if (!is_dirty(i, share))
            (void)*(volatile uint64_t *)&set[i].updates;
}

static void tell_rival(struct state *s, uint32_t what)
{
    nb_store32_release(&s->rival, what);
    if (what != SLEEP)
        nb_wake(&s->rival, INT_MAX);
}

static void be_rival(struct state *s)
{
    for (uint32_t what; (what = nb_load32_acquire(&s->rival)) != LEAVE;) {
        if (what == RUN) {
            nb_store_relaxed(&s->turns, s->turns + 1);
            continue;
        }
        nb_store32_release(&s->sleeps, 1);
        nb_sleep_for(&s->rival, SLEEP, RIVAL_LOOK_NS);
        nb_store32_release(&s->sleeps, 0);
    }
}

/* Until it is this thread's turn again, or it is on the CPU `away`; the ns of the wait, 0 where it did not come to that. */
static uint64_t wait_beside_rival(struct state *s, int32_t home, int32_t away)
{
    for (const uint64_t until = nb_now() + LIMIT_NS; !nb_load32_acquire(&s->sleeps) && nb_now() < until;)
        sched_yield();
    if (!s->came && s->missed >= GIVE_UP)
        return 0;
    s->failed |= nb_allow(home, away);
    s->at_home += sched_getcpu() == home;
    const uint64_t turns = nb_load_relaxed(&s->turns), begin = nb_now(), until = begin + LIMIT_NS;
    uint64_t took = 0, step = 0;
    tell_rival(s, RUN); /* who may run at once */
    for (uint64_t last = begin, now; !took && last < until; step = now - last, last = now) { /* it may have waited on either side of the clock's reading */
        now = nb_now();
        if (away != home ? sched_getcpu() == away : nb_load_relaxed(&s->turns) != turns)
            took = now - last > step ? now - last : step;
    }
    tell_rival(s, SLEEP);
    *(took ? &s->came : &s->missed) += 1;
    return took;
}

static uint64_t migrate(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct state *s = state_of(c);
    const int64_t action = c->parameter[ACTION];
    const int32_t home = s->cpu[0], away = action == MOVE || action == PULLED ? s->cpu[1] : home;
    struct line *at = (struct line *)c->buffer;
    write_set(c);
    const uint64_t waited = action >= PINNED ? wait_beside_rival(s, home, away) : 0, before = nb_now();
    s->failed |= nb_pin(away); /* and of who was pulled, that it stays there */
    const uint64_t begin = nb_now();
    for (uint64_t n = lines_of(c); n; n--) {
        struct line *next = at->next;
        at->updates++;
        at = next;
        NB_OPAQUE(at);
    }
    const uint64_t end = nb_now();
    s->arrived += sched_getcpu() == away;
    if (away != home)
        s->failed |= nb_pin(home);
    if (action < PINNED || waited) {
        nb_series_add(&s->call, action < PINNED ? begin - before : waited, t->begin_ns > 0);
        t->value[CAME] += t->begin_ns > 0;
    }
    return end - begin;
}

static void prepare(const struct nb_case *c)
{
    struct line *set = (struct line *)c->buffer;
    uint32_t *order = (uint32_t *)(c->scratch + sizeof(struct state));
    const uint64_t n = lines_of(c);
    uint64_t seed = 1;
    memset(c->buffer, 0, c->buffer_bytes);
    for (uint64_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    nb_shuffle(order + 1, n - 1, 1, &seed); /* the first one stays where it begins */
    for (uint64_t i = 0; i < n; i++)
        set[order[i]].next = &set[order[(i + 1) % n]];
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct state *s = state_of(c);
    const uint64_t n = lines_of(c);
    const int rival = c->parameter[ACTION] >= PINNED;
    if (c->threads != (rival ? 3 : 2) || c->buffer_bytes < n * sizeof(struct line) || c->scratch_bytes < sizeof *s + n * sizeof(uint32_t))
        return NB_UNSUPPORTED;
    if (c->parameter[DIRTY] < 100 && !NB_CAN_FLUSH)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        if (t->index == 0)
            prepare(c);
        t->check = t->value[ARRIVED] = 0;
        return NB_OK;
    }
    s->cpu[t->index] = sched_getcpu();
    t->cpu_begin = t->cpu_end = s->cpu[t->index];
    if (t->index) {
        t->begin_ns = nb_gate(t); /* behind it the first thread reads where this one is */
        t->run_delay_ns = nb_run_delay(t);
        if (t->index == 2)
            be_rival(s);
        t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
        t->end_ns = nb_now();
        t->gap_ns = 0;
        t->operations = t->executed = 0;
        t->gaps = 0;
        return NB_OK;
    }
    nb_series_begin(&s->call);
    s->failed = 0;
    s->rival = SLEEP;
    s->sleeps = 0;
    s->arrived = s->came = s->missed = s->at_home = 0;
    t->begin_ns = t->value[CAME] = 0;
    nb_each(t, migrate);
    tell_rival(s, LEAVE);
    t->check = t->value[RIGHT] = 0;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t updates = ((const struct line *)c->buffer)[i].updates;
        t->check += updates;
        t->value[RIGHT] += updates == t->executed * (1u + (unsigned)is_dirty(i, (uint64_t)c->parameter[DIRTY]));
    }
    t->value[ARRIVED] += s->arrived;
    t->value[AT_HOME] = s->at_home;
    t->value[TRIED] = s->came + s->missed;
    t->value[CALL_PS] = nb_series_median_ps(&s->call);
    return s->failed ? NB_UNSUPPORTED : NB_OK;
}
