/* The life of mapped memory: what it costs to map, touch, protect, give back, move and unmap pages, and what that costs another thread.
 *
 * One thread makes the calls. Only the call is timed: what puts everything back as it was follows it, untimed. The bystander sleeps, or looks at the clock
 * again and again, or has read the pages before each call besides, so that its CPU knows their addresses; or it looks at the clock as a process of its own.
 * Taking rights or pages away makes the kernel interrupt every CPU on which a thread of the process runs, and wait for it.
 *
 * Before each call a bystander that runs says that it is there. What it then loses until the call is over (turns of its loop that took far longer than usual)
 * is what that call has taken from it. Afterwards, some calls are made with the kernel's own count of such interrupts read before and after each: what puts
 * things back interrupts as well, and is not counted. Of those, calls during which the bystander lost its CPU are left out: none of them interrupts it. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_each.h"
#include "nb_interrupts.h"
#include "nb_usage.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#endif

enum { OPERATION, PAGES, BYSTANDER };
enum { MMAP, FAULT, MPROTECT, DONTNEED, FREE, COLD, MUNMAP, MREMAP };
enum { NONE, SLEEPING, SPINNING, READING, PROCESS };
#define MOST_PAGES 512

/* Of value[] of the thread that calls: counted calls, of which so many brought 0, 1, 2 and more interrupts; faults and pages that were found new or as they
 * were, of all calls; calls that came back with an error, and calls before which the bystander did not say that it is there. */
enum { COUNTED = 6, NO_INTERRUPT, ONE_INTERRUPT, TWO_INTERRUPTS, MORE_INTERRUPTS, FAULTS, NEW_PAGES, OLD_PAGES, REFUSED, ABSENT };
/* Of the bystander: times that it slept, turns of its loop in the window, ns of a usual one, ns lost in the window in all, pages read that were as they
 * should be. */
enum { SLEPT = 6, TURNS, TURN_NS, LOST_NS, READ };

static const struct nb_parameter parameters[] = {
    [OPERATION] = {"operation", "mmap|fault|mprotect|dontneed|free|cold|munmap|mremap", "what is done to the pages", DONTNEED, 0, MREMAP},
    [PAGES] = {"pages", NULL, "pages of one call", 1, 1, MOST_PAGES},
    [BYSTANDER] = {"bystander", "none|sleeping|spinning|reading|process", "what another thread does, the last one of another process", SPINNING, 0, PROCESS},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one call, or of touching all pages once", NB_LOWER_IS_BETTER},
    {"time_per_page", "ns", "the same by its pages", NB_LOWER_IS_BETTER},
    {"tlb_interrupts", "per call", "on the bystander's CPU, to make it forget addresses: those of the median call", NB_LOWER_IS_BETTER},
    {"loss", "ns", "of the bystander's time that one call takes", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("address_space", 2, "the life of mapped memory", parameters, metrics);

#define LEAST_LOSS_NS 400       /* more than the usual turn: a line that comes from another package takes less, an interrupt more */
#define LOSS_SCALE_NS 4096      /* what NB_FINE bins of the histogram of losses stand for: 16 ns each up to 8 us, then within 3 % */
#define LEAST_COUNTED 8         /* calls around which interrupts are counted, */
#define MOST_COUNTED 64         /* and tried; for half a window in between */
#define PATIENCE_NS 100000000u  /* for which a bystander may be away before a call: some time slices of a busy CPU */
#define SLEEP_NS 1000000000     /* a wake-up that got lost costs that much and no more */
#define TRIES 64                /* turns of which the shortest is the usual one */

enum { WARMING, WINDOW, COUNTING }; /* what calls are for */
enum { READY = 1, CALLING, UNDOING };
#define STOP UINT64_MAX

/* Between the two, in the scratch memory, of which this page is shared with another process. */
struct words {
    uint64_t turn; /* number of the call, and what is done of it */
    uint32_t purpose, stop;
    uint64_t begin_ns, end_ns;
    int32_t cpu; /* of the bystander */
    uint32_t blind; /* whether mincore tells nothing, as in some sandboxes */
    uint8_t pad0[NB_APART - 40];
    uint64_t ready, away; /* the turn for which the bystander says that it is there; whether it has lost its CPU since */
    uint8_t pad1[NB_APART - 2 * sizeof(uint64_t)];
    struct nb_thread found; /* by the bystander, where it is another process */
};

struct range {
    uint8_t *at, *elsewhere; /* for mremap */
    uint64_t pages, page, bytes;
};

static struct words *words_of(const struct nb_case *c) { return (struct words *)c->scratch; }

/* A page before and a page behind it belong to others: whatever is done to the range, its page tables are theirs as well, and stay. Elsewhere it has the same
 * place among the page tables, in front of it the words. */
static struct range range_of(const struct nb_case *c)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), pages = (uint64_t)c->parameter[PAGES];
    return (struct range){c->buffer + page, c->scratch + page, pages, page, pages * page};
}

