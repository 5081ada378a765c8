/* What it costs a thread to be moved to another CPU: the call, and the lines that it had written and must fetch from where it was.
 *
 * The first thread writes a set of lines, has itself moved to the second one's CPU and updates the set there, one line after the other, each named by the one
 * before it. Then it moves back, which does not count: what places threads knows nothing of this. As the control it makes the same call with the CPU that it is on,
 * which moves nothing. Lines that are to be clean are written back to memory and read again before the call. No line
 * brings another one along: beside each other, they came in pairs by a prefetcher, in some processes and not in others. The second thread only says where it is, and sleeps. */
#include "nb.h"
#include "nb_chase.h"
#include "nb_cpu.h"
#include "nb_each.h"
#include "nb_pin.h"

enum { ACTION, LINES, DIRTY };
enum { STAY, MOVE };
/* Of value[]: ps of the median call, events in which the update ran on the CPU that it was to run on, and lines that were written as often as they were to be. */
enum { CALL_PS = 6, ARRIVED, RIGHT };

static const struct nb_parameter parameters[] = {
    [ACTION] = {"action", "stay|move", "what the call does between writing and updating: nothing, or move the thread", MOVE, 0, MOVE},
    [LINES] = {"lines", NULL, "of the set", 64, 2, 1 << 20},
    [DIRTY] = {"dirty", NULL, "lines of a hundred that are written before the call; the others are read", 100, 0, 100},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "to update one line after the call", NB_LOWER_IS_BETTER},
    {"call", "ns", "of the call, until the thread runs where it is to", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("migration", 1, "the price of a move to another CPU", parameters, metrics);

struct line {
    struct line *next;
    uint64_t updates;
    uint8_t pad[NB_APART_ODD - sizeof(struct line *) - sizeof(uint64_t)];
};

struct state { /* at the begin of the scratch memory */
    int32_t cpu[2], failed; /* of the first thread and of the second one */
    uint32_t pad;
    uint64_t usual, calls, arrived; /* ns of the shortest call of the warm-up; calls after it */
    uint32_t bins[NB_BINS];
};

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

static void keep_call(struct nb_thread *t, struct state *s, uint64_t took)
{
    if (t->binned) {
        s->bins[nb_batch_bin(took, s->usual)]++;
        s->calls++;
    } else if (took < s->usual)
        s->usual = took ? took : 1;
}

static uint64_t migrate(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct state *s = state_of(c);
    const int32_t home = s->cpu[0], away = c->parameter[ACTION] == MOVE ? s->cpu[1] : home;
    struct line *at = (struct line *)c->buffer;
    write_set(c);
    const uint64_t before = nb_now();
    s->failed |= nb_pin(away);
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
    keep_call(t, s, begin - before);
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
    if (c->threads != 2 || c->buffer_bytes < n * sizeof(struct line) || c->scratch_bytes < sizeof *s + n * sizeof(uint32_t))
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
    t->binned = 0;
    if (t->index == 1) {
        t->begin_ns = nb_gate(t); /* behind it the first thread reads where this one is */
        t->end_ns = nb_now();
        t->gap_ns = t->run_delay_ns = 0;
        t->operations = t->executed = 0;
        t->gaps = 0;
        return NB_OK;
    }
    memset(s->bins, 0, sizeof s->bins);
    s->failed = 0;
    s->usual = UINT64_MAX;
    s->calls = s->arrived = 0;
    nb_each(t, migrate);
    if (c->parameter[ACTION] == MOVE)
        t->run_delay_ns = 0; /* until the CPU that it goes to is awake: part of the call */
    t->check = t->value[RIGHT] = 0;
    for (uint64_t i = 0; i < n; i++) {
        const uint64_t updates = ((const struct line *)c->buffer)[i].updates;
        t->check += updates;
        t->value[RIGHT] += updates == t->executed * (1u + (unsigned)is_dirty(i, (uint64_t)c->parameter[DIRTY]));
    }
    t->value[ARRIVED] += s->arrived;
    t->value[CALL_PS] = (uint64_t)(nb_median_batch(s->bins, s->calls) * (double)s->usual * 1000 / NB_FINE);
    return s->failed ? NB_UNSUPPORTED : NB_OK;
}
