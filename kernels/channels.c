/* Messages from thread to thread: producers send numbered messages for a time, consumers receive them and see that each is whole, the next of its
 * producer, and there once.
 *
 * In the end the last producer sends each consumer a message that says so: nobody is left waiting. A wake-up that gets lost keeps nobody either: a timer
 * of its own interrupts each thread that has waited for far too long. How often threads slept, the kernel says (voluntary switches). */
#include "nb_channel.h"
#include "nb_usage.h"
#include "nb_window.h"
#include <signal.h>

enum { KIND, CAPACITY, ELEMENT, WAIT, SCHEDULING, PRODUCERS, THINK, SPIN };
enum { NORMAL, BATCH };
enum { HCHAN, SPSC, SPSC_CACHED, MPMC, MUTEX_COND, PIPE, EVENTFD };

/* Of value[]. In the window: sleeps of this thread, others that it woke, ns of its CPU. In the whole entry: messages with the last ones, how often it
 * found nothing, voluntary and other switches, messages that were wrong, and whether it gave up. */
enum { PARKS, WAKES, CPU_NS, MESSAGES, WAITS, SWITCHES, DRIVEN_OUT, WRONG, LOST };

#define OUT_SLOT 0 /* of descriptor[]: where messages are written, and read; of eventfd the same for free places */
#define IN_SLOT 1
#define ROOM_OUT_SLOT 3
#define ROOM_IN_SLOT 4

#define LIMIT_NS 5000000000u /* after its window an end gives up: a thousand times what a busy CPU keeps a thread waiting for */
#define RETRY_NS 50000000    /* from then on it is interrupted so often */
#define INTERRUPT (SIGRTMIN + 6)
/* Of the first producer in a window, however long it gets, beside what the channel holds and what a consumer takes between two looks at the clock. */
#define LEAST_MESSAGES 16
#define MOST_BATCH 4096
#define MOST_ELEMENT 1024
#define MOST_PRODUCERS 64
#define LAST UINT64_MAX /* what the last message says */
#define MIX 0x9e3779b97f4a7c15u

static const struct nb_parameter parameters[] = {
    [KIND] = {"kind", "hchan|spsc|spsc_cached|mpmc|mutex_cond|pipe|eventfd", "what messages go through", HCHAN, 0, EVENTFD},
    [CAPACITY] = {"capacity", NULL, "messages that it holds: a power of two, or 0 where a message goes from hand to hand", 0, 0, 1 << 16},
    [ELEMENT] = {"element", NULL, "bytes of a message, a multiple of 8", 8, 8, MOST_ELEMENT},
    [WAIT] = {"wait", "park|spin_park|spin", "how an end waits that finds nothing", NB_PARKS, 0, NB_SPINS},
    [SCHEDULING] = {"scheduling", "normal|batch", "class of the threads; batch: who is woken preempts nobody (SCHED_BATCH)", NORMAL, 0, BATCH},
    [PRODUCERS] = {"producers", NULL, "threads that send; the others receive", 1, 1, MOST_PRODUCERS},
    [THINK] = {"think", NULL, "dependent multiplies of a producer before each message", 0, 0, 10000000},
    [SPIN] = {"spin", NULL, "ns for which spin_park spins", 20000, 0, 10000000},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "from one message to the next, of all consumers together", NB_LOWER_IS_BETTER},
    {"cpu_time", "ns", "of all CPUs for one message", NB_LOWER_IS_BETTER},
    {"parks", "sleeps", "of both sides for one message", NB_LOWER_IS_BETTER},
    {"producer_parks", "sleeps", "of these the producers'", NB_LOWER_IS_BETTER},
    {"consumer_parks", "sleeps", "and the consumers'", NB_LOWER_IS_BETTER},
    {"wakes", "calls", "that wake a thread of the other side, for one message", NB_LOWER_IS_BETTER},
    {"fairness", "1", "Jain index of the producers' rates", NB_HIGHER_IS_BETTER},
};
NB_DESCRIBE("channels", 1, "messages from thread to thread", parameters, metrics);

struct shared {
    union {
        struct nb_hchan hchan;
        uint8_t pad0[2 * NB_APART];
    };
    struct nb_ring ring;
    union {
        struct nb_guarded guarded;
        uint8_t pad1[2 * NB_APART];
    };
    uint32_t sending; /* producers that have not come to their end */
    uint8_t pad2[NB_APART - 4];
};

/* A thread's own, with the message that it sends, or the last that it received. */
struct own {
    union {
        struct nb_end end;
        uint8_t pad0[NB_APART];
    };
    uint64_t seen[MOST_PRODUCERS]; /* the last number of each producer */
    uint64_t message[MOST_ELEMENT / 8];
    uint8_t pad1[NB_APART];
};

