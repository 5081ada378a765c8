/* The life of mapped memory: what it costs to map, touch, protect, give back, move, join, split and unmap pages, and what that costs other threads.
 *
 * One thread makes the calls. Only the call is timed: what puts everything back as it was follows it, untimed (nb_range.h). The bystanders sleep, or look at the clock
 * again and again, or have read the pages before each call besides, so that their CPUs know the addresses; or they look at the clock as processes of their own (nb_bystander.h).
 * Taking rights or pages away makes the kernel interrupt every CPU on which a thread of the process runs, and wait for it.
 *
 * Afterwards, some calls are made with the kernel's own count of such interrupts read before and after each: what puts
 * things back interrupts as well, and is not counted. Of those, calls during which a bystander lost its CPU are left out: none of them interrupts it. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_each.h"
#include "nb_interrupts.h"

enum { OPERATION, PAGES, PAGE_SIZE, BYSTANDER };
#include "nb_bystander.h"
#include "nb_range.h"

/* Of value[] of the thread that calls: counted calls; of these so many that brought each bystander's CPU no interrupt, one, two, and all others; interrupts of the counted calls in
 * all; faults of all calls; calls before or after which pages were small that should be huge; calls that came back with an error, and calls before which a bystander did not say that it
 * is there. */
enum { COUNTED = 6, NO_INTERRUPT, ONE_EACH, TWO_EACH, OTHERWISE, INTERRUPTS, FAULTS, SMALL, REFUSED, ABSENT };

#define INTERRUPTS_SLOT 2 /* of descriptor[]: /proc/interrupts */
#define SMAPS_SLOT 7      /* /proc/self/smaps, for huge pages alone */