static inline volatile uint64_t *page_of(const struct range *r, uint8_t *at, uint64_t i) { return (volatile uint64_t *)(at + i * r->page); }
static inline uint64_t content(uint64_t call, uint64_t i) { return call * MOST_PAGES + i + 1; }

static void touch(const struct range *r, uint64_t call)
{
    for (uint64_t i = 0; i < r->pages; i++)
        *page_of(r, r->at, i) = content(call, i);
}

/* How many pages are new: their second word is zero, which is not so again. */
static uint64_t new_pages(const struct range *r)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < r->pages; i++) {
        volatile uint64_t *word = page_of(r, r->at, i);
        found += !word[1];
        word[1] = 1;
    }
    return found;
}

/* How many hold what the call before left there; `zero`: counts those that hold nothing. */
static uint64_t old_pages(const struct range *r, uint8_t *at, uint64_t call, uint64_t *zero)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < r->pages; i++) {
        const volatile uint64_t *word = page_of(r, at, i);
        const uint64_t first = word[0], second = word[1];
        found += first == content(call, i) && second == 1;
        *zero += !first && !second;
    }
    return found;
}

/* What the kernel says of the range: how many of its pages are there. -1: something of it is not mapped. */
static int64_t resident(const struct range *r)
{
    uint8_t there[MOST_PAGES];
    int64_t found = 0;
    if (mincore(r->at, r->bytes, there))
        return -1;
    for (uint64_t i = 0; i < r->pages; i++)
        found += there[i] & 1;
    return found;
}

static int mapped(const struct range *r, uint64_t i)
{
    uint8_t there;
    return !mincore(r->at + i * r->page, r->page, &there) || errno != ENOMEM;
}

/* The kernel writes the time there, or says that it may not: no signal. */
static int writable(const struct range *r, uint64_t i)
{
    return !syscall(SYS_clock_gettime, CLOCK_MONOTONIC, page_of(r, r->at, i) + 4);
}

