/* What a thread loses that is interrupted so many times a second, by its own throughput: signals.c sees the gap, this what follows it as well, as caches that the kernel's code has taken.
 *
 * The second thread works, the first one sends it signals at a steady rate in every other slice of time. Slices are compared with the quiet ones before them, so that a clock rate that drifts makes no
 * difference. The work ends in a number that Python knows, however often it was interrupted. */
#include "nb_signal.h"
#include "nb_window.h"

enum { RATE, FOOTPRINT };
/* Of value[], of the second thread: ps lost to a signal, and share lost in 10^9, both in the median pair; mHz achieved; pairs; then since NB_PREPARE: runs of the handler, those that found the number of their
 * signal, those on the alternate stack. Of the first thread: signals sent. */
enum { PRICE_PS = 6, LOST, ACHIEVED, PAIRS, HANDLED, IN_ORDER, ON_STACK, SENT };

#define SLICE_NS 1000000u   /* no longer than the time between two ticks of a timer, and one signal at the lowest rate */
#define MOST_PAIRS 1024u
#define LOST_NS 1000000000u /* after which a signal, or the other thread, counts as lost */
#define MULTIPLIES 64u      /* a turn: so many dependent multiplies, or reads of lines */

static const struct nb_parameter parameters[] = {
    [RATE] = {"rate", NULL, "signals a second", 10000, 1000, 100000},
    [FOOTPRINT] = {"footprint", NULL, "memory that the thread reads all the time; 0: registers alone", 0, 0, 1 << 26},
};
static const struct nb_metric metrics[] = {
    {"loss", "ns", "of its work that the thread loses to one signal, by its throughput", NB_LOWER_IS_BETTER},
    {"lost", "1", "share of its throughput that it loses at this rate", NB_LOWER_IS_BETTER},
    {"achieved", "Hz", "signals a second that it was sent", NB_NEITHER_IS_BETTER},
};
NB_DESCRIBE("preemption", 1, "throughput of a thread that is interrupted", parameters, metrics);

struct place {
    uint64_t slice; /* the number of the one that begins: of an odd one, signals are sent */
    uint32_t leaves;
    uint8_t pad0[NB_APART - 12];
    uint64_t seen, sent; /* by the first thread: the slice that it knows of, the last signal's number */
    uint32_t gave_up;
    uint8_t pad1[NB_APART - 20];
    uint64_t told; /* by the handler */
    int64_t task;
    uint8_t pad2[NB_APART - 16];
    uint64_t handled, in_order, on_stack; /* in the second thread alone */
    uint8_t pad3[NB_APART - 24];
    int64_t price[MOST_PAIRS], share[MOST_PAIRS]; /* ps, parts of 10^9 */
    uint8_t stack[NB_SIGNAL_STACK] __attribute__((aligned(64)));
};

static struct place *place; /* what a handler can find */

static void handler(int signal, siginfo_t *info, void *context)
{
    struct place *p = place;
    const uint64_t number = ++p->handled;
    (void)signal, (void)info, (void)context;
    p->in_order += nb_load_acquire(&p->sent) == number;
    p->on_stack += (uintptr_t)__builtin_frame_address(0) - (uintptr_t)p->stack < NB_SIGNAL_STACK;
    nb_store_release(&p->told, number);
}

static uint64_t lines(const struct nb_case *c) { return (uint64_t)c->parameter[FOOTPRINT] / NB_LINE / MULTIPLIES * MULTIPLIES; }
static uint8_t *memory(const struct nb_case *c) { return c->buffer + (sizeof(struct place) + NB_APART - 1) / NB_APART * NB_APART; }

static void work(struct nb_thread *t, uint64_t turns)
{
    const struct nb_case *c = t->shared;
    const uint64_t all = lines(c);
    t->executed += turns;
    if (!all) {
        t->check = nb_work(t->check, turns * MULTIPLIES);
        return;
    }
    uint64_t sum = 0, at = t->cursor;
    for (; turns; turns--) {
        const uint8_t *line = memory(c) + at * NB_LINE;
        for (uint32_t k = 0; k < MULTIPLIES; k++)
            sum += nb_load_relaxed((const uint64_t *)(line + k * NB_LINE));
        at = at + MULTIPLIES < all ? at + MULTIPLIES : 0;
    }
    t->cursor = at;
    t->check += sum;
}

static void sort(int64_t *each, uint64_t count)
{
    for (uint64_t i = 1; i < count; i++) {
        const int64_t x = each[i];
        uint64_t k = i;
        for (; k && each[k - 1] > x; k--)
            each[k] = each[k - 1];
        each[k] = x;
    }
}

struct slice {
    uint64_t took, turns, signals;
};

/* Until the first thread knows of the slice: no signal of the one before is under way then. 0: it does not. */
static int begin_slice(struct place *p, uint64_t number)
{
    nb_store_release(&p->slice, number);
    for (const uint64_t last = nb_now() + LOST_NS; nb_load_acquire(&p->seen) != number;)
        if (nb_load32_acquire(&p->gave_up) || nb_now() > last)
            return 0;
    return 1;
}

