/* Messages from thread to thread: producers send numbered messages for a time, consumers receive them and see that each is whole, the next of its
 * producer, and there once. In a round trip one producer sends one message and waits until the consumer has sent it back, by a channel of its own.
 *
 * In the end the last producer sends each consumer a message that says so: nobody is left waiting. A wake-up that gets lost keeps nobody either: a timer
 * of its own interrupts each thread that has waited for far too long. How often threads slept, the kernel says (voluntary switches). */
#include "nb_hchan.h"
#include "nb_ring.h"
#include "nb_usage.h"
#include "nb_window.h"
#include <signal.h>

enum { KIND, CAPACITY, ELEMENT, WAIT, SCHEDULING, PRODUCERS, THINK, SERVICE, SPIN, AT_ONCE, PADDING, PATTERN };
enum { NORMAL, BATCH };
enum { HCHAN, SPSC, SPSC_CACHED, MPSC, MPMC, MUTEX_COND, PIPE, EVENTFD };
enum { PACKED, APART, PLACES_APART };
enum { STREAM, ROUND_TRIP };

/* Of value[]. In the window: sleeps of this thread, others that it woke, ns of its CPU, messages that it found in the channel at its looks, and these.
 * In the whole entry: sends with the last ones, how often it found nothing, voluntary and other switches, messages that were wrong, whether it gave up. */
enum { PARKS, WAKES, CPU_NS, HELD, LOOKS, SENDS, WAITS, SWITCHES, DRIVEN_OUT, WRONG, LOST };

enum { THERE, BACK }; /* the channels; the second one is for answers alone */

/* Of descriptor[], of the way there and the way back: where a pipe is written to and read from, or an eventfd of messages. An eventfd of free places has the
 * second pair: answers need none. */
static const int out_slot[] = {0, 3}, in_slot[] = {1, 4};

#define LIMIT_NS 5000000000u /* after its window an end gives up: a thousand times what a busy CPU keeps a thread waiting for */
#define RETRY_NS 50000000    /* from then on it is interrupted so often */
#define INTERRUPT (SIGRTMIN + 6)
/* Of the first producer in a window, however long it gets, beside what the channel holds and what a consumer takes between two looks at the clock. */
#define LEAST_MESSAGES 16
#define MOST_BETWEEN_LOOKS 4096
#define MOST_ELEMENT 1024
#define MOST_AT_ONCE 64
#define MOST_BYTES 4096 /* of messages that go at once: what a pipe takes as a whole (PIPE_BUF) */
#define MOST_PRODUCERS 64
#define LAST UINT64_MAX             /* what the last message says */
#define STAMPED (UINT64_C(1) << 63) /* when it was sent stands with its producer */
#define MIX 0x9e3779b97f4a7c15u

