/* The first touch of memory: what the kernel takes to find a page, to zero it and to map it.
 *
 * A thread gives back every page of its part (not counted), touches all of them, and does so again until the window ends. All threads have given
 * theirs back before any touches, and have touched before any gives back: unmapping, its interrupts on the other CPUs and the locks of the
 * free lists would be in the others' time. That a page was really new shows in its second word, which is written after each round and must be
 * zero again in the next; that no thread gave back while another touched, in four times of the last round. */
#include "nb.h"
#include "nb_window.h"
#include <sys/mman.h>

enum { PAGE };
/* Of value[]: ns of touching, then the clock in the last round: as the round before had been touched, as giving back began and ended, as
 * touching began. */
enum { SPENT = 6, TOUCHED, GIVES, GAVE, TOUCHES };

static const struct nb_parameter parameters[] = {
    [PAGE] = {"page_bytes", NULL, "distance of the touches: the size of the pages asked for", 4096, 4096, 1 << 30},
};
static const struct nb_metric metrics[] = {
    {"time_per_page", "ns", "of one thread for the first touch of one page", NB_LOWER_IS_BETTER},
    {"rate", "B/s", "memory that all threads bring into being, while they touch", NB_HIGHER_IS_BETTER},
};
NB_DESCRIBE("first_touch", 2, "first touch of fresh pages", parameters, metrics);

struct part {
    uint8_t *begin;
    uint64_t bytes, page;
};

static struct part part_of(const struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    uint64_t page = (uint64_t)c->parameter[PAGE], bytes = c->buffer_bytes / c->threads / page * page;
    return (struct part){c->buffer + t->index * bytes, bytes, page};
}

static void touch(struct part p)
{
    for (uint64_t at = 0; at < p.bytes; at += p.page)
        *(volatile uint64_t *)(p.begin + at) = at + 1;
}

/* How many pages were new; marks all of them as seen. */
static uint64_t new_pages(struct part p)
{
    uint64_t found = 0;
    for (uint64_t at = 0; at < p.bytes; at += p.page) {
        uint64_t *word = (uint64_t *)(p.begin + at);
        found += word[0] == at + 1 && !word[1];
        word[1] = 1;
    }
    return found;
}

int nb_run(struct nb_thread *t)
{
    struct part p = part_of(t);
    if (t->shared->phase == NB_PREPARE) {
        if (!p.bytes || p.page & (p.page - 1))
            return NB_UNSUPPORTED;
        touch(p);
        new_pages(p);
        t->check = 0;
        return NB_OK;
    }
    uint64_t pages = 0, *at = t->value, end = nb_gate(t) + t->shared->window_ns;
    int failed = 0;
    t->begin_ns = nb_now();
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    at[SPENT] = at[TOUCHED] = 0;
    do {
        at[GIVES] = nb_now();
        failed |= madvise(p.begin, p.bytes, MADV_DONTNEED); /* who fails goes on: the others wait for it */
        at[GAVE] = nb_now();
        if (pages)
            at[TOUCHED] = t->end_ns;
        nb_gate(t);
        at[TOUCHES] = nb_now();
        touch(p);
        t->end_ns = nb_now();
        at[SPENT] += t->end_ns - at[TOUCHES];
        pages += p.bytes / p.page;
        t->check += new_pages(p);
    } while (nb_gate(t) < end); /* a time that all threads know: they make equally many rounds */
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    t->operations = pages;
    t->executed += pages;
    return failed ? NB_UNSUPPORTED : NB_OK;
}
