/* What a switch between tasks costs: between stacks in user space, and between threads.
 *
 * Fibers stand in a ring. At its turn each adds one to a word in each of some lines of its own stack, and switches to the next one. The thread enters the ring
 * once in a batch and is entered from it, which are switches as well: each is counted by who leaves. Stacks are a line more than pages apart, so that they use all
 * sets of a cache. Before anything is measured each fiber switches once with numbers in the registers that a switch must save, and with a rounding of its own:
 * whether they came back says what kind of switch it was.
 *
 * Two threads hand a turn to and fro by futex, and sleep until they have it. On one CPU neither can run before the other has given it away. On two, each would be
 * back before the other sleeps, and neither ever did: who wakes waits until there is somebody to wake, and how often each gave its CPU away is counted. */
#include "nb.h"
#include "nb_fibers.h"
#include "nb_usage.h"
#include "nb_window.h"
#include <linux/futex.h>
#include <signal.h>
#ifdef __GLIBC__
#include <ucontext.h>
#endif

/* The thread sanitizer keeps one stack of calls for each thread, and fibers never return: their choices are left out there. The address sanitizer looks at
 * addresses alone, which are in the measured memory whoever's stack they are; what a fiber has on its own stack it must not surround with more. */
#ifdef NB_SANITIZED
#define CAN_SWITCH 0
#else
#define CAN_SWITCH 1
#endif
#define ON_ITS_STACK __attribute__((noinline, no_sanitize("address")))
#define INLINE static inline __attribute__((always_inline, no_sanitize("address")))

enum { SWITCH, FIBERS, LINES, STACK };
enum { OWN, OWN_FP, SWAPCONTEXT, THREAD_SAME_CPU, THREAD_OTHER };
/* Of value[]: how often the thread entered the ring; the fewest and the most turns of a fiber; words counted in lines; fibers that count on their own stack,
 * that found their registers as they left them, and their rounding, of how many that looked at it. */
enum { ENTERED = 6, FEWEST, MOST, COUNTED, AT_HOME, REGISTERS, ROUNDING, LOOKED };
/* Of two threads, in this entry: turns, how often it gave its CPU away, and how often it woke one that waited. */
enum { TURNS = 6, SWITCHES, WOKEN };

#define MOST_LINES 16
#define FRAMES 1024      /* bytes of a stack for calls */
#define RING_BYTES 4096  /* in front of the stacks */
#define DEAF_NS 100000000 /* after which who waits for its turn looks again */
#define APART_NS 20000    /* between two tries to wake a thread that is not asleep: in less it would be woken before it had given its CPU away */