static const struct nb_parameter parameters[] = {
    [KIND] = {"kind", "hchan|spsc|spsc_cached|mpsc|mpmc|mutex_cond|pipe|eventfd", "what messages go through", HCHAN, 0, EVENTFD},
    [CAPACITY] = {"capacity", NULL, "messages that it holds: a power of two, or 0 where they go from hand to hand", 0, 0, 1 << 16},
    [ELEMENT] = {"element", NULL, "bytes of a message, a multiple of 8", 8, 8, MOST_ELEMENT},
    [WAIT] = {"wait", "park|spin_park|spin", "how an end waits that finds nothing", NB_PARKS, 0, NB_SPINS},
    [SCHEDULING] = {"scheduling", "normal|batch", "class of the threads; batch: who is woken preempts nobody (SCHED_BATCH)", NORMAL, 0, BATCH},
    [PRODUCERS] = {"producers", NULL, "threads that send; the others receive", 1, 1, MOST_PRODUCERS},
    [THINK] = {"think", NULL, "dependent multiplies of a producer before each message", 0, 0, 10000000},
    [SERVICE] = {"service", NULL, "dependent multiplies of a consumer after each message", 0, 0, 10000000},
    [SPIN] = {"spin", NULL, "ns for which spin_park spins", 20000, 0, 10000000},
    [AT_ONCE] = {"batch", NULL, "messages that go at once: a power of two, no more than it holds", 1, 1, MOST_AT_ONCE},
    [PADDING] = {"padding", "packed|apart|places_apart", "whether the channel's words have lines of their own, and each place too", PACKED, 0, PLACES_APART},
    [PATTERN] = {"pattern", "stream|round_trip", "whether each message is answered before the next", STREAM, 0, ROUND_TRIP},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "from one message to the next, of all consumers together", NB_LOWER_IS_BETTER},
    {"round_trip", "ns", "from one message to the next where each is answered", NB_LOWER_IS_BETTER},
    {"cpu_time", "ns", "of all CPUs for one message", NB_LOWER_IS_BETTER},
    {"delivery_p50", "ns", "from the call that sends to the end of that which receives: median", NB_LOWER_IS_BETTER},
    {"delivery_p99", "ns", "the same, 99th percentile", NB_LOWER_IS_BETTER},
    {"parks", "sleeps", "of both sides for one message", NB_LOWER_IS_BETTER},
    {"producer_parks", "sleeps", "of these the producers'", NB_LOWER_IS_BETTER},
    {"consumer_parks", "sleeps", "and the consumers'", NB_LOWER_IS_BETTER},
    {"wakes", "calls", "that wake a thread of the other side, for one message", NB_LOWER_IS_BETTER},
    {"occupancy", "messages", "that a consumer finds in the channel, on average", NB_NEITHER_IS_BETTER},
    {"fairness", "1", "Jain index of the producers' rates", NB_HIGHER_IS_BETTER},
};
NB_DESCRIBE("channels", 2, "messages from thread to thread", parameters, metrics);

/* What is read only lies apart from the words that it speaks of. */
struct channel {
    union {
        struct nb_hchan hchan;
        struct nb_ring ring;
        struct nb_guarded guarded;
        uint8_t pad[NB_APART];
    };
    uint8_t words[6 * NB_APART]; /* one for each of hchan's */
};

struct shared {
    struct channel channel[2];
    uint32_t sending; /* producers that have not come to their end */
    uint8_t pad[NB_APART - 4];
};

/* A thread's own, with the messages that it sends, or the last that it received. */
struct own {
    struct {
        union {
            struct nb_end end;
            uint8_t pad[NB_APART];
        };
    } at[2];
    uint64_t stamp; /* of a producer: when its message under way was sent that says so; 0: none is */
    uint8_t pad0[NB_APART - 8];
    uint64_t seen[MOST_PRODUCERS]; /* the last number of each producer */
    uint64_t message[MOST_BYTES / 8];
    uint32_t inside; /* whether what happens counts */
    uint8_t pad1[NB_APART - 4];
};

static struct shared *shared(const struct nb_case *c) { return (struct shared *)c->buffer; }
static struct own *own(const struct nb_case *c, uint32_t index) { return (struct own *)(c->buffer + sizeof(struct shared)) + index; }

static uint64_t channels(const struct nb_case *c) { return c->parameter[PATTERN] == ROUND_TRIP ? BACK + 1 : THERE + 1; }
static int is_numbered(int64_t kind) { return kind == MPSC || kind == MPMC; }

/* Places of so many bytes: each takes all that goes at once. */
static struct nb_places places(const struct nb_case *c)
{
    const uint64_t at_once = (uint64_t)c->parameter[AT_ONCE], bytes = (uint64_t)c->parameter[ELEMENT] * at_once;
    const uint64_t used = bytes + (is_numbered(c->parameter[KIND]) ? NB_TURN : 0);
    const uint64_t stride = c->parameter[PADDING] == PLACES_APART ? (used + NB_APART - 1) / NB_APART * NB_APART : used;
    return (struct nb_places){NULL, c->parameter[KIND] == PIPE ? 0 : (uint64_t)c->parameter[CAPACITY] / at_once, bytes, stride};
}

/* -- one send or receive ------------------------------------------------------------------------------------------------------------------------------------ */

