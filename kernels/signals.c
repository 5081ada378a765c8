/* Signals as a runtime uses them to interrupt a thread: what one costs who sends it, until the handler runs, and the thread that is interrupted.
 *
 * The first thread sends (tgkill), to itself or to the second one, which spins, sleeps on a futex or blocks in a read. One signal at a time: the next is sent when the handler of the one before has
 * returned. Each has a number, which the handler must find, so that runs and signals are the same, one by one; a handler that is to run on the alternate stack says whether its frame is there. That the
 * second thread really slept shows in its voluntary switches, asked for before it sleeps and in the handler: an event in which it did not is repeated. Where both are on one CPU, each gives way while it waits:
 * who is to be running is then ready to. */
#include "nb.h"
#include "nb_series.h"
#include "nb_signal.h"
#include "nb_usage.h"
#include "nb_wait.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/syscall.h>

enum { TARGET };
enum { SELF, SELF_GO, OTHER_RUNNING, OTHER_SLEEPING, OTHER_BLOCKED };
/* Of value[], since NB_PREPARE but for times: signals that were sent, ps of the median call, runs of the handler, those that found the number of their signal, those on the alternate stack, those that found the thread
 * asleep; reads that brought their word, reads that a signal ended; ps of the median loss; voluntary switches. */
enum { SENT = 6, CALL_PS, HANDLED, IN_ORDER, ON_STACK, SLEPT, READS, INTERRUPTED, LOSS_PS, SWITCHES };

#define SETTLE_NS 20000         /* from saying that it will sleep to the signal: falling asleep takes 1 to 5 us, a CPU's way to idle as much */
#define LOST_NS 1000000000u     /* after which a signal counts as lost: scheduling delays are ten times shorter */
#define TRIES 64                /* for one event: the thread has not slept only where it was preempted on the way */
#define LOOK_MS 20             /* for which it sleeps before it looks whether there is more to come */
#define NO_MORE UINT64_MAX      /* the word after which nobody reads */

