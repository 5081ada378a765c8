/* Waking a thread that waits: the first thread sends one wake-up after the other, the second one waits for each and says when it ran.
 *
 * Every wake-up has a number, which the receiver must find in the order of sending, each once. Whether it really slept, the kernel says: a voluntary context
 * switch of the receiver's own since the wake-up before. The time goes from just before the call that wakes to the first instruction of the receiver after the
 * call in which it waited; CLOCK_MONOTONIC is the same on all CPUs.
 *
 * Nothing here waits for ever, although a receiver that waits with a time limit would measure that limit's timer as well: a wake-up that does not arrive
 * within LIMIT_NS is lost, the receiver is then got out of its call by a signal, and neither of the two tries again. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_series.h"
#include "nb_uring.h"
#include "nb_usage.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { PRIMITIVE, TARGET, GAP };
enum { FUTEX, CONDITION, EVENTFD, PIPE, UNIX_SOCKET, TCP, SIGNAL, EPOLL_LEVEL, EPOLL_EDGE, IO_URING };
enum { SAME_CPU, OTHER_HALTED, OTHER_AWAKE, SPINNING };

static const struct nb_parameter parameters[] = {
    [PRIMITIVE] = {"primitive", "futex|condition|eventfd|pipe|unix_socket|tcp|signal|epoll_level|epoll_edge|io_uring", "what the receiver waits for", FUTEX, 0, IO_URING},
    [TARGET] = {"target", "same_cpu|other_halted|other_awake|spinning", "where the receiver waits, and whether it sleeps", OTHER_HALTED, 0, 3},
    [GAP] = {"idle_gap", NULL, "ns for which the waker leaves the receiver alone before each wake-up", 50000, 0, 100000000},
};
static const struct nb_metric metrics[] = {
    {"wake_time", "ns", "one way, from before the call that wakes to the receiver's first instruction: median", NB_LOWER_IS_BETTER},
    {"wake_p99", "ns", "the same, 99th percentile", NB_LOWER_IS_BETTER},
    {"waker_time", "ns", "the waker's own time in the call that wakes: median", NB_LOWER_IS_BETTER},
    {"slept", "1", "share of wake-ups before which the receiver slept", NB_NEITHER_IS_BETTER},
};
NB_DESCRIBE("wake_up", 2, "waking a thread that waits", parameters, metrics);

/* Of `value`, behind those of nb_each in the waker's. */
enum { CALL_PS = 6, EARLY = 7, SLEPT = 6, OUT_OF_ORDER = 7, AWAKE = 8 };

/* Descriptors: a message's way in and out; of epoll what waits for the second of these. */
enum { IN = 0, OUT = 1, WAITS = 5 };

#define LIMIT_NS 3000000000u  /* after which a wake-up is lost: a thousand times what a crowded CPU keeps a thread waiting for */
#define RETRY_NS 10000000     /* from one signal to the next for a receiver that is to leave: one may come just before its call */
#define LOOKS 256             /* of the waker, between two at the clock */
#define STACK_BYTES (128u << 10)
#define SPINNER_LOOK_NS 20000 /* between two looks whether the spinner runs */
#define WAKE (SIGRTMIN + 4)
#define LEAVE (SIGRTMIN + 5)

struct shared {
    uint32_t word; /* the futex, and what the condition is about */
    uint8_t pad0[NB_APART - 4];
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    uint8_t pad1[NB_APART];
    /* What the waker says: time and number of the last wake-up, where the window began, the number with which the receiver leaves; whether it is to leave
     * whatever it waits for, and whether it may forget the signal for that. */
    uint64_t began, window;
    uint32_t sent, final, stop, forget;
    uint8_t pad2[NB_APART - 32];
    /* What the receiver says: the number up to which it has everything and waits for the next, when it ran, who it is, whether it has left. */
    uint64_t ran;
    uint32_t ready, left;
    int32_t tid;
    uint8_t pad3[NB_APART - 20];
    /* The receiver's own: its ring, and where a read that it handed in leaves the count. */
    struct nb_uring ring;
    uint64_t count;
    uint8_t pad4[NB_APART - (sizeof(struct nb_uring) + 8) % NB_APART];
    uint64_t turns; /* of the spinner, whether it is to end, and what became of it */
    uint32_t end, state;
    uint8_t pad5[NB_APART - 16];
    /* The waker's own: what a reading of the clock costs, whether a wake-up was lost, and times of its calls. */
    uint64_t clock;
    uint32_t lost;
    struct nb_series calls;
};
enum { STARTING, RUNS, REFUSED };