NB_INLINE_ALWAYS int move(const struct nb_case *c, struct own *o, const int way, const int kind, const enum nb_side side)
{
    struct channel *ch = &shared(c)->channel[way];
    struct nb_end *e = &o->at[way].end;
    uint8_t *message = (uint8_t *)o->message;
    if (kind == HCHAN)
        return nb_hchan_move(&ch->hchan, e, message, side);
    if (kind == SPSC || kind == SPSC_CACHED)
        return nb_spsc(&ch->ring, e, message, side, kind == SPSC_CACHED);
    if (is_numbered(kind))
        return nb_numbered(&ch->ring, e, message, side, kind == MPSC && side == NB_RECEIVES);
    if (kind == MUTEX_COND)
        return nb_guarded_move(&ch->guarded, e, message, side);
    const int out = c->descriptor[out_slot[way]], in = c->descriptor[in_slot[way]];
    if (kind == PIPE)
        return nb_whole(e, side == NB_SENDS ? out : in, message, (uint64_t)(c->parameter[ELEMENT] * c->parameter[AT_ONCE]), side);
    const int answered = c->parameter[PATTERN] == ROUND_TRIP, room_out = answered ? -1 : c->descriptor[out_slot[BACK]];
    const int room_in = answered ? -1 : c->descriptor[in_slot[BACK]];
    return nb_counted(&ch->ring, e, message, side == NB_SENDS ? room_in : in, side == NB_SENDS ? out : room_out, side);
}

/* Messages in the channel there, as whoever asks finds them. */
static uint64_t held(const struct nb_case *c)
{
    const struct channel *ch = &shared(c)->channel[THERE];
    const int64_t kind = c->parameter[KIND];
    const uint64_t capacity = (uint64_t)c->parameter[CAPACITY];
    if (kind == PIPE)
        return nb_bytes_in(c->descriptor[in_slot[THERE]]) / (uint64_t)c->parameter[ELEMENT];
    if (kind == HCHAN)
        return nb_load_relaxed(ch->hchan.held) * (uint64_t)c->parameter[AT_ONCE];
    uint64_t *const *const index = kind == MUTEX_COND ? ch->guarded.index : ch->ring.index;
    const uint64_t received = nb_load_relaxed(index[NB_RECEIVES]); /* others may receive, and be sent, much more before the next line */
    const uint64_t found = (nb_load_relaxed(index[NB_SENDS]) - received) * (uint64_t)c->parameter[AT_ONCE];
    return found < capacity ? found : capacity;
}

/* -- what messages say -------------------------------------------------------------------------------------------------------------------------------------- */

/* A producer and its number; the last word says the same once more. */
NB_INLINE_ALWAYS uint64_t word(uint32_t producer, uint64_t number) { return number * MOST_PRODUCERS + producer; }

struct format {
    uint64_t at_once, words; /* messages that go at once, and words of each */
};

NB_INLINE_ALWAYS struct format format(const struct nb_case *c)
{
    return (struct format){(uint64_t)c->parameter[AT_ONCE], (uint64_t)c->parameter[ELEMENT] / 8};
}

NB_INLINE_ALWAYS void write_message(struct own *o, const struct format f, uint64_t k, uint64_t says)
{
    uint64_t *const message = &o->message[k * f.words];
    message[0] = says;
    if (f.words > 1)
        message[f.words - 1] = says * MIX;
}

/* What message `k` says; a torn one is counted. */
NB_INLINE_ALWAYS uint64_t read_message(struct nb_thread *t, const struct own *o, const struct format f, uint64_t k)
{
    const uint64_t *const message = &o->message[k * f.words];
    if (f.words > 1 && message[f.words - 1] != message[0] * MIX)
        t->value[WRONG]++;
    return message[0];
}

/* The next messages of a producer, after its work for each; `flag`: of the first. */
NB_INLINE_ALWAYS void compose(struct nb_thread *t, struct own *o, const struct format f, uint64_t flag)
{
    const uint64_t think = (uint64_t)((const struct nb_case *)t->shared)->parameter[THINK];
    uint64_t nothing = 0, x = t->cursor;
    NB_OPAQUE(nothing);
    for (uint64_t k = 0; k < f.at_once; k++) {
        x = nb_work(x, think);
        write_message(o, f, k, word(t->index, t->cursor + k + 1) + (x & nothing) + (k ? 0 : flag));
    }
    if (flag)
        nb_store_relaxed(&o->stamp, nb_now());
}

