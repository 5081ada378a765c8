/* The first touch of memory: what the kernel takes to find a page, to zero it and to map it.
 *
 * A thread touches every page of its part, gives all of them back (not counted), and does so again until the window ends. That a
 * page was really new shows in its second word, which is written after each round and must be zero again in the next. */
#include "nb.h"
#include "nb_window.h"
#include <sys/mman.h>

enum { PAGE };
enum { SPENT = 6 }; /* of value[]: ns of touching */

static const struct nb_parameter parameters[] = {
    [PAGE] = {"page_bytes", NULL, "distance of the touches: the size of the pages asked for", 4096, 4096, 1 << 30},
};
static const struct nb_metric metrics[] = {
    {"time_per_page", "ns", "of one thread for the first touch of one page", NB_LOWER_IS_BETTER},
    {"rate", "B/s", "memory that all threads bring into being, while they touch", NB_HIGHER_IS_BETTER},
};
NB_DESCRIBE("first_touch", 1, "first touch of fresh pages", parameters, metrics);

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
        if (!p.bytes)
            return NB_UNSUPPORTED;
        touch(p);
        new_pages(p);
        t->check = 0;
        return NB_OK;
    }
    uint64_t pages = 0, spent = 0, end;
    nb_gate(t);
    t->begin_ns = nb_now();
    end = t->begin_ns + t->shared->window_ns;
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    do {
        if (madvise(p.begin, p.bytes, MADV_DONTNEED))
            return NB_UNSUPPORTED;
        uint64_t before = nb_now();
        touch(p);
        spent += nb_now() - before;
        pages += p.bytes / p.page;
        t->check += new_pages(p);
    } while (nb_now() < end);
    t->end_ns = nb_now();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    t->operations = pages;
    t->executed += pages;
    t->value[SPENT] = spent;
    return NB_OK;
}