#define INLINE static inline __attribute__((always_inline))

static struct shared *shared(const struct nb_case *c) { return (struct shared *)c->buffer; }
static struct own *own(const struct nb_case *c, uint32_t index) { return (struct own *)(c->buffer + sizeof(struct shared)) + index; }

static uint64_t stride(const struct nb_case *c) { return (uint64_t)c->parameter[ELEMENT] + (c->parameter[KIND] == MPMC ? 8 : 0); }
static uint64_t places(const struct nb_case *c) { return c->parameter[KIND] == PIPE ? 0 : (uint64_t)c->parameter[CAPACITY]; }

/* -- one message ---------------------------------------------------------------------------------------------------------------------------------------- */

INLINE int move(const struct nb_case *c, struct own *o, const int kind, const int sends)
{
    struct shared *s = shared(c);
    struct nb_end *e = &o->end;
    uint8_t *message = (uint8_t *)o->message;
    if (kind == HCHAN)
        return sends ? nb_hchan_send(&s->hchan, e, message) : nb_hchan_receive(&s->hchan, e, message);
    if (kind == SPSC || kind == SPSC_CACHED)
        return sends ? nb_spsc_send(&s->ring, e, message, kind == SPSC_CACHED) : nb_spsc_receive(&s->ring, e, message, kind == SPSC_CACHED);
    if (kind == MPMC)
        return nb_mpmc(&s->ring, e, message, sends);
    if (kind == MUTEX_COND)
        return nb_guarded(&s->guarded, &s->ring, e, message, sends);
    if (kind == PIPE)
        return nb_whole(e, c->descriptor[sends ? OUT_SLOT : IN_SLOT], message, (uint64_t)c->parameter[ELEMENT], sends);
    return nb_counted(&s->ring, e, message, c->descriptor[sends ? ROOM_IN_SLOT : IN_SLOT], c->descriptor[sends ? OUT_SLOT : ROOM_OUT_SLOT], sends);
}

/* What a message says: its producer and its number, and in its last word the same once more. */
INLINE uint64_t word(uint32_t producer, uint64_t number) { return number * MOST_PRODUCERS + producer; }

INLINE int put(const struct nb_case *c, struct own *o, uint64_t says, const int kind)
{
    const uint64_t last = (uint64_t)c->parameter[ELEMENT] / 8 - 1;
    o->message[0] = says;
    if (last)
        o->message[last] = says * MIX;
    return move(c, o, kind, 1);
}

/* Up to `n` messages, and how many it were. */
INLINE uint64_t send_some(struct nb_thread *t, uint64_t n, const int kind)
{
    const struct nb_case *c = t->shared;
    struct own *o = own(c, t->index);
    const uint64_t think = (uint64_t)c->parameter[THINK];
    uint64_t nothing = 0, x = t->cursor, sent = 0;
    NB_OPAQUE(nothing);
    for (; sent < n; sent++) {
        x = nb_work(x, think);
        if (!put(c, o, word(t->index, t->cursor + 1) + (x & nothing), kind))
            break;
        t->cursor++;
    }
    return sent;
}

/* The same; fewer than asked for: its last one has come. `check` is the sum of what messages said. */
INLINE uint64_t receive_some(struct nb_thread *t, uint64_t n, const int kind)
{
    const struct nb_case *c = t->shared;
    struct own *o = own(c, t->index);
    const uint64_t last = (uint64_t)c->parameter[ELEMENT] / 8 - 1;
    const int only = c->threads - (uint64_t)c->parameter[PRODUCERS] == 1; /* who receives all of them misses none */
    for (uint64_t received = 0; received < n; received++) {
        if (!move(c, o, kind, 0))
            return received;
        const uint64_t says = o->message[0];
        if (last && o->message[last] != says * MIX)
            t->value[WRONG]++;
        if (says == LAST)
            return received;
        uint64_t *const seen = &o->seen[says % MOST_PRODUCERS];
        const uint64_t number = says / MOST_PRODUCERS;
        if (only ? number != *seen + 1 : number <= *seen)
            t->value[WRONG]++;
        *seen = number;
        t->check += says;
    }
    return n;
}

typedef uint64_t (*some)(struct nb_thread *t, uint64_t n);
#define EVERY(DO)                                                                                                                    \
    DO(hchan, HCHAN)                                                                                                                 \
    DO(spsc, SPSC)                                                                                                                   \
    DO(spsc_cached, SPSC_CACHED)                                                                                                     \
    DO(mpmc, MPMC)                                                                                                                   \
    DO(mutex_cond, MUTEX_COND)                                                                                                       \
    DO(pipe, PIPE)                                                                                                                   \
    DO(eventfd, EVENTFD)