/* STAMPED where no message of this producer is under way that is. */
NB_INLINE_ALWAYS uint64_t stamp(const struct own *o) { return nb_load_acquire(&o->stamp) ? 0 : STAMPED; }

/* The first message says that it is stamped: how long it took. */
static __attribute__((noinline)) void note_delivery(struct nb_thread *t, struct own *o)
{
    const struct nb_case *c = t->shared;
    const uint64_t now = nb_now(), producer = o->message[0] % MOST_PRODUCERS;
    if (producer >= (uint64_t)c->parameter[PRODUCERS])
        return;
    struct own *const sender = own(c, (uint32_t)producer);
    const uint64_t sent = nb_load_relaxed(&sender->stamp);
    if (o->inside)
        nb_count(t->histogram, now > sent ? now - sent : 0, 1);
    nb_store_release(&sender->stamp, 0);
}

/* Messages that have come: each must be whole and the next of its producer. `check` is the sum of what they said. */
NB_INLINE_ALWAYS void take(struct nb_thread *t, struct own *o, const struct format f, const int only)
{
    const uint64_t service = (uint64_t)((const struct nb_case *)t->shared)->parameter[SERVICE];
    uint64_t nothing = 0;
    NB_OPAQUE(nothing);
    if (o->message[0] & STAMPED)
        note_delivery(t, o);
    for (uint64_t k = 0; k < f.at_once; k++) {
        const uint64_t says = read_message(t, o, f, k) & ~STAMPED, number = says / MOST_PRODUCERS;
        uint64_t *const seen = &o->seen[says % MOST_PRODUCERS];
        if (only ? number != *seen + 1 : number <= *seen)
            t->value[WRONG]++;
        *seen = number;
        t->check += says + (nb_work(says, service) & nothing);
    }
}

/* -- some at a time: up to `n`, and how many it were. Fewer of who receives: its last one has come ------------------------------------------------------------ */

NB_INLINE_ALWAYS uint64_t send_some(struct nb_thread *t, uint64_t n, const int kind)
{
    const struct nb_case *c = t->shared;
    const struct format f = format(c);
    struct own *o = own(c, t->index);
    for (uint64_t sent = 0; sent < n; sent++) {
        compose(t, o, f, sent ? 0 : stamp(o));
        if (!move(c, o, THERE, kind, NB_SENDS))
            return sent;
        t->cursor += f.at_once;
    }
    return n;
}

NB_INLINE_ALWAYS uint64_t receive_some(struct nb_thread *t, uint64_t n, const int kind)
{
    const struct nb_case *c = t->shared;
    const struct format f = format(c);
    struct own *o = own(c, t->index);
    const int only = c->threads - (uint64_t)c->parameter[PRODUCERS] == 1; /* who receives all of them misses none */
    for (uint64_t received = 0; received < n; received++) {
        if (!move(c, o, THERE, kind, NB_RECEIVES) || o->message[0] == LAST)
            return received;
        take(t, o, f, only);
    }
    return n;
}

/* Sends and waits for the answer, which must be what was sent. */
NB_INLINE_ALWAYS uint64_t ask_some(struct nb_thread *t, uint64_t n, const int kind)
{
    const struct nb_case *c = t->shared;
    const struct format f = format(c);
    struct own *o = own(c, t->index);
    for (uint64_t asked = 0; asked < n; asked++) {
        compose(t, o, f, asked ? 0 : stamp(o));
        const uint64_t first = o->message[0];
        if (!move(c, o, THERE, kind, NB_SENDS))
            return asked;
        for (uint64_t k = 0; k < f.at_once; k++)
            write_message(o, f, k, 0);
        if (!move(c, o, BACK, kind, NB_RECEIVES))
            return asked;
        for (uint64_t k = 0; k < f.at_once; k++)
            if (read_message(t, o, f, k) != (k ? word(t->index, t->cursor + k + 1) : first))
                t->value[WRONG]++;
        t->cursor += f.at_once;
    }
    return n;
}