static struct shared *shared(const struct nb_case *c) { return (struct shared *)c->buffer; }

static long futex(uint32_t *word, int operation, uint32_t value) { return syscall(SYS_futex, word, operation, value, NULL, NULL, 0); }

static void sleep_ns(uint64_t ns)
{
    const struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

/* -- the waker -- */

static void wake(const struct nb_case *c, uint32_t number)
{
    struct shared *s = shared(c);
    const uint64_t one = 1;
    const int in = c->descriptor[IN];
    ssize_t written = 0;
    switch (c->parameter[PRIMITIVE]) {
    case FUTEX:
        nb_store32_release(&s->word, number);
        futex(&s->word, FUTEX_WAKE_PRIVATE, 1);
        break;
    case CONDITION: /* signalled without the mutex, so that who wakes need not wait for it */
        pthread_mutex_lock(&s->mutex);
        nb_store32_release(&s->word, number);
        pthread_mutex_unlock(&s->mutex);
        pthread_cond_signal(&s->condition);
        break;
    case EVENTFD:
    case EPOLL_LEVEL:
    case EPOLL_EDGE:
    case IO_URING:
        written = write(in, &one, sizeof one);
        break;
    case SIGNAL: {
        siginfo_t what = {.si_code = SI_QUEUE};
        what.si_pid = getpid();
        what.si_uid = getuid();
        what.si_value.sival_int = (int)number;
        written = syscall(SYS_rt_tgsigqueueinfo, getpid(), s->tid, WAKE, &what);
        break;
    }
    default:
        written = write(in, &number, sizeof number);
    }
    (void)written; /* what was not sent does not arrive, and is missed there */
}

static int shares_cpu(const struct nb_case *c) { return c->crowded || c->parameter[TARGET] == SAME_CPU; }

/* Until the receiver has the wake-up of this number and waits for the next: on one CPU it must be let there. */
static int arrived(const struct nb_case *c, uint32_t number)
{
    struct shared *s = shared(c);
    const int yields = shares_cpu(c);
    const uint64_t until = nb_now() + LIMIT_NS;
    for (uint32_t look = 1; nb_load32_acquire(&s->ready) != number; look++) {
        if (yields)
            sched_yield();
        else
            nb_relax();
        if (look % LOOKS == 0 && (nb_now() > until || nb_load32_acquire(&s->left)))
            return 0;
    }
    return 1;
}

/* The CPU that both share idles meanwhile; one of the waker's own goes on. */
static void leave_alone(const struct nb_case *c)
{
    const uint64_t gap = (uint64_t)c->parameter[GAP], until = nb_now() + gap;
    if (gap && shares_cpu(c))
        sleep_ns(gap);
    while (nb_now() < until)
        nb_relax();
}

static uint64_t wake_once(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct shared *s = shared(c);
    if (s->lost)
        return 1;
    if (t->begin_ns && !s->window)
        nb_store_release(&s->window, t->begin_ns);
    const uint32_t number = (uint32_t)++t->cursor;
    leave_alone(c);
    nb_store32_release(&s->sent, number);
    const uint64_t before = nb_now();
    nb_store_relaxed(&s->began, before);
    wake(c, number);
    const uint64_t called = nb_now() - before, took = called > s->clock ? called - s->clock : 0;
    if (!arrived(c, number)) {
        s->lost = 1;
        return 1;
    }
    nb_series_add(&s->calls, took, t->begin_ns > 0);
    const uint64_t ran = nb_load_relaxed(&s->ran);
    t->check++;
    if (ran < before)
        t->value[EARLY]++;
    return ran > before ? ran - before : 0;
}

/* Until the receiver has left. It is told so by one more wake-up; where that does not do, by all other means. */
static void dismiss(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct shared *s = shared(c);
    if (!s->lost) {
        const uint32_t number = (uint32_t)++t->cursor;
        nb_store32_release(&s->final, number);
        nb_store32_release(&s->sent, number);
        wake(c, number);
    }
    for (const uint64_t until = nb_now() + (s->lost ? 0 : LIMIT_NS); !nb_load32_acquire(&s->left) && nb_now() < until;)
        sched_yield();
    while (!nb_load32_acquire(&s->left)) {
        s->lost = 1;
        nb_store32_release(&s->stop, 1);
        futex(&s->word, FUTEX_WAKE_PRIVATE, INT_MAX);
        pthread_mutex_lock(&s->mutex);
        pthread_cond_broadcast(&s->condition);
        pthread_mutex_unlock(&s->mutex);
        syscall(SYS_tgkill, getpid(), s->tid, LEAVE);
        sleep_ns(RETRY_NS);
    }
    nb_store32_release(&s->forget, 1);
}

static void send_all(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct shared *s = shared(c);
    const int slack = c->parameter[TARGET] == SAME_CPU ? prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0) : -1;
    s->window = s->final = s->forget = 0;
    nb_series_begin(&s->calls);
    s->clock = nb_clock_cost();
    t->begin_ns = 0;
    if (slack > 0)
        prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* a gap is to be as long as asked for */
    nb_each(t, wake_once);
    dismiss(t);
    if (slack > 0)
        prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
    t->value[CALL_PS] = nb_series_median_ps(&s->calls);
}