#define ROLES(NAME, OF)                                                                                                              \
    static uint64_t send_##NAME(struct nb_thread *t, uint64_t n) { return send_some(t, n, OF); }                                     \
    static uint64_t receive_##NAME(struct nb_thread *t, uint64_t n) { return receive_some(t, n, OF); }                               \
    static int end_##NAME(const struct nb_case *c, struct own *o) { return put(c, o, LAST, OF); }
EVERY(ROLES)
#define ENTRY(NAME, OF) [OF] = {send_##NAME, receive_##NAME, end_##NAME},
static const struct {
    some send, receive;
    int (*end)(const struct nb_case *c, struct own *o);
} roles[] = {EVERY(ENTRY)};

/* -- a window ------------------------------------------------------------------------------------------------------------------------------------------- */

struct edge {
    uint64_t ns, cpu_ns, parks, others, wakes, messages;
};

static struct edge edge(struct nb_thread *t)
{
    struct timespec cpu;
    const uint64_t ns = nb_now();
    const struct rusage usage = nb_usage();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    return (struct edge){ns, (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec, (uint64_t)usage.ru_nvcsw, (uint64_t)usage.ru_nivcsw,
                         own(t->shared, t->index)->end.wakes, t->executed};
}

static void on_interrupt(int signal) { (void)signal; }

/* From `after_ns` on the calling thread is interrupted again and again, until the timer is deleted; -1: it cannot be. */
static int interrupt_after(uint64_t after_ns)
{
    struct sigevent event;
    const struct itimerspec when = {{0, RETRY_NS}, {(time_t)(after_ns / 1000000000u), (long)(after_ns % 1000000000u)}};
    int timer = -1;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = INTERRUPT;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer))
        return -1;
    syscall(SYS_timer_settime, timer, 0, &when, NULL);
    return timer;
}

/* Messages until the window is over; consumers until their last one. Begin and end of what counts lie between two messages, at a look at the clock. */
static void work(struct nb_thread *t, some batch, int sends)
{
    const struct nb_case *c = t->shared;
    struct nb_end *const e = &own(c, t->index)->end;
    const int timer = interrupt_after(c->warmup_ns + c->window_ns + LIMIT_NS);
    const uint64_t begin = nb_gate(t) + nb_count_warmup(c), end = begin + c->window_ns;
    const struct edge first = edge(t);
    struct edge from = first, to = first;
    const uint64_t least = t->index ? 0 : LEAST_MESSAGES + 2 * (uint64_t)c->parameter[CAPACITY];
    int inside = 0, over = 0, more = 1;
    uint64_t n = 1;
    e->deadline = end + LIMIT_NS;
    t->cpu_begin = sched_getcpu();
    for (uint64_t now = nb_now(), last; more && !(sends && over);) {
        last = now;
        const uint64_t done = batch(t, n);
        t->executed += done;
        more = done == n;
        now = t->end_ns = nb_now();
        if (now >= begin && !inside) {
            inside = 1;
            from = edge(t);
            t->run_delay_ns = nb_run_delay(t);
        } else if (inside && !over && (!more || (now >= end && t->executed - from.messages >= least + 2 * n * !t->index))) {
            over = 1;
            to = edge(t);
            t->cpu_end = sched_getcpu();
            t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
        }
        if (now - last < c->batch_ns && n < MOST_BATCH)
            n *= 2;
        else if (now - last > NB_TOO_LONG * c->batch_ns && n > 1)
            n /= 2;
    }
    if (!over) { /* no look at the clock fell into the window */
        from = to = first;
        t->run_delay_ns = 0;
        t->cpu_end = sched_getcpu();
    }
    t->begin_ns = from.ns;
    t->end_ns = to.ns > from.ns ? to.ns : from.ns + 1;
    t->operations = to.messages - from.messages;
    t->value[PARKS] = to.parks - from.parks;
    t->value[WAKES] = to.wakes - from.wakes;
    t->value[CPU_NS] = to.cpu_ns - from.cpu_ns;
    t->value[MESSAGES] = t->executed - first.messages;
    if (sends && nb_add32(&shared(c)->sending, UINT32_MAX) == 1) /* of all producers the last one */
        for (uint32_t i = (uint32_t)c->parameter[PRODUCERS]; i < c->threads; i++)
            t->value[MESSAGES] += (uint64_t)roles[c->parameter[KIND]].end(c, own(c, t->index));
    to = edge(t);
    if (timer >= 0)
        syscall(SYS_timer_delete, timer);
    t->value[SWITCHES] = to.parks - first.parks;
    t->value[DRIVEN_OUT] = to.others - first.others;
    t->value[WAITS] = e->waits;
    t->value[LOST] = e->lost;
    if (e->wait != NB_SPINS)
        t->run_delay_ns = 0; /* for how long who is woken waits for its CPU is what is measured */
}