NB_INLINE_ALWAYS uint64_t answer_some(struct nb_thread *t, uint64_t n, const int kind)
{
    const struct nb_case *c = t->shared;
    const struct format f = format(c);
    struct own *o = own(c, t->index);
    for (uint64_t answered = 0; answered < n; answered++) {
        if (!move(c, o, THERE, kind, NB_RECEIVES) || o->message[0] == LAST)
            return answered;
        take(t, o, f, 1);
        if (!move(c, o, BACK, kind, NB_SENDS))
            return answered;
    }
    return n;
}

/* The message that lets a consumer go; how many it were. */
NB_INLINE_ALWAYS uint64_t send_last(const struct nb_case *c, struct own *o, const int kind)
{
    write_message(o, format(c), 0, LAST);
    return (uint64_t)move(c, o, THERE, kind, NB_SENDS);
}

typedef uint64_t (*some)(struct nb_thread *t, uint64_t n);
#define EVERY(DO)                                                                                                                    \
    DO(hchan, HCHAN)                                                                                                                 \
    DO(spsc, SPSC)                                                                                                                   \
    DO(spsc_cached, SPSC_CACHED)                                                                                                     \
    DO(mpsc, MPSC)                                                                                                                   \
    DO(mpmc, MPMC)                                                                                                                   \
    DO(mutex_cond, MUTEX_COND)                                                                                                       \
    DO(pipe, PIPE)                                                                                                                   \
    DO(eventfd, EVENTFD)
#define ROLES(NAME, OF)                                                                                                              \
    static uint64_t send_##NAME(struct nb_thread *t, uint64_t n) { return send_some(t, n, OF); }                                     \
    static uint64_t receive_##NAME(struct nb_thread *t, uint64_t n) { return receive_some(t, n, OF); }                               \
    static uint64_t ask_##NAME(struct nb_thread *t, uint64_t n) { return ask_some(t, n, OF); }                                       \
    static uint64_t answer_##NAME(struct nb_thread *t, uint64_t n) { return answer_some(t, n, OF); }                                 \
    static uint64_t end_##NAME(const struct nb_case *c, struct own *o) { return send_last(c, o, OF); }
