/* Pages and the nodes that they are on, by the kernel's own words (move_pages(2)). */
#ifndef NB_PAGES_H
#define NB_PAGES_H
#include "nb.h"
#include <sys/syscall.h>
#include <unistd.h>

#define NB_MOVE_OWN 2 /* MPOL_MF_MOVE: pages that only this process maps */

/* `count` pages at `at`, and room for what the kernel is told and answers about each. */
struct nb_pages {
    void **at;
    int *to, *status;
    uint64_t count;
};

#define NB_BYTES_PER_PAGE (sizeof(void *) + 2 * sizeof(int)) /* of scratch memory */

/* The pages of the case's buffer, listed in its scratch memory; a count of 0 where that has no room for them. */
static inline struct nb_pages nb_pages_of(const struct nb_case *c, uint64_t page)
{
    uint64_t count = c->buffer_bytes / page;
    struct nb_pages p = {(void **)c->scratch, (int *)(c->scratch + count * sizeof(void *)), NULL, count};
    p.status = p.to + count;
    if (c->threads != 1 || page & (page - 1) || count * NB_BYTES_PER_PAGE > c->scratch_bytes)
        p.count = 0;
    for (uint64_t i = 0; i < p.count; i++)
        p.at[i] = c->buffer + i * page;
    return p;
}

/* Asks for all of them on `node`; 0 once the kernel has tried, which `status` tells of each. */
static inline int nb_pages_move(struct nb_pages *p, int node)
{
    for (uint64_t i = 0; i < p->count; i++)
        p->to[i] = node;
    return syscall(SYS_move_pages, 0, p->count, p->at, p->to, p->status, NB_MOVE_OWN) < 0;
}

/* How many of them are on `node`, as the last call answered. */
static inline uint64_t nb_pages_on(const struct nb_pages *p, int node)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < p->count; i++)
        found += p->status[i] == node;
    return found;
}

/* Asks the kernel where they are. */
static inline int nb_pages_look(struct nb_pages *p)
{
    return syscall(SYS_move_pages, 0, p->count, p->at, NULL, p->status, 0) < 0;
}
#endif