/* Of class SCHED_BATCH, if the thread is of the normal one; whether it was. */
static int leave_others_alone(int from, int to)
{
    const struct sched_param none = {0};
    return sched_getscheduler(0) == from && !sched_setscheduler(0, to, &none);
}

static int possible(const struct nb_case *c)
{
    const int64_t kind = c->parameter[KIND], capacity = c->parameter[CAPACITY], element = c->parameter[ELEMENT], producers = c->parameter[PRODUCERS];
    const int pair = producers == 1 && c->threads == 2;
    if (producers < 1 || producers > MOST_PRODUCERS || c->threads <= (uint64_t)producers || element < 8 || element > MOST_ELEMENT || element % 8)
        return 0;
    if (capacity < (kind == HCHAN ? 0 : kind == MPMC ? 2 : 1) || capacity & (capacity - 1))
        return 0;
    if ((kind == SPSC || kind == SPSC_CACHED || kind == EVENTFD) && !pair)
        return 0;
    if ((kind == MUTEX_COND || kind == PIPE || kind == EVENTFD) && c->parameter[WAIT] != NB_PARKS)
        return 0;
    if ((kind == PIPE || kind == EVENTFD) && (c->descriptor[OUT_SLOT] < 0 || c->descriptor[IN_SLOT] < 0))
        return 0;
    if (kind == EVENTFD && (c->descriptor[ROOM_OUT_SLOT] < 0 || c->descriptor[ROOM_IN_SLOT] < 0))
        return 0;
    return c->buffer_bytes >= sizeof(struct shared) + c->threads * sizeof(struct own) + places(c) * stride(c);
}

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct shared *s = shared(c);
    struct own *o = own(c, t->index);
    uint8_t *const ring = c->buffer + sizeof *s + c->threads * sizeof *o;
    const uint64_t capacity = (uint64_t)c->parameter[CAPACITY], element = (uint64_t)c->parameter[ELEMENT];
    const uint32_t producers = (uint32_t)c->parameter[PRODUCERS], mine = t->index < producers ? producers : c->threads - producers;
    if (!t->index)
        memset(c->buffer, 0, c->buffer_bytes);
    nb_gate(t);
    o->end.wait = (uint32_t)c->parameter[WAIT];
    o->end.alone = mine == 1;
    o->end.spin_ns = (uint64_t)c->parameter[SPIN];
    t->check = t->cursor = 0;
    if (t->index)
        return NB_OK;
    s->hchan.ring = s->ring.ring = ring;
    s->hchan.capacity = s->ring.capacity = capacity;
    s->hchan.element = s->ring.element = element;
    s->ring.stride = stride(c);
    if (c->parameter[KIND] == MPMC)
        for (uint64_t i = 0; i < capacity; i++)
            *(uint64_t *)nb_place(&s->ring, i) = i;
    if (c->parameter[KIND] == MUTEX_COND) {
        pthread_condattr_t clock;
        pthread_condattr_init(&clock);
        pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
        pthread_mutex_init(&s->guarded.mutex, NULL);
        pthread_cond_init(&s->guarded.items, &clock);
        pthread_cond_init(&s->guarded.room, &clock);
    }
    if (c->parameter[KIND] == EVENTFD)
        for (uint64_t i = 0, one = 1; i < capacity; i++)
            if (write(c->descriptor[ROOM_OUT_SLOT], &one, sizeof one) != sizeof one)
                return NB_UNSUPPORTED;
    return NB_OK;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int sends = t->index < (uint64_t)c->parameter[PRODUCERS];
    struct nb_end *const e = &own(c, t->index)->end;
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    sigset_t interrupt, blocked;
    if (!possible(c))
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    e->crowded = c->crowded;
    e->waits = e->wakes = e->sleeps = e->lost = 0;
    e->deadline = UINT64_MAX;
    memset(t->value, 0, sizeof t->value);
    t->gaps = 0;
    t->gap_ns = 0;
    if (!t->index) {
        shared(c)->sending = (uint32_t)c->parameter[PRODUCERS];
        sigaction(INTERRUPT, &action, &before); /* without SA_RESTART */
    }
    sigemptyset(&interrupt);
    sigaddset(&interrupt, INTERRUPT);
    pthread_sigmask(SIG_UNBLOCK, &interrupt, &blocked); /* the crew's threads leave signals to others */
    const int batch = c->parameter[SCHEDULING] == BATCH && leave_others_alone(SCHED_OTHER, SCHED_BATCH);
    work(t, sends ? roles[c->parameter[KIND]].send : roles[c->parameter[KIND]].receive, sends);
    if (batch)
        leave_others_alone(SCHED_BATCH, SCHED_OTHER);
    pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    nb_gate(t);
    if (!t->index)
        sigaction(INTERRUPT, &before, NULL);
    return NB_OK;
}
