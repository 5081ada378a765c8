/* How long the kernel takes to bring pages to the node whose CPU uses them (automatic NUMA balancing).
 *
 * All pages are moved to a wrong node. The thread then reads and writes each of them over and over, as a program would, and asks from
 * time to time where they are. Memory and thread have no policy of their own meanwhile: the kernel leaves alone what has one. */
#include "nb.h"
#include "nb_pages.h"
#include "nb_window.h"

enum { PAGE, WRONG, HOME, LIMIT };
enum { REPAIRED = 6, FIRST, AT_HOME }; /* of value[]: ns until enough pages were at home, until one was; pages at home at the end */

#define ENOUGH(pages) ((pages) - (pages) / 20) /* 95 %: the last ones wait for another scan of the address space */
#define LOOK_NS 5000000u                       /* a look takes some 100 ns a page */

static const struct nb_parameter parameters[] = {
    [PAGE] = {"page_bytes", NULL, "size of the pages asked for", 4096, 4096, 1 << 30},
    [WRONG] = {"wrong_node", NULL, "node that the pages are on at first", 0, 0, 1 << 16},
    [HOME] = {"home_node", NULL, "node of the CPU that uses them", 0, 0, 1 << 16},
    [LIMIT] = {"limit_s", NULL, "seconds to wait for the repair", 10, 1, 600},
};
static const struct nb_metric metrics[] = {
    {"repair_time", "s", "until 95 % of the pages are on the node of the CPU that uses them", NB_LOWER_IS_BETTER},
    {"reaction_time", "s", "until the first of them are", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("numa_balancing", 1, "repair of a wrong placement by the kernel", parameters, metrics);

#define NODES 1024 /* the most that a kernel can have */

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const uint64_t page = (uint64_t)c->parameter[PAGE];
    const int home = (int)c->parameter[HOME];
    struct nb_pages pages = nb_pages_of(c, page);
    if (!pages.count)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        for (uint64_t at = 0; at < c->buffer_bytes; at += page)
            *(volatile uint64_t *)(c->buffer + at) = at + 1;
        return NB_OK;
    }
    int mode = 0;
    unsigned long nodes[NODES / (8 * sizeof(long))] = {0};
    if (syscall(SYS_get_mempolicy, &mode, nodes, NODES, NULL, 0) || syscall(SYS_set_mempolicy, 0, NULL, 0))
        return NB_UNSUPPORTED;
    nb_gate(t);
    t->begin_ns = nb_now();
    t->cpu_begin = sched_getcpu();
    t->run_delay_ns = nb_run_delay(t);
    t->value[REPAIRED] = t->value[FIRST] = t->executed = 0;
    int failed = nb_pages_move(&pages, (int)c->parameter[WRONG]) || nb_pages_on(&pages, home);
    uint64_t begin = nb_now(), now = begin, look = begin, there = 0;
    const uint64_t end = begin + (uint64_t)c->parameter[LIMIT] * 1000000000u;
    while (!failed && !t->value[REPAIRED] && now < end) {
        for (uint64_t i = 0; i < pages.count; i++)
            ++*((volatile uint64_t *)pages.at[i] + 1);
        t->executed += pages.count;
        now = nb_now();
        if (now < look + LOOK_NS)
            continue;
        failed = nb_pages_look(&pages);
        there = nb_pages_on(&pages, home);
        look = now;
        if (there && !t->value[FIRST])
            t->value[FIRST] = now - begin;
        if (there >= ENOUGH(pages.count))
            t->value[REPAIRED] = now - begin;
    }
    t->check = 0;
    for (uint64_t i = 0; i < pages.count; i++)
        t->check += *((uint64_t *)pages.at[i] + 1), *((uint64_t *)pages.at[i] + 1) = 0;
    t->end_ns = nb_now();
    t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
    t->cpu_end = sched_getcpu();
    t->operations = t->executed;
    t->value[AT_HOME] = there;
    syscall(SYS_set_mempolicy, mode, nodes, NODES);
    return failed ? NB_UNSUPPORTED : NB_OK;
}