static int map(const struct range *r)
{
    return mmap(r->at, r->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (void *)r->at;
}

/* What is timed. Nonzero: it was refused. */
static int perform(const struct range *r, int64_t operation, uint64_t call)
{
    switch (operation) {
    case MMAP:
        return map(r);
    case FAULT:
        touch(r, call);
        return 0;
    case MPROTECT:
        return mprotect(r->at, r->bytes, PROT_READ);
    case DONTNEED:
        return madvise(r->at, r->bytes, MADV_DONTNEED);
    case FREE:
        return madvise(r->at, r->bytes, MADV_FREE);
    case COLD:
        return madvise(r->at, r->bytes, MADV_COLD);
    case MUNMAP:
        return munmap(r->at, r->bytes);
    default:
        return mremap(r->at, r->bytes, r->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, r->elsewhere) != (void *)r->elsewhere;
    }
}

/* Whether the range is now as the operation should leave it. */
static int proven(struct nb_thread *t, const struct range *r, int64_t operation, uint64_t call)
{
    const uint32_t blind = words_of(t->shared)->blind;
    const int64_t there = operation == MUNMAP || operation == MREMAP ? 0 : resident(r);
    uint64_t zero = 0, old = 0, fresh = 0;
    int right;
    switch (operation) {
    case MMAP:
    case DONTNEED:
        return there == 0 || (blind && there > 0);
    case FAULT:
        t->value[NEW_PAGES] += fresh = new_pages(r);
        return fresh == r->pages && there == (int64_t)r->pages;
    case MPROTECT:
        right = !writable(r, 0) && !writable(r, r->pages - 1);
        t->value[OLD_PAGES] += old = old_pages(r, r->at, call - 1, &zero);
        return right && old == r->pages;
    case FREE: /* the kernel takes them when it needs them: until then they are as they were */
        t->value[OLD_PAGES] += old = old_pages(r, r->at, call - 1, &zero);
        return there >= 0 && old + zero == r->pages;
    case COLD:
        t->value[OLD_PAGES] += old = old_pages(r, r->at, call - 1, &zero);
        return there >= 0 && old == r->pages;
    case MUNMAP:
        return !mapped(r, 0) && !mapped(r, r->pages - 1);
    default:
        right = !mapped(r, 0) && !mapped(r, r->pages - 1);
        t->value[OLD_PAGES] += old = old_pages(r, r->elsewhere, call - 1, &zero);
        return right && old == r->pages;
    }
}

/* A new mapping as the old one was: no huge pages, unlike its neighbours in what is copied when a process forks, so that they do not become one. */
static void advise(const struct range *r)
{
    madvise(r->at, r->bytes, MADV_NOHUGEPAGE); /* refused where there are none */
    madvise(r->at, r->bytes, MADV_DONTFORK);
}

/* Everything as it was before the call. Whether it could be, and pages that should be new were. */
static int undone(struct nb_thread *t, const struct range *r, int64_t operation, uint64_t call)
{
    uint64_t fresh;
    switch (operation) {
    case MMAP:
        return !munmap(r->at, r->bytes);
    case FAULT:
        return !madvise(r->at, r->bytes, MADV_DONTNEED);
    case MPROTECT:
        if (mprotect(r->at, r->bytes, PROT_READ | PROT_WRITE))
            return 0;
        touch(r, call);
        return 1;
    case COLD:
        touch(r, call);
        return 1;
    case MREMAP:
        if (mremap(r->elsewhere, r->bytes, r->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, r->at) != (void *)r->at)
            return 0;
        touch(r, call);
        return 1;
    case FREE: /* new pages again: of those that have been marked once, marking costs less */
        if (madvise(r->at, r->bytes, MADV_DONTNEED))
            return 0;
        break;
    case MUNMAP:
        if (map(r))
            return 0;
        advise(r);
        break;
    default:
        break;
    }
    touch(r, call);
    t->value[NEW_PAGES] += fresh = new_pages(r);
    return fresh == r->pages;
}

/* What the range must be like before the first call, and after the last all pages are there again. */
static int arranged(const struct range *r, int64_t operation)
{
    return operation == MMAP ? !munmap(r->at, r->bytes) : operation != FAULT || !madvise(r->at, r->bytes, MADV_DONTNEED);
}

static int restored(const struct range *r, int64_t operation, uint64_t call)
{
    if (operation == MMAP && !map(r))
        advise(r);
    if (!mapped(r, 0))
        return 0;
    touch(r, call);
    new_pages(r);
    return 1;
}

static uint64_t faults(void)
{
    const struct rusage used = nb_usage();
    return (uint64_t)(used.ru_minflt + used.ru_majflt);
}

/* Until the bystander says that it is there. Returns whether it did. */
static int await_bystander(struct nb_thread *t, struct words *w, uint64_t turn)
{
    const uint64_t until = nb_now() + PATIENCE_NS / (1 + t->value[ABSENT]); /* who never comes holds up nobody for long */
    nb_store_release(&w->turn, turn);
    while (nb_load_acquire(&w->ready) != turn) {
        if (nb_now() > until) {
            t->value[ABSENT]++;
            return 0;
        }
        if (t->shared->crowded)
            sched_yield();
    }
    return 1;
}

static uint64_t event(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const struct range r = range_of(c);
    struct words *w = words_of(c);
    const int64_t operation = c->parameter[OPERATION], bystander = c->parameter[BYSTANDER];
    const uint64_t call = ++t->cursor;
    uint64_t before = 0, after = 0, told = 0;
    if (t->begin_ns && w->purpose == WARMING)
        nb_store32_relaxed(&w->purpose, WINDOW);
    if (w->purpose == COUNTING) /* before the bystander says that it is there: reading takes long enough to lose a CPU */
        told = (uint64_t)nb_interrupts(c->descriptor[2], "TLB", w->cpu, &before);
    if (bystander >= SPINNING && !await_bystander(t, w, call << 2 | READY) && bystander == READING) {
        t->cursor--; /* it may be reading at any time: the pages must stay. Nothing was done, and nothing is wrong with it */
        t->check++;
        return 1;
    }
    const uint64_t faults_before = operation == FAULT ? faults() : 0;
    nb_store_release(&w->turn, call << 2 | CALLING);
    nb_drain();
    const uint64_t begin = nb_now();
    const int refused = perform(&r, operation, call);
    const uint64_t took = nb_now() - begin;
    nb_store_release(&w->turn, call << 2 | UNDOING);
    if (operation == FAULT)
        t->value[FAULTS] += faults() - faults_before;
    told = told && nb_interrupts(c->descriptor[2], "TLB", w->cpu, &after);
    if (told && bystander >= SPINNING) /* who has lost its CPU is not interrupted */
        told = await_bystander(t, w, call << 2 | UNDOING) && !w->away;
    if (told) {
        const uint64_t count = after - before;
        t->value[COUNTED]++;
        t->value[NO_INTERRUPT + (count < 3 ? count : 3)]++;
    }
    t->value[REFUSED] += refused != 0;
    const int right = !refused && proven(t, &r, operation, call);
    t->check += undone(t, &r, operation, call) && right;
    return took;
}

/* The bystander that runs. */
static void stay_awake(struct nb_thread *t, struct words *w)
{
    const struct nb_case *c = t->shared;
    const struct range r = range_of(c);
    const int reads = c->parameter[BYSTANDER] == READING;
    uint64_t usual = UINT64_MAX, last, now, turn, seen = 0, lost = 0, zero = 0, switches = 0;
    uint32_t purpose = WARMING;
    int open = 0; /* whether it has said that it is there, and the call is not over yet */
    last = nb_now();
    for (int i = 0; i < TRIES; i++, last = now) {
        (void)nb_load_acquire(&w->turn);
        now = nb_now();
        if (now - last < usual)
            usual = now - last;
    }
    t->value[TURN_NS] = usual;
    for (;;) {
        turn = nb_load_acquire(&w->turn);
        now = nb_now();
        if (now - last > usual + LEAST_LOSS_NS)
            lost += now - last - usual;
        last = now;
        t->value[TURNS] += purpose == WINDOW;
        if (c->crowded)
            sched_yield();
        if (turn == seen)
            continue;
        seen = turn;
        if (open && (turn & 3) != CALLING) {
            open = 0;
            if (purpose == WINDOW) {
                t->histogram[nb_batch_bin(lost, LOSS_SCALE_NS)]++;
                t->value[LOST_NS] += lost;
                t->operations++;
            } else if (purpose == COUNTING) {
                w->away = (uint64_t)nb_usage().ru_nivcsw != switches;
                nb_store_release(&w->ready, turn);
            }
        }
        const uint32_t next = turn == STOP ? COUNTING : nb_load32_relaxed(&w->purpose);
        if (next == WINDOW && purpose == WARMING) {
            t->run_delay_ns = nb_run_delay(t);
            t->cpu_begin = sched_getcpu();
            t->begin_ns = nb_now();
        } else if (next == COUNTING && purpose == WINDOW) {
            t->end_ns = nb_now();
            t->cpu_end = sched_getcpu();
            t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
        }
        purpose = next;
        if (turn == STOP)
            return;
        if ((turn & 3) == READY) {
            if (reads)
                t->value[READ] += old_pages(&r, r.at, (turn >> 2) - 1, &zero);
            t->executed++;
            t->check++;
            switches = (uint64_t)nb_usage().ru_nivcsw;
            lost = 0, open = 1;
            last = nb_now();
            nb_store_release(&w->ready, turn);
        }
    }
}

/* The one that does not. Its window is that of the calls, which it only hears of. */
static void sleep_through(struct nb_thread *t, struct words *w)
{
    const struct timespec most = {SLEEP_NS / 1000000000, SLEEP_NS % 1000000000};
    t->cpu_begin = sched_getcpu();
    while (!nb_load32_acquire(&w->stop))
        syscall(SYS_futex, &w->stop, FUTEX_WAIT_PRIVATE, 0, &most, NULL, 0);
    t->cpu_end = sched_getcpu();
    t->begin_ns = w->begin_ns;
    t->end_ns = w->end_ns;
    t->run_delay_ns = 0;
    t->operations = 1;
    t->executed++;
}

static void be_there(struct nb_thread *t, struct words *w)
{
    const long slept = nb_usage().ru_nvcsw;
    if (t->shared->parameter[BYSTANDER] == SLEEPING)
        sleep_through(t, w);
    else
        stay_awake(t, w);
    t->value[SLEPT] = (uint64_t)(nb_usage().ru_nvcsw - slept);
}

/* The bystander as another process, on the CPU of this thread, which waits for its end: it has no address of what is measured. It ends with this thread,
 * whatever happens. */
static int stand_by_elsewhere(struct nb_thread *t, struct words *w)
{
    w->found.shared = NULL;
    const pid_t own = getpid(), child = fork();
    if (!child) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != own)
            _exit(1);
        t->schedstat = open("/proc/self/schedstat", O_RDONLY | O_CLOEXEC);
        be_there(t, w);
        memcpy(&w->found, t, sizeof *t);
        _exit(0);
    }
    if (child < 0)
        return NB_UNSUPPORTED;
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (w->found.shared != t->shared) /* it has not come to its end */
        return NB_UNSUPPORTED;
    const int32_t schedstat = t->schedstat;
    memcpy(t, &w->found, sizeof *t);
    t->schedstat = schedstat;
    return NB_OK;
}