static const struct nb_parameter parameters[] = {
    [TARGET] = {"target", "self|self_go|other_running|other_sleeping|other_blocked", "who is interrupted, in which state", SELF, 0, OTHER_BLOCKED},
};
static const struct nb_metric metrics[] = {
    {"to_handler", "ns", "from the call to the handler's first instruction", NB_LOWER_IS_BETTER},
    {"call", "ns", "of the sender in the call; to itself with the handler and the return from it", NB_LOWER_IS_BETTER},
    {"loss", "ns", "of its own work that a running thread loses to one signal", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("signals", 3, "signals that interrupt a thread", parameters, metrics);

struct place {
    uint64_t sent; /* the sender's: the number of the last signal, */
    uint32_t measures, stops; /* whether the window has begun, whether it is over: a futex */
    uint8_t pad0[NB_APART - 16];
    uint64_t handled, in_order, on_stack, slept, switches; /* of who receives: by the handler and in its thread alone; voluntary switches before it slept */
    uint8_t pad1[NB_APART - 40];
    uint64_t told, at, asleep; /* by the handler to the sender: number, the time of its first instruction, whether the thread was asleep */
    uint64_t ready, done;      /* the number that it is ready for, and the one that it has done with */
    int64_t task;
    uint8_t pad2[NB_APART - 48];
    struct nb_series call, loss;
    uint8_t stack[NB_SIGNAL_STACK] __attribute__((aligned(64)));
};

static struct place *place;    /* what a handler can find */
static uint64_t clock_ns;      /* the sender's: what a reading takes */
static int failed;             /* the sender's: a signal was lost or refused: nothing more is sent */

/* -- who receives ------------------------------------------------------------------------------------------------------------- */

static void receive(uint64_t at, uintptr_t frame, uint64_t asleep)
{
    struct place *p = place;
    const uint64_t number = ++p->handled;
    p->in_order += nb_load_acquire(&p->sent) == number; /* and what follows is behind what the sender did before */
    p->on_stack += frame - (uintptr_t)p->stack < NB_SIGNAL_STACK;
    p->slept += p->asleep = asleep;
    p->at = at;
    nb_store_release(&p->told, number);
}

static void plain_handler(int signal)
{
    const uint64_t at = nb_now();
    (void)signal;
    receive(at, (uintptr_t)__builtin_frame_address(0), 0);
}

static void go_handler(int signal, siginfo_t *info, void *context)
{
    const uint64_t at = nb_now();
    (void)signal, (void)info, (void)context;
    receive(at, (uintptr_t)__builtin_frame_address(0), 0);
}

/* Of a thread that is to be asleep: it has been if it switched since it said that it would sleep. */
static void sleeper_handler(int signal, siginfo_t *info, void *context)
{
    const uint64_t at = nb_now();
    const int before = errno;
    (void)signal, (void)info, (void)context;
    receive(at, (uintptr_t)__builtin_frame_address(0), (uint64_t)nb_usage().ru_nvcsw > place->switches);
    errno = before;
}

static int go_on(struct nb_thread *t, struct place *p)
{
    if (!t->begin_ns && nb_load32_acquire(&p->measures)) {
        t->cpu_begin = sched_getcpu();
        t->run_delay_ns = nb_run_delay(t);
        t->operations = p->handled;
        t->begin_ns = nb_now();
    }
    return !nb_load32_acquire(&p->stops);
}

/* Its own work is to read the clock. A signal may come between a reading and the time that it returns, so that the loss lies before the reading or behind it: from the last reading before to the second one after. */
static void spin(struct nb_thread *t, struct place *p)
{
    const uint64_t turn = nb_clock_cost();
    uint64_t seen = p->handled, last = nb_now();
    nb_store_release(&p->ready, seen + 1);
    while (!nb_load32_acquire(&p->stops)) {
        const uint64_t now = nb_now(), handled = nb_load_relaxed(&p->handled);
        if (handled == seen) {
            last = now;
            if (t->shared->crowded)
                sched_yield();
            continue;
        }
        const uint64_t took = nb_now() - last;
        nb_series_add(&p->loss, took > 2 * turn ? took - 2 * turn : 0, t->begin_ns > 0);
        seen = handled;
        go_on(t, p);
        nb_store_release(&p->done, seen);
        nb_store_release(&p->ready, seen + 1);
        last = nb_now();
    }
}

static void sleep_on(struct nb_thread *t, struct place *p)
{
    while (go_on(t, p)) {
        p->switches = (uint64_t)nb_usage().ru_nvcsw;
        nb_store_release(&p->done, p->handled);
        nb_store_release(&p->ready, p->handled + 1);
        nb_sleep_for(&p->stops, 0, LOOK_MS * 1000000);
    }
}

/* Each signal is followed by a word with its number: the read that it interrupted must go on by itself and bring that. */
static void read_on(struct nb_thread *t, struct place *p)
{
    for (uint64_t word = 0;;) {
        go_on(t, p);
        p->switches = (uint64_t)nb_usage().ru_nvcsw;
        nb_store_release(&p->ready, p->handled + 1);
        const ssize_t got = read(t->shared->descriptor[1], &word, sizeof word);
        if (got < 0 && errno == EINTR) {
            t->value[INTERRUPTED]++;
            continue;
        }
        if (got != sizeof word || word == NO_MORE)
            return;
        t->value[READS] += word == p->handled;
        nb_store_release(&p->done, word);
    }
}

static int be_interrupted(struct nb_thread *t, struct place *p)
{
    struct nb_receiver kept;
    const int64_t target = t->shared->parameter[TARGET];
    const int wrong = nb_receive(p->stack, &kept);
    p->task = kept.task;
    p->ready = 0; /* what the last entry left is the next number */
    const uint64_t switches = (uint64_t)nb_usage().ru_nvcsw;
    nb_series_begin(&p->loss);
    t->begin_ns = 0;
    nb_gate(t);
    if (target == OTHER_RUNNING)
        spin(t, p);
    else if (target == OTHER_SLEEPING)
        sleep_on(t, p);
    else
        read_on(t, p);
    t->end_ns = nb_now();
    t->value[SWITCHES] += (uint64_t)nb_usage().ru_nvcsw - switches;
    nb_receive_no_more(&kept);
    t->cpu_end = sched_getcpu();
    t->gaps = 0;
    t->gap_ns = 0;
    if (t->begin_ns) {
        t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
        t->operations = p->handled - t->operations;
    } else { /* it never saw the window: everything was lost */
        t->cpu_begin = t->cpu_end;
        t->begin_ns = t->end_ns;
        t->run_delay_ns = t->operations = 0;
    }
    t->executed = p->handled;
    t->value[LOSS_PS] = nb_series_median_ps(&p->loss);
    return wrong;
}

/* -- who sends ---------------------------------------------------------------------------------------------------------------- */

static int wait_until(const struct nb_case *c, const uint64_t *word, uint64_t number)
{
    for (uint64_t last = nb_now() + LOST_NS; nb_load_acquire(word) != number;) {
        if (nb_now() > last)
            return 0;
        nb_give_way(c->crowded);
    }
    return 1;
}

static int begin_window(const struct nb_thread *t, struct place *p)
{
    if (t->begin_ns && !p->measures)
        nb_store32_release(&p->measures, 1);
    return t->begin_ns > 0;
}

/* One signal: ns to the handler. */
static uint64_t send(struct nb_thread *t, struct place *p, uint64_t number, int64_t task, int measures)
{
    const pid_t process = getpid();
    nb_store_release(&p->sent, number);
    const uint64_t before = nb_now();
    const long refused = syscall(SYS_tgkill, process, (pid_t)task, NB_SIGNAL);
    const uint64_t after = nb_now();
    t->value[SENT] = number;
    if (refused || !wait_until(t->shared, &p->told, number)) {
        failed = 1;
        return 0;
    }
    nb_series_add(&p->call, after - before > clock_ns ? after - before - clock_ns : 0, measures);
    return p->at > before ? p->at - before : 0;
}

static uint64_t to_itself(struct nb_thread *t)
{
    struct place *p = place;
    const uint64_t number = t->value[SENT] + 1;
    return failed ? 1 : send(t, p, number, p->task, begin_window(t, p));
}

static uint64_t to_other(struct nb_thread *t)
{
    struct place *p = place;
    const int64_t target = t->shared->parameter[TARGET];
    const int measures = begin_window(t, p);
    uint64_t took = 1;
    for (int tries = 0; tries < TRIES && !failed; tries++) {
        const uint64_t number = t->value[SENT] + 1;
        if (!wait_until(t->shared, &p->ready, number)) {
            failed = 1;
            break;
        }
        if (target >= OTHER_SLEEPING)
            for (const uint64_t then = nb_now() + SETTLE_NS; nb_now() < then;)
                nb_give_way(t->shared->crowded);
        took = send(t, p, number, p->task, measures);
        if (failed)
            break;
        const int was_asleep = p->asleep || target == OTHER_RUNNING;
        if (target == OTHER_BLOCKED && write(t->shared->descriptor[0], &number, sizeof number) != sizeof number)
            failed = 1;
        failed |= !wait_until(t->shared, &p->done, number);
        if (was_asleep)
            break;
    }
    return took;
}

/* Lets the other thread go, whatever happened: a read that no word reaches is no longer to block, and is interrupted. */
static void let_go(const struct nb_case *c, struct place *p)
{
    const uint64_t word = NO_MORE;
    nb_store32_release(&p->stops, 1);
    if (c->parameter[TARGET] == OTHER_SLEEPING)
        nb_wake(&p->stops, INT_MAX);
    if (c->parameter[TARGET] == OTHER_BLOCKED && write(c->descriptor[0], &word, sizeof word) != sizeof word) {
        fcntl(c->descriptor[1], F_SETFL, O_NONBLOCK);
        syscall(SYS_tgkill, getpid(), (pid_t)p->task, NB_SIGNAL);
    }
}

static int interrupt(struct nb_thread *t, struct place *p)
{
    const struct nb_case *c = t->shared;
    const int64_t target = c->parameter[TARGET];
    struct sigaction before;
    struct nb_receiver kept;
    place = p;
    clock_ns = nb_clock_cost();
    nb_series_begin(&p->call);
    p->measures = p->stops = 0;
    failed = target == SELF ? nb_handle(plain_handler, NULL, &before) : nb_handle(NULL, target >= OTHER_SLEEPING ? sleeper_handler : go_handler, &before);
    const int restores = !failed;
    if (c->threads == 1) {
        failed |= nb_receive(p->stack, &kept);
        p->task = kept.task;
    }
    t->begin_ns = 0;
    nb_each(t, c->threads == 1 ? to_itself : to_other);
    if (c->threads == 1)
        nb_receive_no_more(&kept);
    else
        let_go(c, p);
    t->value[CALL_PS] = nb_series_median_ps(&p->call);
    return restores ? sigaction(NB_SIGNAL, &before, NULL) : 1;
}

static void tell(struct nb_thread *t, const struct place *p)
{
    t->check = t->value[HANDLED] = p->handled;
    t->value[IN_ORDER] = p->in_order;
    t->value[ON_STACK] = p->on_stack;
    t->value[SLEPT] = p->slept;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t target = c->parameter[TARGET];
    struct place *p = (struct place *)c->buffer;
    int wrong = 0;
    if (c->threads != (target <= SELF_GO ? 1 : 2) || c->buffer_bytes < sizeof *p)
        return NB_UNSUPPORTED;
    if (target == OTHER_BLOCKED && (c->descriptor[0] < 0 || c->descriptor[1] < 0))
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        if (t->index == 0)
            memset(c->buffer, 0, c->buffer_bytes);
        memset(t->value, 0, sizeof t->value);
        t->check = t->executed = 0;
        return NB_OK;
    }
    if (t->index == 0)
        wrong = interrupt(t, p);
    else
        wrong = be_interrupted(t, p);
    if (t->index + 1 == c->threads)
        tell(t, p);
    return wrong ? NB_UNSUPPORTED : NB_OK;
}