static struct slice work_slice(struct nb_thread *t, const struct place *p, uint64_t batch)
{
    struct slice found = {0, 0, 0};
    const uint64_t before = nb_now(), handled = p->handled;
    do {
        work(t, batch);
        found.turns += batch;
        found.took = nb_now() - before;
    } while (found.took < SLICE_NS);
    found.signals = nb_load_relaxed(&p->handled) - handled;
    return found;
}

static void be_interrupted(struct nb_thread *t, struct place *p)
{
    const struct nb_case *c = t->shared;
    uint64_t batch = 1, pairs = 0, signals = 0, spent = 0;
    for (uint64_t before = nb_gate(t), end = before + c->warmup_ns, now = before; now < end; before = now) {
        work(t, batch);
        now = nb_now();
        if (now - before < c->batch_ns / 2)
            batch *= 2;
        else if (now - before > NB_TOO_LONG * c->batch_ns && batch > 1)
            batch /= 2;
    }
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    t->operations = t->executed;
    t->begin_ns = nb_now();
    const uint64_t end = t->begin_ns + c->window_ns;
    uint64_t number = 0;
    while ((nb_now() < end || !pairs) && pairs < MOST_PAIRS && nb_now() < end + LOST_NS) {
        if (!begin_slice(p, number += 2))
            break;
        const struct slice quiet = work_slice(t, p, batch);
        if (!begin_slice(p, number + 1))
            break;
        const struct slice struck = work_slice(t, p, batch);
        const double lost = (double)struck.took - (double)struck.turns * (double)quiet.took / (double)quiet.turns;
        if (struck.signals) {
            p->price[pairs] = (int64_t)(lost * 1000 / (double)struck.signals);
            p->share[pairs++] = (int64_t)(lost * 1e9 / (double)struck.took);
        }
        signals += struck.signals;
        spent += struck.took;
    }
    t->end_ns = nb_now();
    begin_slice(p, number + 2);
    nb_store32_release(&p->leaves, 1);
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    t->operations = t->executed - t->operations;
    sort(p->price, pairs);
    sort(p->share, pairs);
    t->value[PRICE_PS] = pairs && p->price[pairs / 2] > 0 ? (uint64_t)p->price[pairs / 2] : 0;
    t->value[LOST] = pairs && p->share[pairs / 2] > 0 ? (uint64_t)p->share[pairs / 2] : 0;
    t->value[ACHIEVED] = spent ? signals * 1000000000u / (spent / 1000) : 0;
    t->value[PAIRS] = pairs;
}

/* One signal at a time, in odd slices; who is late leaves signals out, and sends no burst. */
static void interrupt(struct nb_thread *t, struct place *p)
{
    const uint64_t period = 1000000000u / (uint64_t)t->shared->parameter[RATE];
    const pid_t process = getpid();
    uint64_t slice = 0, due = 0;
    nb_gate(t);
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    t->begin_ns = nb_now();
    while (!nb_load32_acquire(&p->leaves)) {
        const uint64_t now = nb_now(), current = nb_load_acquire(&p->slice);
        if (current != slice) {
            slice = current;
            due = now + period / 2;
            nb_store_release(&p->seen, slice);
            continue;
        }
        if (!(slice & 1) || now < due || p->gave_up) {
            nb_relax();
            continue;
        }
        const uint64_t number = ++t->value[SENT], last = now + LOST_NS;
        nb_store_release(&p->sent, number);
        int lost = syscall(SYS_tgkill, process, (pid_t)p->task, NB_SIGNAL) != 0;
        while (!lost && nb_load_acquire(&p->told) != number)
            lost = nb_now() > last;
        if (lost)
            nb_store32_release(&p->gave_up, 1);
        due = due + period > now ? due + period : now + period;
    }
    t->end_ns = nb_now();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    t->operations = t->executed = t->check = t->value[SENT];
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct place *p = (struct place *)c->buffer;
    struct nb_receiver kept;
    struct sigaction before;
    int wrong;
    if (c->threads != 2 || c->crowded || c->buffer_bytes < sizeof *p + NB_APART + (uint64_t)c->parameter[FOOTPRINT])
        return NB_UNSUPPORTED;
    t->gaps = 0;
    t->gap_ns = 0;
    if (c->phase == NB_PREPARE) {
        memset(t->value, 0, sizeof t->value);
        t->executed = t->cursor = 0;
        t->check = t->index && !lines(c); /* what multiplies begin with */
        if (t->index)
            return NB_OK;
        memset(c->buffer, 0, c->buffer_bytes);
        for (uint64_t k = 0; k < lines(c); k++)
            *(uint64_t *)(memory(c) + k * NB_LINE) = 1;
        return NB_OK;
    }
    if (t->index) {
        wrong = nb_receive(p->stack, &kept);
        p->task = kept.task;
        be_interrupted(t, p);
        nb_receive_no_more(&kept);
        t->value[HANDLED] = p->handled;
        t->value[IN_ORDER] = p->in_order;
        t->value[ON_STACK] = p->on_stack;
        return wrong ? NB_UNSUPPORTED : NB_OK;
    }
    place = p;
    p->leaves = p->gave_up = 0;
    p->slice = p->seen = 0;
    wrong = nb_handle(NULL, handler, &before);
    interrupt(t, p);
    return wrong || sigaction(NB_SIGNAL, &before, NULL) ? NB_UNSUPPORTED : NB_OK;
}