static int stand_by(struct nb_thread *t)
{
    struct words *w = words_of(t->shared);
    nb_empty_histogram(t);
    memset(t->value, 0, sizeof t->value);
    t->value[NB_BATCH] = 1;
    t->value[NB_USUAL] = LOSS_SCALE_NS;
    t->gaps = 0, t->gap_ns = 0, t->operations = 0, t->executed = 0, t->check = 0;
    w->cpu = sched_getcpu(); /* read by the other one behind the gate */
    nb_gate(t);
    if (t->shared->parameter[BYSTANDER] == PROCESS) /* made while the other one waits for it */
        return stand_by_elsewhere(t, w);
    be_there(t, w);
    return NB_OK;
}

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const struct range r = range_of(c);
    const int64_t operation = c->parameter[OPERATION], bystander = c->parameter[BYSTANDER];
    if (c->threads != (bystander == NONE ? 1u : 2u) || c->buffer_bytes < r.bytes + 2 * r.page || c->scratch_bytes < r.bytes + 2 * r.page)
        return NB_UNSUPPORTED;
    if (bystander == READING && (operation == MMAP || operation == FAULT))
        return NB_UNSUPPORTED; /* there is nothing to read */
    t->check = t->executed = t->cursor = 0;
    if (t->index)
        return NB_OK;
    struct words *w = words_of(c);
    if (bystander == PROCESS) {
        const int kind = MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED;
        if (sizeof *w > r.page || mmap(w, r.page, PROT_READ | PROT_WRITE, kind, -1, 0) != (void *)w)
            return NB_UNSUPPORTED;
    }
    memset(w, 0, offsetof(struct words, found));
    advise(&r); /* a mapping of its own: what is split off a larger one costs more */
    memset(c->buffer, 0, c->buffer_bytes);
    touch(&r, 0);
    new_pages(&r);
    if (madvise(r.at, r.bytes, MADV_DONTNEED))
        return NB_UNSUPPORTED;
    w->blind = resident(&r) != 0;
    touch(&r, 0);
    new_pages(&r);
    /* Once, for what this kernel does not know (MADV_COLD before Linux 5.4). */
    if (!arranged(&r, operation) || perform(&r, operation, ++t->cursor))
        return NB_UNSUPPORTED;
    (void)undone(t, &r, operation, t->cursor); /* what it finds is looked at when it counts */
    return restored(&r, operation, t->cursor) ? NB_OK : NB_UNSUPPORTED;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    if (t->index)
        return stand_by(t);
    const struct range r = range_of(c);
    const int64_t operation = c->parameter[OPERATION];
    struct words *w = words_of(c);
    w->turn = w->ready = 0; /* the bystander looks behind the gate */
    w->purpose = WARMING, w->stop = 0;
    memset(t->value, 0, sizeof t->value);
    t->begin_ns = t->executed = t->check = 0;
    int failed = !arranged(&r, operation);
    nb_each(t, event);
    nb_store32_relaxed(&w->purpose, COUNTING);
    if (c->parameter[BYSTANDER] != NONE) {
        const uint64_t until = nb_now() + c->window_ns / 2;
        uint64_t count = 0;
        int told = nb_interrupts(c->descriptor[2], "TLB", w->cpu, &count);
        for (int i = 0; told && i < MOST_COUNTED && (t->value[COUNTED] < LEAST_COUNTED || nb_now() < until); i++) {
            event(t);
            t->executed++;
        }
        w->begin_ns = t->begin_ns, w->end_ns = t->end_ns;
        nb_store_release(&w->turn, STOP);
        nb_store32_release(&w->stop, 1);
        syscall(SYS_futex, &w->stop, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
    failed |= !restored(&r, operation, t->cursor);
    return failed ? NB_UNSUPPORTED : NB_OK;
}
