/* What a task costs whoever takes it: its owner, who pops it from its own deque, or a thief on another CPU, who steals it.
 *
 * The owner makes a task for each of sixteen deques: it writes the lines that the task carries, and pushes it beside one that was there before. Then one task
 * is taken from each deque, the newest by the owner itself or the oldest by the thief, and the lines that it carries are updated. Deques are visited in an
 * order by chance, and so are lines: nothing knows what comes next. As all tasks are in the owner's caches, a thief brings each line from there.
 *
 * A task is a number. Each is to be taken once and in its turn, by what the numbers add up to. The same is proven where it is hard: in the end of each sample
 * the owner and the thief race for the one task of a deque, or for two. */
#include "nb.h"
#include "nb_chase.h"
#include "nb_deque.h"
#include "nb_each.h"
#include "nb_series.h"
#include "nb_wait.h"

enum { ACTION, LINES };
enum { POP, STEAL };
enum { OWNER, THIEF }; /* by their index */

/* Of value[], behind those of nb_each. Of who takes: ps of the median update of a line, and what the lines count. Of the owner: ps of the median push, tasks
 * pushed since NB_PREPARE that found no room. Of both: tasks that they got in the race since NB_PREPARE, and what these add up to. Of the owner: tasks pushed
 * there. Of the thief: attempts in which the owner was faster. */
enum { LINE_PS = 6, UPDATES, PUSH_PS, REFUSED, WON, WON_SUM, RACED, LATE };

#define DEQUES 16u
#define SLOTS 4u      /* of a deque: lines of so many tasks, of which two are in use */
#define RACES 1000u   /* of the rounds in which both want the same */
#define START_NS 500u /* ns from naming the time to it: longer than a line takes to the thief */
#define DELAYS 256u   /* by up to so many turns of an empty loop one of them comes later */
#define MOST_LINES 64

