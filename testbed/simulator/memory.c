/* Memory: private caches kept coherent line by line, and what an access costs.
 *
 *   hit                       in the CPU's own cache, or a write to a line that nobody else holds
 *   core_to_core[i][j]        the line is modified in j's cache; or a write to a line that others hold (the farthest of them);
 *                             or a read of a clean line that a CPU of the same node holds (the nearest)
 *   memory_from[i][home]      otherwise; each line also keeps its memory controller busy for occupancy[home]
 *
 * Accesses block, and the transfers of one line queue up behind each other. A prefetcher may bring the neighbour of a line that is loaded
 * from memory: at no time, within a page, and if no cache has it. */
#include "simulator.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

#define WAYS 8
#define PAGE_BYTES 4096u
#define CONTENDED 20000000 /* ps for which a line that moved between CPUs counts as contended */

struct line {
    atomic_int lock;
    int16_t owner;    /* CPU that holds it modified, or -1 */
    uint64_t holders; /* CPUs with a valid copy */
    ps free;          /* end of the last transfer */
    ps contended;     /* end of the last transfer between CPUs */
};
static struct line *lines;
static uint32_t sets;
static _Atomic ps controller_free[MOST_NODES];

bool prepare_memory(void)
{
    uint64_t bytes = 0;
    for (int r = 0; r < machine.ranges; r++)
        bytes += machine.range[r].end - machine.range[r].begin;
    sets = (machine.cache_bytes >> machine.line_shift) / WAYS;
    sets = sets ? sets : 1;
    lines = mmap(NULL, ((bytes >> machine.line_shift) + 1) * sizeof *lines, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int i = 0; i < machine.cpus; i++)
        cpu[i].tags = calloc((size_t)sets * WAYS, sizeof *cpu[i].tags);
    return lines != MAP_FAILED;
}

int range_of(uint64_t physical)
{
    for (int r = 0; r < machine.ranges; r++)
        if (physical >= machine.range[r].begin && physical < machine.range[r].end)
            return r;
    return -1;
}

static inline void lock(struct line *l)
{
    while (atomic_exchange_explicit(&l->lock, 1, memory_order_acquire))
        _mm_pause();
}

static inline void unlock(struct line *l)
{
    atomic_store_explicit(&l->lock, 0, memory_order_release);
}

/* Puts line `tag` (its number + 1) first in its set; returns the tag that had to go, or 0. */
static uint32_t put_into_cache(int i, uint32_t tag)
{
    uint32_t *set = cpu[i].tags + (size_t)((tag * 2654435761u) >> 7) % sets * WAYS, way = 0;
    if (set[0] == tag)
        return 0;
    while (way < WAYS - 1 && set[way] != tag)
        way++;
    uint32_t gone = set[way] == tag ? 0 : set[way];
    memmove(set + 1, set, way * sizeof *set);
    set[0] = tag;
    return gone;
}

static void drop_from_cache(int i, uint32_t tag)
{
    struct line *l = &lines[tag - 1];
    lock(l);
    l->holders &= ~(1ull << i);
    if (l->owner == i)
        l->owner = -1;
    unlock(l);
}

/* ps from the nearest holder on i's node; -1 if there is none. */
static ps nearest_holder(int i, uint64_t holders)
{
    ps least = -1;
    for (int j = 0; j < machine.cpus; j++)
        if ((holders >> j & 1) && machine.node_of[j] == machine.node_of[i] && (least < 0 || machine.core_to_core[i][j] < least))
            least = machine.core_to_core[i][j];
    return least;
}

static ps farthest_holder(int i, uint64_t holders)
{
    ps most = 0;
    for (int j = 0; j < machine.cpus; j++)
        if ((holders >> j & 1) && machine.core_to_core[i][j] > most)
            most = machine.core_to_core[i][j];
    return most;
}

/* The memory controller serves one line after the other: returns when it begins with one that is wanted at `at`. */
static ps queue_at_controller(int node, ps at)
{
    ps begin, free = atomic_load(&controller_free[node]);
    if (!machine.occupancy[node])
        return at;
    do
        begin = free > at ? free : at;
    while (!atomic_compare_exchange_weak(&controller_free[node], &free, begin + machine.occupancy[node]));
    return begin;
}

static bool is_contended(struct line *l, ps now)
{
    lock(l);
    bool contended = l->contended && now - l->contended < CONTENDED;
    unlock(l);
    return contended;
}

static void put_and_drop(int i, uint32_t id)
{
    uint32_t gone = put_into_cache(i, id + 1);
    if (gone)
        drop_from_cache(i, gone);
}

static void bring_neighbour(int i, uint32_t id)
{
    uint32_t neighbour = machine.prefetch == PAIR ? id ^ 1 : id + 1, per_page = PAGE_BYTES >> machine.line_shift;
    struct line *l = &lines[neighbour];
    if (machine.prefetch == NOTHING || neighbour / per_page != id / per_page)
        return;
    lock(l);
    bool free = !l->holders;
    if (free)
        l->holders = 1ull << i;
    unlock(l);
    if (free) {
        cpu[i].brought++;
        put_and_drop(i, neighbour);
    }
}

/* When the access of line `id` that begins at `t` is done; the line is then where it was wanted. `loaded`: whether memory gave it for a load. */
static ps serve(int i, const struct access *access, uint32_t id, ps t, bool *loaded)
{
    struct cpu *self = &cpu[i];
    struct line *l = &lines[id];
    uint64_t mine = 1ull << i;
    lock(l);
    uint64_t others = l->holders & ~mine;
    if ((l->holders & mine) && (!access->write || !others)) {
        self->hits++;
        t += machine.hit;
        if (access->write)
            l->owner = i;
    } else {
        ps cost = !others         ? -1
                  : l->owner >= 0 ? machine.core_to_core[i][l->owner]
                  : access->write ? farthest_holder(i, others)
                                  : nearest_holder(i, others);
        if (l->free > t)
            t = l->free;
        if (cost >= 0) {
            self->transfers++;
            l->contended = t + cost;
        } else {
            int home = machine.range[access->range].node;
            self->loads++;
            *loaded = !access->write;
            t = queue_at_controller(home, t);
            cost = machine.memory_from[i][home];
        }
        l->holders = access->write ? mine : l->holders | mine;
        l->owner = access->write ? i : -1;
        l->free = t += cost;
    }
    unlock(l);
    return t;
}

void access_memory(int i, const struct access *access)
{
    struct cpu *self = &cpu[i];
    uint32_t id = (access->physical - machine.range[access->range].begin + machine.range[access->range].offset) >> machine.line_shift;
    struct line *l = &lines[id];
    ps t = clock_of(i) + (access->atomic ? machine.atomic : 0);
    bool loaded = false;
    self->accesses++;
    /* Its turn comes when all that is earlier has been charged; and it goes on when all that is earlier than its end has been
     * executed, since QEMU calls back after it has executed an access: a compare-and-swap must not see the future. */
    take_turn(i, is_contended(l, t) ? 0 : QUANTUM);
    t = serve(i, access, id, t, &loaded);
    put_and_drop(i, id);
    if (loaded)
        bring_neighbour(i, id);
    atomic_store(&self->clock, t);
    take_turn(i, is_contended(l, t) ? 0 : QUANTUM);
}