static const struct nb_parameter parameters[] = {
    [SWITCH] = {"switch", "own|own_fp|swapcontext|thread_same_cpu|thread_other", "how the next one is switched to", SWAPCONTEXT, 0, THREAD_OTHER},
    [FIBERS] = {"fibers", NULL, "tasks that take turns; threads are always two", 2, 2, 1 << 20},
    [LINES] = {"lines", NULL, "lines of its own stack that a fiber writes at its turn; threads write one line", 1, 1, MOST_LINES},
    [STACK] = {"stack_bytes", NULL, "of a fiber", 8192, 4096, 1 << 16},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one switch, with the turn between two of them", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("fibers", 2, "the price of a switch between tasks", parameters, metrics);

/* -- fibers ---------------------------------------------------------------------------------------------------------------------------- */

struct fiber { /* above its stack */
    uint64_t sp;
    struct fiber *next;
    struct ring *ring;
    uint64_t *line;
#ifdef __GLIBC__
    ucontext_t context;
#endif
};

struct ring {
    uint64_t left; /* turns until the thread is switched to */
    struct fiber *next;
    uint64_t lines, entered, registers, rounding, looked;
    uint64_t words; /* of control, as the thread has them */
    struct fiber thread;
};
_Static_assert(sizeof(struct ring) <= 2 * RING_BYTES, "the ring has room");

#define RING_ROOM ((sizeof(struct ring) + RING_BYTES - 1) / RING_BYTES * RING_BYTES)
#define WORDS (NB_LINE / sizeof(uint64_t))
#define HEAD ((sizeof(struct fiber) + NB_LINE - 1) / NB_LINE * NB_LINE)

static struct ring *ring_of(const struct nb_case *c) { return (struct ring *)c->buffer; }

static uint8_t *stack_of(const struct nb_case *c, uint64_t number)
{
    return c->buffer + RING_ROOM + number * ((uint64_t)c->parameter[STACK] + NB_LINE);
}

static struct fiber *fiber_of(const struct nb_case *c, uint64_t number)
{
    return (struct fiber *)(stack_of(c, number) + c->parameter[STACK] - HEAD);
}

/* From one to another; whether its registers came back, where that is asked. */
INLINE int change(struct fiber *from, struct fiber *to, int how, int look)
{
#ifdef NB_OWN_FIBERS
    if (how == OWN) {
        if (look)
            return nb_fiber_keep(&from->sp, to->sp, nb_fiber_switch);
        nb_fiber_switch(&from->sp, to->sp);
    }
#endif
#ifdef NB_OWN_FIBERS_FP
    if (how == OWN_FP) {
        if (look)
            return nb_fiber_keep(&from->sp, to->sp, nb_fiber_switch_fp);
        nb_fiber_switch_fp(&from->sp, to->sp);
    }
#endif
#ifdef __GLIBC__
    if (how == SWAPCONTEXT)
        swapcontext(&from->context, &to->context);
#endif
    (void)from, (void)to, (void)how, (void)look;
    return 0;
}

/* The next one's turn, or the thread's where the batch is over. */
INLINE int leave(struct fiber *own, int how, int look)
{
    struct ring *ring = own->ring;
    struct fiber *next = own->next;
    if (!--ring->left) {
        ring->next = next;
        next = &ring->thread;
    }
    return change(own, next, how, look);
}

/* Two turns before the first that counts. Who comes before has put the rounding back as it was: if this one's own is there, the switch brought it along. */
INLINE void rehearse(struct fiber *own, int how)
{
    struct ring *ring = own->ring;
#ifdef NB_OWN_FIBERS_FP
    nb_set_control_words(ring->words | NB_TOWARD_ZERO);
    ring->registers += (uint64_t)leave(own, how, 1);
    ring->rounding += nb_control_words() == (ring->words | NB_TOWARD_ZERO);
    ring->looked++;
    nb_set_control_words(ring->words);
#else
    ring->registers += (uint64_t)leave(own, how, 1);
#endif
    leave(own, how, 0);
}

#define LIFE(NAME, HOW)                                                                                                              \
    ON_ITS_STACK static void live_##NAME(void *at)                                                                                   \
    {                                                                                                                                \
        struct fiber *own = at;                                                                                                      \
        const uint64_t lines = own->ring->lines;                                                                                     \
        uint64_t *line = (uint64_t *)(((uintptr_t)__builtin_alloca((lines + 1) * NB_LINE) + NB_LINE - 1) & ~(uintptr_t)(NB_LINE - 1)); \
        for (uint64_t k = 0; k < lines; k++)                                                                                         \
            line[k * WORDS] = 0;                                                                                                     \
        own->line = line;                                                                                                            \
        rehearse(own, HOW);                                                                                                          \
        for (;;) {                                                                                                                   \
            line[0]++;                                                                                                               \
            for (uint64_t k = 1; k < lines; k++)                                                                                     \
                line[k * WORDS]++;                                                                                                   \
            leave(own, HOW, 0);                                                                                                      \
        }                                                                                                                            \
    }                                                                                                                                \
    static void enter_##NAME(struct ring *ring, uint64_t turns)                                                                      \
    {                                                                                                                                \
        ring->left = turns;                                                                                                          \
        change(&ring->thread, ring->next, HOW, 0);                                                                                   \
    }                                                                                                                                \
    static void switch_##NAME(struct nb_thread *t, uint64_t n)                                                                       \
    {                                                                                                                                \
        ring_of(t->shared)->entered++;                                                                                               \
        enter_##NAME(ring_of(t->shared), n - 1); /* and the one to here */                                                          \
    }
LIFE(own, OWN)
LIFE(own_fp, OWN_FP)
LIFE(swapcontext, SWAPCONTEXT)

static void (*const lives[])(void *) = {live_own, live_own_fp, live_swapcontext};
static void (*const enters[])(struct ring *, uint64_t) = {enter_own, enter_own_fp, enter_swapcontext};
static const nb_batch batches[] = {switch_own, switch_own_fp, switch_swapcontext};

static int can_switch(int64_t how)
{
    if (!CAN_SWITCH)
        return 0;
#ifdef __GLIBC__
    if (how == SWAPCONTEXT)
        return 1;
#endif
#ifdef NB_OWN_FIBERS_FP
    if (how == OWN_FP)
        return !nb_shadow_stack();
#endif
#ifdef NB_OWN_FIBERS
    if (how == OWN)
        return !nb_shadow_stack();
#endif
    return 0;
}

#ifdef __GLIBC__
static void begin_context(uint32_t high, uint32_t low)
{
    live_swapcontext((void *)(uintptr_t)((uint64_t)high << 32 | low));
}
#endif

static void start(const struct nb_case *c, struct fiber *own, uint8_t *stack)
{
    const int64_t how = c->parameter[SWITCH];
#ifdef __GLIBC__
    if (how == SWAPCONTEXT) {
        const uint64_t at = (uint64_t)(uintptr_t)own;
        getcontext(&own->context);
        own->context.uc_stack.ss_sp = stack;
        own->context.uc_stack.ss_size = (size_t)((uint8_t *)own - stack);
        own->context.uc_link = NULL;
        makecontext(&own->context, (void (*)(void))begin_context, 2, (uint32_t)(at >> 32), (uint32_t)at);
        return;
    }
#endif
#ifdef NB_OWN_FIBERS
    own->sp = nb_fiber_start((uint8_t *)own, lives[how], own, how == OWN_FP);
#else
    (void)stack, (void)lives;
#endif
}

static void prepare(const struct nb_case *c)
{
    struct ring *ring = ring_of(c);
    const uint64_t count = (uint64_t)c->parameter[FIBERS];
    void (*const enter)(struct ring *, uint64_t) = enters[c->parameter[SWITCH]];
    memset(c->buffer, 0, c->buffer_bytes); /* what was never touched is on no node */
    ring->lines = (uint64_t)c->parameter[LINES];
    ring->next = fiber_of(c, 0);
#ifdef NB_OWN_FIBERS_FP
    ring->words = nb_control_words();
#endif
    for (uint64_t i = 0; i < count; i++) {
        struct fiber *own = fiber_of(c, i);
        own->ring = ring;
        own->next = fiber_of(c, (i + 1) % count);
        start(c, own, stack_of(c, i));
    }
#ifdef NB_OWN_FIBERS_FP
    enter(ring, count);
    nb_set_control_words(ring->words); /* the last fiber's are here now, unless the switch takes them along */
    enter(ring, count);
    nb_set_control_words(ring->words);
#else
    enter(ring, count);
    enter(ring, count);
#endif
}

static void count_turns(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const struct ring *ring = ring_of(c);
    t->check = t->value[COUNTED] = t->value[AT_HOME] = t->value[MOST] = 0;
    t->value[FEWEST] = UINT64_MAX;
    for (uint64_t i = 0; i < (uint64_t)c->parameter[FIBERS]; i++) {
        const struct fiber *own = fiber_of(c, i);
        const uint8_t *at = (const uint8_t *)own->line;
        const uint64_t turns = at ? own->line[0] : 0; /* nowhere: it was never switched to */
        t->check += turns;
        if (turns < t->value[FEWEST])
            t->value[FEWEST] = turns;
        if (turns > t->value[MOST])
            t->value[MOST] = turns;
        for (uint64_t k = 0; at && k < ring->lines; k++)
            t->value[COUNTED] += own->line[k * WORDS];
        t->value[AT_HOME] += at >= stack_of(c, i) && at < (const uint8_t *)own;
    }
    t->value[ENTERED] = ring->entered;
    t->value[REGISTERS] = ring->registers;
    t->value[ROUNDING] = ring->rounding;
    t->value[LOOKED] = ring->looked;
}

static int run_fibers(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t how = c->parameter[SWITCH], stack = c->parameter[STACK];
    sigset_t all, before;
    if (c->threads != 1 || !can_switch(how) || stack % NB_LINE || (uint64_t)stack < HEAD + ((uint64_t)c->parameter[LINES] + 1) * NB_LINE + FRAMES)
        return NB_UNSUPPORTED;
    if (c->buffer_bytes < (uint64_t)(stack_of(c, (uint64_t)c->parameter[FIBERS]) - c->buffer))
        return NB_UNSUPPORTED;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* a handler's frame has no room on these stacks */
    if (c->phase == NB_PREPARE) {
        prepare(c);
        t->check = 0;
    } else {
        nb_window(t, batches[how]);
        count_turns(t);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return NB_OK;
}

/* -- threads --------------------------------------------------------------------------------------------------------------------------- */

enum { FIRST, SECOND };

struct pair {
    uint32_t turn; /* whose it is: a futex */
    uint8_t pad0[NB_APART - sizeof(uint32_t)];
    uint64_t begin_ns, end_ns; /* of the first one's window */
    uint32_t over;
    uint8_t pad1[NB_APART - 2 * sizeof(uint64_t) - sizeof(uint32_t)];
    struct {
        uint64_t turns, woken;
        uint8_t pad[NB_APART - 2 * sizeof(uint64_t)];
    } task[2];
    struct {
        uint32_t word; /* 0 */
        uint8_t pad[NB_APART - sizeof(uint32_t)];
    } bed[2];
};

static struct pair *pair_of(const struct nb_case *c) { return (struct pair *)c->buffer; }

static long futex(uint32_t *word, int what, uint32_t value, const struct timespec *until)
{
    return syscall(SYS_futex, word, what, value, until, NULL, 0);
}

static void give(struct pair *p, uint32_t to)
{
    nb_store32_release(&p->turn, to);
    p->task[!to].woken += futex(&p->turn, FUTEX_WAKE_PRIVATE, 1, NULL) == 1;
}

static void await(struct pair *p, uint32_t own)
{
    const struct timespec deaf = {0, DEAF_NS};
    while (nb_load32_acquire(&p->turn) != own)
        futex(&p->turn, FUTEX_WAIT_PRIVATE, !own, &deaf);
}

/* Of threads on two CPUs: to one that sleeps, on a word that stays as it is. Should it have its turn already, woken by nobody, there is no need to. */
static void give_asleep(struct pair *p, uint32_t to)
{
    nb_store32_release(&p->turn, to);
    while (nb_load32_acquire(&p->turn) == to) {
        if (futex(&p->bed[to].word, FUTEX_WAKE_PRIVATE, 1, NULL) == 1) {
            p->task[!to].woken++;
            break;
        }
        for (const uint64_t until = nb_now() + APART_NS; nb_now() < until;)
            nb_relax();
    }
}

static void await_asleep(struct pair *p, uint32_t own)
{
    const struct timespec deaf = {0, DEAF_NS};
    do
        futex(&p->bed[own].word, FUTEX_WAIT_PRIVATE, 0, &deaf);
    while (nb_load32_acquire(&p->turn) != own);
}

static void hand_over(struct nb_thread *t, uint64_t n)
{
    struct pair *p = pair_of(t->shared);
    for (; n; n -= 2) {
        p->task[FIRST].turns++;
        give(p, SECOND);
        await(p, FIRST);
    }
}

static void hand_over_asleep(struct nb_thread *t, uint64_t n)
{
    struct pair *p = pair_of(t->shared);
    for (; n; n -= 2) {
        p->task[FIRST].turns++;
        give_asleep(p, SECOND);
        await_asleep(p, FIRST);
    }
}

/* How often the calling thread gave its CPU away, by itself or not. */
static uint64_t switches_of_thread(void)
{
    const struct rusage usage = nb_usage();
    return (uint64_t)usage.ru_nvcsw + (uint64_t)usage.ru_nivcsw;
}

static void answer(struct nb_thread *t)
{
    struct pair *p = pair_of(t->shared);
    const int asleep = t->shared->parameter[SWITCH] == THREAD_OTHER;
    nb_gate(t);
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    for (;;) {
        (asleep ? await_asleep : await)(p, SECOND);
        if (p->over) {
            nb_store32_release(&p->turn, FIRST); /* it is awake: nobody need wake it */
            break;
        }
        p->task[SECOND].turns++;
        (asleep ? give_asleep : give)(p, FIRST);
    }
    t->cpu_end = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->begin_ns = p->begin_ns; /* it has worked for as long as the other */
    t->end_ns = p->end_ns;
    t->gaps = 0;
    t->gap_ns = 0; /* its waits are the switch that is measured */
}

static int run_threads(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct pair *p = pair_of(c);
    if (c->threads != 2 || c->buffer_bytes < sizeof *p)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        if (t->index == FIRST)
            memset(c->buffer, 0, c->buffer_bytes);
        t->check = 0;
        return NB_OK;
    }
    const uint64_t switches = switches_of_thread(), turns = p->task[t->index].turns, woken = p->task[t->index].woken;
    const int asleep = c->parameter[SWITCH] == THREAD_OTHER;
    if (t->index == FIRST) {
        p->turn = FIRST;
        p->over = 0;
        nb_window(t, asleep ? hand_over_asleep : hand_over);
        p->begin_ns = t->begin_ns;
        p->end_ns = t->end_ns;
        p->over = 1;
        t->value[WOKEN] = p->task[FIRST].woken - woken;
        (asleep ? give_asleep : give)(p, SECOND);
    } else {
        answer(t);
        t->executed = p->task[SECOND].turns;
        t->operations = p->task[SECOND].turns - turns;
        t->value[WOKEN] = p->task[SECOND].woken - woken;
    }
    t->check = p->task[t->index].turns;
    t->value[TURNS] = p->task[t->index].turns - turns;
    t->value[SWITCHES] = switches_of_thread() - switches;
    return NB_OK;
}

int nb_run(struct nb_thread *t)
{
    return t->shared->parameter[SWITCH] < THREAD_SAME_CPU ? run_fibers(t) : run_threads(t);
}