/* -- the receiver -- */

static int is_file(int64_t primitive) { return primitive != FUTEX && primitive != CONDITION && primitive != SIGNAL; }

static int stopped(struct shared *s) { return (int)nb_load32_acquire(&s->stop); }

/* Waits for the number after `last` and leaves in *at when it ran. Where it is to leave for good: whatever number. */
static uint32_t receive(const struct nb_case *c, uint32_t last, uint64_t *at)
{
    struct shared *s = shared(c);
    const int64_t primitive = c->parameter[PRIMITIVE];
    const int spins = c->parameter[TARGET] == SPINNING, out = c->descriptor[OUT];
    uint32_t number = last;
    if (primitive == FUTEX) {
        while ((number = nb_load32_acquire(&s->word)) == last && !stopped(s))
            if (!spins)
                futex(&s->word, FUTEX_WAIT_PRIVATE, last);
        *at = nb_now();
    } else if (primitive == CONDITION && spins) {
        while ((number = nb_load32_acquire(&s->word)) == last && !stopped(s))
            ;
        *at = nb_now();
    } else if (primitive == CONDITION) {
        pthread_mutex_lock(&s->mutex);
        while ((number = nb_load32_acquire(&s->word)) == last && !stopped(s))
            pthread_cond_wait(&s->condition, &s->mutex);
        *at = nb_now();
        pthread_mutex_unlock(&s->mutex);
    } else if (primitive == SIGNAL) {
        const struct timespec none = {0, 0};
        siginfo_t what;
        sigset_t wanted;
        sigemptyset(&wanted);
        sigaddset(&wanted, WAKE);
        while ((spins ? sigtimedwait(&wanted, &what, &none) : sigwaitinfo(&wanted, &what)) != WAKE)
            if (stopped(s))
                return number;
        *at = nb_now();
        number = (uint32_t)what.si_value.sival_int;
    } else if (primitive == EPOLL_LEVEL || primitive == EPOLL_EDGE) {
        struct epoll_event event;
        uint64_t count = 1;
        while (epoll_wait(c->descriptor[WAITS], &event, 1, spins ? 0 : -1) != 1)
            if (stopped(s))
                return number;
        *at = nb_now();
        number = nb_load32_acquire(&s->sent);
        if (primitive == EPOLL_LEVEL && (read(out, &count, sizeof count) != sizeof count || count != 1)) /* else it would be ready still */
            number = last;
    } else if (primitive == IO_URING) {
        uint32_t entries = 1;
        struct nb_done found = {0, 0};
        nb_uring_read(&s->ring, out, &s->count, sizeof s->count);
        while (!nb_uring_take(&s->ring, &found)) { /* one call hands the read in and waits for it; who spins hands it in, and looks at the ring from then on */
            if (stopped(s))
                return number;
            if ((entries || !spins) && nb_uring_enter(&s->ring, entries, !spins) >= 0)
                entries = 0;
        }
        *at = nb_now();
        number = found.result == sizeof s->count && s->count == 1 ? nb_load32_acquire(&s->sent) : last;
    } else {
        const size_t size = primitive == EVENTFD ? sizeof(uint64_t) : sizeof number;
        union {
            uint64_t count;
            uint32_t number;
        } message;
        ssize_t found;
        while ((found = read(out, &message, size)) < 0)
            if (stopped(s))
                return number;
        *at = nb_now();
        if (found != (ssize_t)size)
            number = last;
        else if (primitive == EVENTFD)
            number = message.count == 1 ? nb_load32_acquire(&s->sent) : last;
        else
            number = message.number;
    }
    return number;
}

