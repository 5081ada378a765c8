/* What it costs when a program serves its own page faults, as garbage collectors, emulators and restored snapshots do.
 *
 * Thread 0 touches the pages of the scratch memory one by one; an event is as many touches as pages are served for one fault, and ends when the last word is there. When all have been touched
 * they are taken away again, which is not counted. Who serves a fault writes the page's number into each, so that a page that the kernel filled instead shows; and the faults that were served
 * are counted, one for each event. */
#include "nb.h"
#include "nb_each.h"
#include <errno.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

enum { METHOD, BATCH };
enum { KERNEL, PROTECT, SIGBUS_COPY, COPY_AHEAD, HANDLER, HANDLER_SPINS };
enum { SERVED = 6, EVENTS }; /* of value[], with the warm-up: faults that were served in this entry, and events */

#define FAULTS_SLOT 0 /* of descriptor[]: a userfaultfd that does not block */
#define PAGE 4096u
#define MOST_BATCH 64
#define PATIENCE_MS 10 /* for which a handler sleeps before it looks whether it is still needed */

static const struct nb_parameter parameters[] = {
    [METHOD] = {"method", "kernel|protect|sigbus|copy_ahead|handler|handler_spins", "who serves a fault, and how", KERNEL, 0, HANDLER_SPINS},
    [BATCH] = {"batch", NULL, "pages that are served for one fault", 1, 1, MOST_BATCH},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one touch of a page that is not there, until its word is; of a batch its share", NB_LOWER_IS_BETTER},
    {"p99", "ns", "that 99 of 100 faults do not exceed, each with all pages of its batch", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("user_faults", 3, "page faults that a program serves itself", parameters, metrics);

/* What handlers need, which get nothing but an address; one case at a time is measured in a process. In the buffer's first page: the word by which a handler's thread ends; behind it the pages
 * that are copied. */
static struct {
    const struct nb_case *shared;
    volatile uint64_t served;
} here;

static uint64_t pages_of(const struct nb_case *c) { return c->scratch_bytes / PAGE; }
static uint64_t number_of(uint64_t page) { return page * 2 + 1; } /* never 0, which the kernel writes */
static uint64_t batch_of(const struct nb_case *c) { return (uint64_t)c->parameter[BATCH]; }
static uint64_t *word_of(const struct nb_case *c, uint64_t page) { return (uint64_t *)(c->scratch + page * PAGE); }

/* The pages from `address` on get their numbers. */
static int fill(const struct nb_case *c, uint64_t address)
{
    const uint64_t page = (address - (uint64_t)c->scratch) / PAGE;
    uint8_t *const source = c->buffer + PAGE;
    for (uint64_t i = 0; i < batch_of(c); i++)
        *(uint64_t *)(source + i * PAGE) = number_of(page + i);
    struct uffdio_copy copy = {.dst = (uint64_t)word_of(c, page), .src = (uint64_t)source, .len = batch_of(c) * PAGE};
    return ioctl(c->descriptor[FAULTS_SLOT], UFFDIO_COPY, &copy);
}

static void on_bus(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    here.served++;
    fill(here.shared, (uint64_t)info->si_addr);
}

static void on_segment(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    const uint64_t page = ((uint64_t)info->si_addr - (uint64_t)here.shared->scratch) / PAGE;
    here.served++;
    mprotect(word_of(here.shared, page), batch_of(here.shared) * PAGE, PROT_READ | PROT_WRITE);
}

/* All pages are gone again, or forbidden. */
static void take_away(const struct nb_case *c)
{
    const uint64_t bytes = pages_of(c) * PAGE;
    if (c->parameter[METHOD] == PROTECT)
        mprotect(c->scratch, bytes, PROT_NONE);
    else
        madvise(c->scratch, bytes, MADV_DONTNEED);
}

static uint64_t touch(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t method = c->parameter[METHOD];
    const uint64_t first = t->cursor, end = first + batch_of(c);
    uint64_t right = 0;
    if (!first)
        take_away(c);
    t->cursor = end < pages_of(c) ? end : 0;
    const uint64_t before = nb_now();
    if (method == COPY_AHEAD)
        here.served += !fill(c, (uint64_t)word_of(c, first));
    for (uint64_t page = first; page < end; page++) {
        volatile uint64_t *const word = word_of(c, page);
        word[1] = page; /* written: for a read the kernel would show its page of zeros and find another one later */
        right += *word == (method == KERNEL ? 0 : number_of(page));
    }
    const uint64_t took = nb_now() - before;
    t->check += right;
    return took;
}

/* Thread 1: serves faults until one comes for which it is told that it is the last. */
static void serve(struct nb_thread *t, int spins)
{
    const struct nb_case *c = t->shared;
    const int faults = c->descriptor[FAULTS_SLOT];
    uint64_t *const stop = (uint64_t *)c->buffer;
    struct uffd_msg message;
    while (!nb_load_acquire(stop)) {
        if (!spins) {
            struct pollfd wait = {faults, POLLIN, 0};
            poll(&wait, 1, PATIENCE_MS);
        }
        if (read(faults, &message, sizeof message) != sizeof message || message.event != UFFD_EVENT_PAGEFAULT)
            continue;
        here.served++;
        fill(c, message.arg.pagefault.address);
    }
}

static int take_over(const struct nb_case *c)
{
    const int faults = c->descriptor[FAULTS_SLOT];
    const int64_t method = c->parameter[METHOD];
    struct uffdio_api api = {.api = UFFD_API, .features = method == SIGBUS_COPY ? UFFD_FEATURE_SIGBUS : 0};
    struct uffdio_register range = {.range = {(uint64_t)c->scratch, pages_of(c) * PAGE}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    return ioctl(faults, UFFDIO_API, &api) || ioctl(faults, UFFDIO_REGISTER, &range);
}

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t method = c->parameter[METHOD];
    const int asks = method == SIGBUS_COPY || method == COPY_AHEAD || method == HANDLER || method == HANDLER_SPINS;
    const uint32_t threads = method == HANDLER || method == HANDLER_SPINS ? 2 : 1;
    if (c->threads != threads || !pages_of(c) || pages_of(c) % batch_of(c) || c->buffer_bytes < (1 + batch_of(c)) * PAGE || ((uint64_t)c->scratch | (uint64_t)c->buffer) % PAGE)
        return NB_UNSUPPORTED;
    if (asks && c->descriptor[FAULTS_SLOT] < 0)
        return NB_UNSUPPORTED;
    if (t->index)
        return NB_OK;
    memset(c->buffer, 0, (1 + batch_of(c)) * PAGE);
    for (uint64_t page = 0; page < pages_of(c); page++)
        *word_of(c, page) = number_of(page);
    t->check = t->cursor = 0;
    return asks && take_over(c) ? NB_UNSUPPORTED : NB_OK;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t method = c->parameter[METHOD];
    uint64_t *const stop = (uint64_t *)c->buffer;
    struct sigaction action = {.sa_flags = SA_SIGINFO}, before;
    const int number = method == PROTECT ? SIGSEGV : SIGBUS, catches = method == PROTECT || method == SIGBUS_COPY;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    if (t->index) { /* the handler's thread */
        nb_gate(t);
        t->begin_ns = nb_now();
        t->cpu_begin = sched_getcpu();
        t->run_delay_ns = nb_run_delay(t);
        serve(t, method == HANDLER_SPINS);
        t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
        t->cpu_end = sched_getcpu();
        t->end_ns = nb_now();
        nb_gate(t);
        t->operations = t->executed = 0;
        return NB_OK;
    }
    here.shared = c;
    here.served = 0;
    nb_store_relaxed(stop, 0);
    action.sa_sigaction = method == PROTECT ? on_segment : on_bus;
    if (catches)
        sigaction(number, &action, &before);
    const uint64_t executed = t->executed;
    t->cursor = 0;
    nb_each(t, touch);
    nb_store_release(stop, 1);
    if (c->threads > 1)
        nb_gate(t);
    if (catches)
        sigaction(number, &before, NULL);
    if (method == PROTECT)
        mprotect(c->scratch, pages_of(c) * PAGE, PROT_READ | PROT_WRITE);
    t->value[SERVED] = here.served;
    t->value[EVENTS] = t->executed - executed;
    return NB_OK;
}
