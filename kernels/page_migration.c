/* What it costs to move pages to another node: move_pages(2) for all pages of a memory at once.
 *
 * They are moved there, which counts, and back, which does not, until the window ends. Each page holds its number: contents that got
 * lost on the way show. */
#include "nb.h"
#include "nb_pages.h"
#include "nb_window.h"

enum { PAGE, FROM, TO };
enum { SPENT = 6, BACK }; /* of value[]: ns of moving there, pages that are back at the end */

static const struct nb_parameter parameters[] = {
    [PAGE] = {"page_bytes", NULL, "size of the pages asked for", 4096, 4096, 1 << 30},
    [FROM] = {"from_node", NULL, "node that the pages are bound to", 0, 0, 1 << 16},
    [TO] = {"to_node", NULL, "node that they are moved to", 0, 0, 1 << 16},
};
static const struct nb_metric metrics[] = {
    {"time_per_page", "ns", "to move one page, of many in one call", NB_LOWER_IS_BETTER},
    {"rate", "B/s", "memory moved while the call lasts", NB_HIGHER_IS_BETTER},
};
NB_DESCRIBE("page_migration", 1, "moving pages between nodes", parameters, metrics);

static uint64_t *number_of(void *page)
{
    return page;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int from = (int)c->parameter[FROM], to = (int)c->parameter[TO];
    struct nb_pages pages = nb_pages_of(c, (uint64_t)c->parameter[PAGE]);
    if (!pages.count)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        for (uint64_t i = 0; i < pages.count; i++)
            *number_of(pages.at[i]) = i + 1;
        return nb_pages_move(&pages, to) || nb_pages_move(&pages, from) ? NB_UNSUPPORTED : NB_OK;
    }
    uint64_t moved = 0, spent = 0, end;
    nb_gate(t);
    t->begin_ns = nb_now();
    end = t->begin_ns + c->window_ns;
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    t->check = 0;
    do {
        uint64_t before = nb_now();
        if (nb_pages_move(&pages, to))
            return NB_UNSUPPORTED;
        spent += nb_now() - before;
        moved += pages.count;
        t->check += nb_pages_on(&pages, to);
        if (nb_pages_move(&pages, from))
            return NB_UNSUPPORTED;
        t->value[BACK] = nb_pages_on(&pages, from);
    } while (nb_now() < end);
    for (uint64_t i = 0; i < pages.count; i++)
        t->value[BACK] -= *number_of(pages.at[i]) != i + 1;
    t->end_ns = nb_now();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    t->operations = t->executed = moved;
    t->value[SPENT] = spent;
    return NB_OK;
}