static const struct nb_parameter parameters[] = {
    [ACTION] = {"action", "pop|steal", "who takes the task: its owner, or a thief", STEAL, 0, STEAL},
    [LINES] = {"lines", NULL, "that a task carries, written by its owner and updated by who takes it", 0, 0, MOST_LINES},
};
static const struct nb_metric metrics[] = {
    {"take", "ns", "to take one task from a deque", NB_LOWER_IS_BETTER},
    {"hops", "hops", "the same, in ways of a line between the two CPUs", NB_LOWER_IS_BETTER},
    {"line", "ns", "to update one line that the task carries", NB_LOWER_IS_BETTER},
    {"push", "ns", "of the owner, to push one task onto a deque from which one was taken", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("stealing", 1, "what a task costs who takes it", parameters, metrics);

struct line {
    struct line *next;
    uint64_t updates;
    uint8_t pad[NB_APART_ODD - sizeof(struct line *) - sizeof(uint64_t)];
};

struct place {
    uint64_t asked; /* by the thief: the round that is to be prepared; END for the last one */
    uint8_t pad0[NB_APART - 8];
    uint64_t ready; /* by the owner: the round that is prepared */
    uint8_t pad1[NB_APART - 8];
    uint64_t raced, starts; /* by the owner: the round of the race, and when it begins */
    uint32_t measures; /* whether the window has begun */
    uint8_t pad2[NB_APART - 20];
    uint64_t robbed; /* by the thief: those that it has ended */
    struct nb_series push, line; /* of the owner, of who takes */
    uint8_t pad3[NB_APART];
    uint32_t order[DEQUES]; /* in which deques are visited */
    uint8_t pad4[NB_APART];
    struct line *first[DEQUES * SLOTS]; /* line of each slot */
    uint8_t pad5[NB_APART];
    struct nb_deque race, deque[DEQUES];
};
#define END UINT64_MAX

static struct place *place_of(const struct nb_case *c) { return (struct place *)c->buffer; }
static struct line *lines_of(const struct nb_case *c) { return (struct line *)(c->buffer + sizeof(struct place)); }
static uint64_t all_lines(const struct nb_case *c) { return (uint64_t)c->parameter[LINES] * DEQUES * SLOTS; }

static uint64_t task_of(uint64_t number, uint32_t deque) { return number * DEQUES + deque; }
static uint32_t slot_of(uint64_t task) { return (uint32_t)(task % DEQUES * SLOTS + task / DEQUES % SLOTS); }

/* Updates the lines of a task, none of which is begun before the one before it is there, nor the first before `after`: what this returned for another task. */
static uint64_t update(const struct nb_case *c, const struct place *p, uint64_t task, uint64_t after)
{
    uint64_t nothing = 0;
    NB_OPAQUE(nothing);
    struct line *at = p->first[slot_of(task) + (after & nothing)];
    for (int64_t n = c->parameter[LINES]; n; n--) {
        struct line *next = at->next;
        nb_store_relaxed(&at->updates, nb_load_relaxed(&at->updates) + 1);
        at = next;
        NB_OPAQUE(at);
    }
    return (uint64_t)(uintptr_t)at;
}

static uint64_t clock_ns, walk_ns; /* as who takes tasks found them: what a reading takes, and what going through the deques does beyond one */

static uint64_t less(uint64_t ns, uint64_t by) { return ns > by ? ns - by : 0; }

/* -- a round -------------------------------------------------------------------------------------------------------------------------------- */

/* By the owner: a task more in each deque, whose lines are in its cache. Returns ns of all pushes. */
static uint64_t make_tasks(struct nb_thread *t, struct place *p, uint64_t number)
{
    for (uint32_t d = 0; d < DEQUES; d++)
        update(t->shared, p, task_of(number, d), 0);
    nb_drain();
    const uint64_t before = nb_now();
    for (uint32_t i = 0; i < DEQUES; i++) {
        const uint32_t d = p->order[i];
        t->value[REFUSED] += !nb_push(&p->deque[d], task_of(number, d));
    }
    return nb_now() - before;
}

/* ns of going through all deques without taking anything, the least of several. */
static uint64_t nothing_taken(const struct place *p)
{
    uint64_t least = UINT64_MAX;
    for (int try = 0; try < NB_CLOCK_TRIES_EACH; try++) {
        const uint64_t before = nb_now();
        for (uint32_t i = 0; i < DEQUES; i++) {
            const struct nb_deque *d = &p->deque[p->order[i]];
            NB_OPAQUE(d);
            nb_drain();
        }
        const uint64_t took = nb_now() - before;
        if (took < least)
            least = took;
    }
    return least;
}

/* One from each deque, each when the one before is done with, as a thief has it who runs what it takes; and then their lines. Returns the ns of the former. */
static uint64_t take_tasks(struct nb_thread *t, struct place *p, int steals)
{
    const struct nb_case *c = t->shared;
    uint64_t tasks[DEQUES], last = 0;
    const uint64_t before = nb_now();
    for (uint32_t i = 0; i < DEQUES; i++) {
        struct nb_deque *d = &p->deque[p->order[i]];
        tasks[i] = steals ? nb_steal(d) : nb_pop(d);
        nb_drain();
    }
    const uint64_t taken = nb_now();
    for (uint32_t i = 0; i < DEQUES; i++) {
        t->check += tasks[i];
        last = update(c, p, tasks[i], last);
    }
    NB_OPAQUE(last);
    nb_series_add(&p->line, less(nb_now() - taken, clock_ns), t->begin_ns > 0);
    return less(taken - before, walk_ns);
}

static uint64_t pop_round(struct nb_thread *t)
{
    struct place *p = place_of(t->shared);
    const uint64_t took = make_tasks(t, p, ++t->cursor + 1);
    nb_series_add(&p->push, less(took, clock_ns), t->begin_ns > 0);
    return take_tasks(t, p, 0);
}

static uint64_t steal_round(struct nb_thread *t)
{
    struct place *p = place_of(t->shared);
    const uint64_t round = ++t->cursor;
    if (t->begin_ns && !p->measures)
        nb_store32_relaxed(&p->measures, 1);
    nb_store_release(&p->asked, round);
    nb_await(&p->ready, round, t->shared->crowded);
    return take_tasks(t, p, 1);
}

/* The owner, until the thief has what it wants. */
static void serve(struct nb_thread *t, struct place *p)
{
    const uint64_t clock = nb_clock_cost();
    for (uint64_t asked;;) {
        while ((asked = nb_load_acquire(&p->asked)) == t->cursor)
            nb_give_way(t->shared->crowded);
        if (asked == END)
            return;
        const uint64_t took = make_tasks(t, p, asked + 1);
        nb_series_add(&p->push, less(took, clock), (int)nb_load32_relaxed(&p->measures));
        nb_drain(); /* all of it in this CPU's cache, and nothing on its way there */
        nb_store_release(&p->ready, t->cursor = asked);
    }
}

/* -- the race ------------------------------------------------------------------------------------------------------------------------------- */

/* A round: one task or two, of which the owner pops as many as there were and the thief steals as many, both a little later by chance. */
static void race(struct nb_thread *t, struct place *p)
{
    const struct nb_case *c = t->shared;
    const uint64_t first = p->raced;
    uint64_t seed = first + t->index;
    nb_gate(t); /* both have read it */
    for (uint64_t round = first + 1; round <= first + RACES; round++) {
        const int tasks = 1 + (int)(round % 2);
        for (int k = 0; k < tasks && t->index == OWNER; k++)
            t->value[REFUSED] += !nb_push(&p->race, ++t->value[RACED]);
        if (t->index == OWNER) {
            nb_store_relaxed(&p->starts, nb_now() + START_NS);
            nb_store_release(&p->raced, round);
        } else
            nb_await(&p->raced, round, c->crowded);
        for (const uint64_t at = nb_load_relaxed(&p->starts); nb_now() < at;)
            ;
        for (uint64_t wait = nb_draw(&seed, DELAYS); wait; wait--)
            __asm__ volatile("" : : : "memory");
        for (int k = 0; k < tasks; k++) {
            const uint64_t task = t->index == OWNER ? nb_pop(&p->race) : nb_steal(&p->race);
            if (task == NB_ABORTED)
                t->value[LATE]++;
            else if (task != NB_EMPTY) {
                t->value[WON]++;
                t->value[WON_SUM] += task;
            }
        }
        if (t->index == OWNER)
            nb_await(&p->robbed, round, c->crowded);
        else
            nb_store_release(&p->robbed, round);
    }
}

/* -- both ----------------------------------------------------------------------------------------------------------------------------------- */

static void prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = place_of(c);
    struct line *line = lines_of(c);
    uint32_t *order = (uint32_t *)c->scratch;
    const uint64_t n = all_lines(c), each = (uint64_t)c->parameter[LINES];
    uint64_t seed = 1;
    memset(c->buffer, 0, c->buffer_bytes);
    for (uint32_t d = 0; d < DEQUES; d++)
        p->order[d] = d;
    nb_shuffle(p->order, DEQUES, 1, &seed);
    for (uint64_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    nb_shuffle(order, n, 1, &seed);
    for (uint64_t i = 0; i < n; i++)
        line[order[i]].next = &line[order[(i + 1) % each ? i + 1 : i]];
    for (uint64_t slot = 0; slot < DEQUES * SLOTS && n; slot++)
        p->first[slot] = &line[order[slot * each]];
    make_tasks(t, p, 1); /* beside which all others come and go */
}

/* What the lines count, each so many times as its slot's number says. */
static uint64_t updates(const struct nb_case *c, const struct place *p)
{
    uint64_t sum = 0;
    for (uint64_t slot = 0; slot < DEQUES * SLOTS; slot++) {
        const struct line *at = p->first[slot];
        for (int64_t n = c->parameter[LINES]; n; n--, at = at->next)
            sum += nb_load_relaxed(&at->updates) * (slot + 1);
    }
    return sum;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = place_of(c);
    const int steals = c->parameter[ACTION] == STEAL;
    if (c->threads != 1u + (uint32_t)steals || c->buffer_bytes < sizeof *p + all_lines(c) * sizeof(struct line) ||
        c->scratch_bytes < all_lines(c) * sizeof(uint32_t))
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        t->check = t->cursor = 0;
        memset(t->value, 0, sizeof t->value);
        if (t->index == OWNER)
            prepare(t);
        return NB_OK;
    }
    t->begin_ns = 0;
    if (t->index == OWNER) {
        nb_series_begin(&p->push);
        nb_series_begin(&p->line);
        p->measures = 0;
        p->asked = t->cursor;
    }
    if (t->index == OWNER && steals) {
        nb_gate(t);
        t->begin_ns = nb_now();
        t->cpu_begin = sched_getcpu();
        t->run_delay_ns = nb_run_delay(t);
        serve(t, p);
        t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
        t->cpu_end = sched_getcpu();
        t->end_ns = nb_now();
        t->operations = t->executed = t->cursor;
        t->gaps = 0;
        t->gap_ns = 0;
        t->value[PUSH_PS] = nb_series_median_ps(&p->push) / DEQUES;
        race(t, p);
        return NB_OK;
    }
    clock_ns = nb_clock_cost();
    walk_ns = less(nothing_taken(p), clock_ns);
    nb_each(t, steals ? steal_round : pop_round);
    if (c->parameter[LINES])
        t->value[LINE_PS] = nb_series_median_ps(&p->line) / DEQUES / (uint64_t)c->parameter[LINES];
    t->value[UPDATES] = updates(c, p);
    if (!steals) {
        t->value[PUSH_PS] = nb_series_median_ps(&p->push) / DEQUES;
        return NB_OK;
    }
    nb_store_release(&p->asked, END);
    race(t, p);
    return NB_OK;
}