static void serve(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct shared *s = shared(c);
    uint32_t last = (uint32_t)t->cursor, pending = 0, number;
    uint64_t at = 0, slept = (uint64_t)nb_usage().ru_nvcsw, turns = 0;
    int inside = 0;
    t->operations = 0;
    t->run_delay_ns = 0;
    t->gaps = 0;
    t->gap_ns = 0;
    nb_gate(t);
    t->begin_ns = nb_now();
    t->cpu_begin = sched_getcpu();
    while (!stopped(s)) {
        number = receive(c, last, &at);
        if (stopped(s))
            break;
        const uint64_t switches = (uint64_t)nb_usage().ru_nvcsw, turned = nb_load_relaxed(&s->turns);
        const int did_sleep = switches != slept, was_awake = turned != turns;
        slept = switches;
        if (number != last + 1) {
            t->value[OUT_OF_ORDER]++;
            continue;
        }
        last = number;
        pending++;
        if (number == nb_load32_acquire(&s->final))
            break;
        const uint64_t window = nb_load_acquire(&s->window);
        if (window && !inside) {
            inside = 1;
            nb_empty_histogram(t);
            t->begin_ns = window;
            t->run_delay_ns = nb_run_delay(t);
            t->value[NB_LONGEST] = t->value[SLEPT] = t->value[AWAKE] = 0;
        }
        if (inside) {
            const uint64_t began = nb_load_relaxed(&s->began);
            nb_record(t, at > began ? at - began : 0, 1);
            t->operations++;
            t->value[SLEPT] += (uint64_t)did_sleep;
            t->value[AWAKE] += (uint64_t)was_awake;
        }
        t->executed++;
        nb_store_relaxed(&s->ran, at);
        turns = nb_load_relaxed(&s->turns);
        nb_store32_release(&s->ready, number);
    }
    t->cpu_end = sched_getcpu();
    t->run_delay_ns = inside ? nb_run_delay(t) - t->run_delay_ns : 0;
    t->end_ns = nb_now();
    t->cursor = last;
    t->check = t->executed;
    uint64_t count = 0;
    if (c->parameter[PRIMITIVE] == EPOLL_EDGE && !stopped(s)) /* what was told and never read is all there */
        t->value[OUT_OF_ORDER] += read(c->descriptor[OUT], &count, sizeof count) != sizeof count || count != pending;
}

/* A thread that leaves its CPU to everybody else, and keeps it from being halted. */
static void *keep_awake(void *at)
{
    struct shared *s = at;
    const struct sched_param none = {0};
    uint64_t turns = s->turns;
    const int refused = sched_setscheduler(0, SCHED_IDLE, &none);
    nb_store32_release(&s->state, refused ? REFUSED : RUNS);
    while (!refused && !nb_load32_acquire(&s->end))
        nb_store_relaxed(&s->turns, ++turns);
    return NULL;
}

static void nothing(int signal) { (void)signal; }