static const struct nb_parameter parameters[] = {
    [OPERATION] = {"operation", "mmap|fault|mprotect|dontneed|free|cold|munmap|mremap|copy|collapse|split", "what is done to the pages", DONTNEED, 0, SPLIT},
    [PAGES] = {"pages", NULL, "pages of one call", 1, 1, MOST_PAGES},
    [PAGE_SIZE] = {"page_size", "4k|thp", "base pages, or transparent huge ones", 0, 0, 1},
    [BYSTANDER] = {"bystander", "none|sleeping|spinning|reading|process", "what the other threads do, the last ones of other processes", SPINNING, 0, PROCESS},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one call; of touching or copying all pages once, or of splitting all", NB_LOWER_IS_BETTER},
    {"time_per_page", "ns", "the same by its pages", NB_LOWER_IS_BETTER},
    {"tlb_interrupts", "per call", "on the bystanders' CPUs in all, to make them forget addresses: those of the usual call|0 none, or by broadcast|1 one|2 two", NB_LOWER_IS_BETTER},
    {"loss", "ns", "of a bystander's time that one call takes", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("address_space", 3, "the life of mapped memory", parameters, metrics);

#define LEAST_COUNTED 8 /* calls around which interrupts are counted, */
#define MOST_COUNTED 64 /* and tried; for half a window in between */

static struct nb_cpus cpus; /* of the bystanders */

/* A page before it and one behind it belong to others: whatever is done to the range, its page tables are theirs as well, and stay; huge ones have page tables of their own, which do not. Elsewhere it has the
 * same place among the page tables, in front of it the words, behind it the seats. */
static struct range range_of(const struct nb_case *c)
{
    const uint64_t base = (uint64_t)sysconf(_SC_PAGESIZE), pages = (uint64_t)c->parameter[PAGES];
    const int64_t operation = c->parameter[OPERATION];
    const int huge = c->parameter[PAGE_SIZE] != 0;
    const uint64_t unit = huge ? HUGE : base, step = operation == COLLAPSE || operation == SPLIT ? base : unit;
    return (struct range){
        .at = c->buffer + unit,
        .elsewhere = c->scratch + unit,
        .pages = pages,
        .unit = unit,
        .words = pages * unit / step,
        .step = step,
        .bytes = pages * unit,
        .base = base,
        .huge = huge,
        .file = huge ? c->descriptor[SMAPS_SLOT] : -1,
    };
}

static void count_interrupts(struct nb_thread *t, uint64_t count)
{
    const uint64_t each = t->shared->threads - 1;
    t->value[COUNTED]++;
    t->value[INTERRUPTS] += count;
    t->value[!count ? NO_INTERRUPT : count == each ? ONE_EACH : count == 2 * each ? TWO_EACH : OTHERWISE]++;
}

static uint64_t event(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const struct range r = range_of(c);
    struct words *w = words_of(c);
    const int64_t operation = c->parameter[OPERATION], bystander = c->parameter[BYSTANDER];
    const uint64_t call = ++t->cursor;
    uint64_t before = 0, after = 0;
    int told = 0, small = !right_size(&r, operation);
    if (t->begin_ns && w->purpose == WARMING)
        nb_store32_relaxed(&w->purpose, WINDOW);
    if (w->purpose == COUNTING) /* before the bystanders say that they are there: reading takes long enough to lose a CPU */
        told = nb_interrupts(c->descriptor[INTERRUPTS_SLOT], "TLB", &cpus, &before);
    if (bystander >= SPINNING && !await_all(c, &r, call << 2 | READY, &t->value[ABSENT]) && bystander == READING) {
        t->cursor--; /* they may be reading at any time: the pages must stay. Nothing was done, and nothing is wrong with it */
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
    told = told && nb_interrupts(c->descriptor[INTERRUPTS_SLOT], "TLB", &cpus, &after);
    if (told && bystander >= SPINNING)
        told = await_all(c, &r, call << 2 | UNDOING, &t->value[ABSENT]) && !any_away(c, &r);
    if (told)
        count_interrupts(t, after - before);
    t->value[REFUSED] += refused != 0;
    const int right = !refused && proven(&r, operation, call, (int)w->blind, &small);
    t->value[SMALL] += (uint64_t)small;
    t->check += undone(&r, operation, call) && right;
    return took;
}

/* Memory that is nobody's yet: of a case before there may be holes. */
static int renew(uint8_t *at, uint64_t bytes, int kind)
{
    return mmap(at, bytes, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (void *)at;
}

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const struct range r = range_of(c);
    const int64_t operation = c->parameter[OPERATION], bystander = c->parameter[BYSTANDER];
    const uint64_t others = c->threads - 1, seats = (others ? others : 1) * r.base; /* the page behind what is elsewhere is there in any case */
    const int kind = bystander == PROCESS ? MAP_SHARED : MAP_PRIVATE;
    int small = 0;
    if ((bystander == NONE) != (others == 0) || c->buffer_bytes < r.bytes + 2 * r.unit || c->scratch_bytes < r.unit + r.bytes + seats)
        return NB_UNSUPPORTED;
    if (bystander == READING && (operation == MMAP || operation == FAULT))
        return NB_UNSUPPORTED; /* there is nothing to read */
    if (r.huge ? r.pages > MOST_HUGE || r.file < 0 || ((uint64_t)c->buffer | (uint64_t)c->scratch) % HUGE : operation >= COLLAPSE)
        return NB_UNSUPPORTED;
    t->check = t->executed = t->cursor = 0;
    if (t->index)
        return NB_OK;
    struct words *w = words_of(c);
    if (renew(c->scratch, r.base, kind) || map(&r, r.elsewhere) || renew(r.elsewhere + r.bytes, seats, kind))
        return NB_UNSUPPORTED;
    advise(&r, r.elsewhere);
    advise(&r, r.at); /* a mapping of its own: what is split off a larger one costs more */
    memset(c->buffer, 0, c->buffer_bytes);
    if (operation == COPY)
        memset(r.elsewhere, 0, r.bytes);
    touch(&r, 0);
    new_pages(&r);
    if (madvise(r.at, r.bytes, MADV_DONTNEED))
        return NB_UNSUPPORTED;
    w->blind = resident(&r) != 0;
    if (!undone(&r, r.huge ? (operation == COLLAPSE ? COLLAPSE : SPLIT) : DONTNEED, 0) || !right_size(&r, operation == FAULT ? DONTNEED : operation))
        return NB_UNSUPPORTED;
    /* Once, for what this kernel does not know (MADV_COLD before Linux 5.4, MADV_COLLAPSE before 6.1). */
    if (!arranged(&r, operation) || perform(&r, operation, ++t->cursor))
        return NB_UNSUPPORTED;
    (void)proven(&r, operation, t->cursor, 1, &small); /* what it finds is looked at when it counts */
    (void)undone(&r, operation, t->cursor);
    return restored(&r, operation, t->cursor) ? NB_OK : NB_UNSUPPORTED;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    const struct range r = range_of(c);
    if (t->index)
        return stand_by(t, &r);
    const int64_t operation = c->parameter[OPERATION];
    struct words *w = words_of(c);
    w->turn = 0; /* the bystanders look behind the gate */
    w->purpose = WARMING, w->stop = 0;
    memset(t->value, 0, sizeof t->value);
    memset(&cpus, 0, sizeof cpus);
    t->begin_ns = t->executed = t->check = 0;
    int failed = !arranged(&r, operation);
    nb_each(t, event);
    nb_store32_relaxed(&w->purpose, COUNTING);
    if (c->threads > 1) {
        const uint64_t until = nb_now() + c->window_ns / 2;
        uint64_t count;
        for (uint32_t i = 1; i < c->threads; i++)
            nb_cpus_add(&cpus, seat_of(&r, i)->cpu);
        const int told = nb_interrupts(c->descriptor[INTERRUPTS_SLOT], "TLB", &cpus, &count);
        for (int i = 0; told && i < MOST_COUNTED && (t->value[COUNTED] < LEAST_COUNTED || nb_now() < until); i++) {
            event(t);
            t->executed++;
        }
        w->begin_ns = t->begin_ns, w->end_ns = t->end_ns;
        send_home(c, &r);
    }
    failed |= !restored(&r, operation, t->cursor);
    return failed ? NB_UNSUPPORTED : NB_OK;
}