EVERY(ROLES)
#define ENTRY(NAME, OF) [OF] = {{{receive_##NAME, send_##NAME}, {answer_##NAME, ask_##NAME}}, end_##NAME},
static const struct {
    some batch[2][2]; /* by pattern and side */
    uint64_t (*end)(const struct nb_case *c, struct own *o);
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
    const struct own *o = own(t->shared, t->index);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    return (struct edge){ns, (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec, (uint64_t)usage.ru_nvcsw, (uint64_t)usage.ru_nivcsw,
                         o->at[THERE].end.wakes + o->at[BACK].end.wakes, t->executed};
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

/* How many it is up to the next look at the clock: 1 to 2n - 1 by chance, n on average. Always the same number would find a ring that is filled and emptied in
 * turn as full as the time before. */
static uint64_t until_next_look(uint64_t *chance, uint64_t n)
{
    *chance = *chance * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX */
    return 1 + (*chance >> 33) % (2 * n - 1);
}

/* So many on average that looks lie batch_ns apart, by what the last ones took. */
static uint64_t between_looks(const struct nb_case *c, uint64_t n, uint64_t took, uint64_t wanted)
{
    const uint64_t usual = took / wanted * n;
    if (usual < c->batch_ns && n < MOST_BETWEEN_LOOKS)
        return n * 2;
    return usual > NB_TOO_LONG * c->batch_ns && n > 1 ? n / 2 : n;
}

static uint64_t least_messages(const struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const uint64_t held = c->parameter[PATTERN] == ROUND_TRIP ? 0 : (uint64_t)c->parameter[CAPACITY];
    return t->index ? 0 : LEAST_MESSAGES + 2 * held;
}

static void deadline(struct own *o, uint64_t ns) { o->at[THERE].end.deadline = o->at[BACK].end.deadline = ns; }

/* What lies between two edges, in value[]. */
static void count(struct nb_thread *t, const struct edge from, const struct edge to)
{
    t->begin_ns = from.ns;
    t->end_ns = to.ns > from.ns ? to.ns : from.ns + 1;
    t->operations = to.messages - from.messages;
    t->value[PARKS] = to.parks - from.parks;
    t->value[WAKES] = to.wakes - from.wakes;
    t->value[CPU_NS] = to.cpu_ns - from.cpu_ns;
}

/* And what lies in the whole entry: since `first`, with the messages by which the last producer lets all consumers go. */
static void finish(struct nb_thread *t, const struct edge first, enum nb_side side)
{
    const struct nb_case *c = t->shared;
    struct own *const o = own(c, t->index);
    if (side == NB_SENDS || c->parameter[PATTERN] == ROUND_TRIP)
        t->value[SENDS] = (t->executed - first.messages) / (uint64_t)c->parameter[AT_ONCE];
    if (side == NB_SENDS && nb_add32(&shared(c)->sending, UINT32_MAX) == 1)
        for (uint32_t i = (uint32_t)c->parameter[PRODUCERS]; i < c->threads; i++)
            t->value[SENDS] += roles[c->parameter[KIND]].end(c, o);
    const struct edge last = edge(t);
    t->value[SWITCHES] = last.parks - first.parks;
    t->value[DRIVEN_OUT] = last.others - first.others;
    for (int way = THERE; way <= BACK; way++) {
        t->value[WAITS] += o->at[way].end.waits;
        t->value[LOST] |= o->at[way].end.lost;
    }
}

/* Messages until the window is over; consumers until their last one. Begin and end of what counts lie between two messages, at a look at the clock. */
static void work(struct nb_thread *t, some batch, enum nb_side side)
{
    const struct nb_case *c = t->shared;
    struct own *const o = own(c, t->index);
    const int timer = interrupt_after(c->warmup_ns + c->window_ns + LIMIT_NS);
    const uint64_t begin = nb_gate(t) + nb_count_warmup(c), end = begin + c->window_ns, at_once = (uint64_t)c->parameter[AT_ONCE];
    const uint64_t least = least_messages(t);
    const struct edge first = edge(t);
    struct edge from = first, to = first;
    int over = 0, more = 1;
    uint64_t n = 1, chance = t->index;
    deadline(o, end + LIMIT_NS);
    t->cpu_begin = sched_getcpu();
    for (uint64_t now = nb_now(), last; more && !(side == NB_SENDS && over);) {
        const uint64_t wanted = until_next_look(&chance, n), done = batch(t, wanted);
        t->executed += done * at_once;
        more = done == wanted;
        last = now;
        now = nb_now();
        if (now >= begin && from.ns == first.ns) {
            from = edge(t);
            o->inside = 1;
            t->run_delay_ns = nb_run_delay(t);
        } else if (o->inside && (!more || (now >= end && t->executed - from.messages >= least + (t->index ? 0 : 4 * n * at_once)))) {
            o->inside = 0;
            over = 1;
            to = edge(t);
            t->cpu_end = sched_getcpu();
            t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
        }
        if (o->inside && side == NB_RECEIVES) {
            t->value[HELD] += held(c);
            t->value[LOOKS]++;
        }
        n = between_looks(c, n, now - last, wanted);
    }
    o->inside = 0;
    if (!over) { /* no look at the clock fell into the window */
        from = to = first;
        t->run_delay_ns = 0;
        t->cpu_end = sched_getcpu();
    }
    count(t, from, to);
    finish(t, first, side);
    if (timer >= 0)
        syscall(SYS_timer_delete, timer);
}

/* Of class SCHED_BATCH, if the thread is of the normal one; whether it was. */
static int leave_others_alone(int from, int to)
{
    const struct sched_param none = {0};
    return sched_getscheduler(0) == from && !sched_setscheduler(0, to, &none);
}

/* -- what can be, and how it begins ------------------------------------------------------------------------------------------------------------------------ */

static int is_power_of_two(int64_t n) { return n > 0 && !(n & (n - 1)); }

static int possible(const struct nb_case *c)
{
    const int64_t kind = c->parameter[KIND], capacity = c->parameter[CAPACITY], element = c->parameter[ELEMENT], producers = c->parameter[PRODUCERS];
    const int64_t at_once = c->parameter[AT_ONCE], consumers = (int64_t)c->threads - producers;
    const int pair = producers == 1 && consumers == 1, answered = c->parameter[PATTERN] == ROUND_TRIP;
    if (producers < 1 || producers > MOST_PRODUCERS || consumers < 1 || (answered && !pair))
        return 0;
    if (element < 8 || element > MOST_ELEMENT || element % 8 || !is_power_of_two(at_once) || element * at_once > MOST_BYTES)
        return 0;
    if (capacity ? !is_power_of_two(capacity) || capacity / at_once < (is_numbered(kind) ? 2 : 1) : kind != HCHAN)
        return 0;
    if (((kind == SPSC || kind == SPSC_CACHED || kind == EVENTFD) && !pair) || (kind == MPSC && consumers != 1))
        return 0;
    if ((kind == MUTEX_COND || kind == PIPE || kind == EVENTFD) && c->parameter[WAIT] != NB_PARKS)
        return 0;
    for (int way = THERE; way <= (kind == EVENTFD || answered ? BACK : THERE); way++)
        if ((kind == PIPE || kind == EVENTFD) && (c->descriptor[out_slot[way]] < 0 || c->descriptor[in_slot[way]] < 0))
            return 0;
    const struct nb_places p = places(c);
    return c->buffer_bytes >= sizeof(struct shared) + c->threads * sizeof(struct own) + channels(c) * p.count * p.stride;
}

static void prepare_channel(const struct nb_case *c, struct channel *ch, struct nb_places p)
{
    struct nb_layout words = {ch->words, c->parameter[PADDING] != PACKED};
    const int64_t kind = c->parameter[KIND];
    if (kind == HCHAN) {
        nb_hchan_lay(&ch->hchan, &words);
        ch->hchan.places = p;
    } else if (kind == MUTEX_COND) {
        nb_guarded_lay(&ch->guarded, &words);
        ch->guarded.places = p;
    } else {
        nb_ring_lay(&ch->ring, &words);
        ch->ring.places = p;
    }
    if (is_numbered(kind))
        nb_number_places(&p);
}

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct own *o = own(c, t->index);
    const uint32_t producers = (uint32_t)c->parameter[PRODUCERS], mine = t->index < producers ? producers : c->threads - producers;
    struct nb_places p = places(c);
    if (!t->index)
        memset(c->buffer, 0, c->buffer_bytes);
    nb_gate(t);
    for (int way = THERE; way <= BACK; way++) {
        struct nb_end *const e = &o->at[way].end;
        e->wait = (uint32_t)c->parameter[WAIT];
        e->alone = mine == 1;
        e->spin_ns = (uint64_t)c->parameter[SPIN];
        e->crowded = c->crowded;
    }
    t->check = t->cursor = 0;
    if (t->index)
        return NB_OK;
    p.first = (uint8_t *)own(c, c->threads);
    for (uint64_t way = 0; way < channels(c); way++, p.first += p.count * p.stride)
        prepare_channel(c, &shared(c)->channel[way], p);
    if (c->parameter[KIND] == EVENTFD && c->parameter[PATTERN] == STREAM)
        for (uint64_t i = 0, one = 1; i < p.count; i++)
            if (write(c->descriptor[out_slot[BACK]], &one, sizeof one) != sizeof one)
                return NB_UNSUPPORTED;
    return NB_OK;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const enum nb_side side = t->index < (uint64_t)c->parameter[PRODUCERS] ? NB_SENDS : NB_RECEIVES;
    struct sigaction action = {.sa_handler = on_interrupt}, before;
    sigset_t interrupt, blocked;
    if (!possible(c))
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    struct own *const o = own(c, t->index);
    for (int way = THERE; way <= BACK; way++) {
        struct nb_end *const e = &o->at[way].end;
        e->waits = e->wakes = e->lost = 0;
    }
    deadline(o, UINT64_MAX);
    memset(t->value, 0, sizeof t->value);
    nb_empty_histogram(t);
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
    work(t, roles[c->parameter[KIND]].batch[c->parameter[PATTERN]][side], side);
    if (batch)
        leave_others_alone(SCHED_BATCH, SCHED_OTHER);
    pthread_sigmask(SIG_SETMASK, &blocked, NULL);
    nb_gate(t);
    if (!t->index)
        sigaction(INTERRUPT, &before, NULL);
    return NB_OK;
}