/* On a stack of numabench's memory, and gone before this returns. Whether there was one where there is to be one. */
static int serve_with_spinner(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct shared *s = shared(c);
    pthread_attr_t attributes;
    pthread_t spinner;
    s->end = 0;
    s->state = STARTING;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, c->scratch, STACK_BYTES);
    const int started = !pthread_create(&spinner, &attributes, keep_awake, s);
    pthread_attr_destroy(&attributes);
    for (const uint64_t until = nb_now() + LIMIT_NS; started && nb_load32_acquire(&s->state) == STARTING && nb_now() < until;)
        sleep_ns(SPINNER_LOOK_NS);
    serve(t);
    nb_store32_release(&s->end, 1);
    if (started)
        pthread_join(spinner, NULL);
    return started && s->state == RUNS;
}

static int receive_all(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct shared *s = shared(c);
    const struct timespec none = {0, 0};
    struct sigaction handler = {.sa_handler = nothing}, before;
    sigset_t wakes, leaves, mask;
    sigemptyset(&wakes);
    sigaddset(&wakes, WAKE);
    sigemptyset(&leaves);
    sigaddset(&leaves, LEAVE);
    pthread_sigmask(SIG_BLOCK, &wakes, &mask);
    sigaction(LEAVE, &handler, &before);
    pthread_sigmask(SIG_UNBLOCK, &leaves, NULL);
    s->tid = (int32_t)syscall(SYS_gettid);
    s->left = 0;
    const int ring = c->parameter[PRIMITIVE] != IO_URING || !nb_uring_open(&s->ring);
    if (!ring) {
        t->operations = 0;
        t->begin_ns = t->end_ns = nb_gate(t);
    }
    const int done = ring && (c->parameter[TARGET] == OTHER_AWAKE ? serve_with_spinner(t) : (serve(t), 1));
    nb_store32_release(&s->left, 1);
    if (ring && c->parameter[PRIMITIVE] == IO_URING)
        nb_uring_close(&s->ring);
    while (!nb_load32_acquire(&s->forget)) /* a signal may be on its way */
        sched_yield();
    pthread_sigmask(SIG_BLOCK, &leaves, NULL);
    while (sigtimedwait(&leaves, NULL, &none) > 0 || sigtimedwait(&wakes, NULL, &none) > 0)
        ;
    sigaction(LEAVE, &before, NULL);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return done ? NB_OK : NB_UNSUPPORTED;
}

/* -- both -- */

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t primitive = c->parameter[PRIMITIVE];
    const int epoll = primitive == EPOLL_LEVEL || primitive == EPOLL_EDGE;
    if (c->threads != 2 || c->buffer_bytes < sizeof(struct shared) || (c->parameter[TARGET] == OTHER_AWAKE && c->scratch_bytes < STACK_BYTES))
        return NB_UNSUPPORTED;
    if ((is_file(primitive) && (c->descriptor[IN] < 0 || c->descriptor[OUT] < 0)) || (epoll && c->descriptor[WAITS] < 0))
        return NB_UNSUPPORTED;
    t->check = t->cursor = 0;
    memset(t->value, 0, sizeof t->value);
    if (t->index == 0) {
        struct shared *s = shared(c);
        memset(c->buffer, 0, c->buffer_bytes);
        pthread_mutex_init(&s->mutex, NULL);
        pthread_cond_init(&s->condition, NULL);
        if (is_file(primitive)) { /* who polls never sleeps; what is told and never read is read in the end; a ring waits for what would block alone */
            const int flags = fcntl(c->descriptor[OUT], F_GETFL), polls = (c->parameter[TARGET] == SPINNING && primitive != IO_URING) || epoll;
            fcntl(c->descriptor[OUT], F_SETFL, polls ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
        }
        if (primitive == IO_URING) {
            if (nb_uring_open(&s->ring))
                return NB_UNSUPPORTED;
            nb_uring_close(&s->ring);
        }
    }
    return NB_OK;
}

int nb_run(struct nb_thread *t)
{
    if (t->shared->phase == NB_PREPARE)
        return prepare(t);
    if (t->index == 1)
        return receive_all(t);
    send_all(t);
    return NB_OK;
}
