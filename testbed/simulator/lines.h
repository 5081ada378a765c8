/* Lines of memory, who holds each, and their controllers: what memory.c and caches.c share. */
#ifndef LINES_H
#define LINES_H
#include "simulator.h"
#include <x86intrin.h>

#define PAGE_BYTES 4096u

struct line {
    atomic_int lock;
    int16_t owner;    /* CPU that holds it modified, or -1; counts only where it is one of the holders */
    uint64_t holders; /* CPUs with a valid copy in caches of their own */
    ps free;          /* end of the last transfer */
    ps contended;     /* end of the last transfer between CPUs */
    uint64_t groups;  /* groups whose shared cache has it (caches.c) */
    int16_t dirty;    /* the group + 1 that has it so that memory does not, or 0 */
};
extern struct line *lines;

static inline void lock(struct line *l)
{
    while (atomic_exchange_explicit(&l->lock, 1, memory_order_acquire))
        _mm_pause();
}

static inline void unlock(struct line *l)
{
    atomic_store_explicit(&l->lock, 0, memory_order_release);
}

/* The line that comes along with line `id`, or `id` itself where none does. */
static inline uint32_t neighbour_of(uint32_t id, int prefetch)
{
    const uint32_t neighbour = prefetch == NOTHING ? id : prefetch == PAIR ? id ^ 1 : id + 1, per_page = PAGE_BYTES >> machine.line_shift;
    return neighbour / per_page == id / per_page ? neighbour : id;
}


/* caches.c: `i` is a CPU, `now` the time at which a line may have to be written back */
#define L3 (machine.levels - 1)
int level_of(int i, uint32_t id);
int owner_of(const struct line *l);
uint32_t put_first(int k, int of, uint32_t id);
void bring(int i, uint32_t id, int nearest, ps now);
bool drop_from_cpu(int i, uint32_t id);
bool drop_from_group(int group, uint32_t id);
void write_back(uint32_t id, ps now);
#endif
