/* Memory: private caches kept coherent line by line, and what an access costs.
 *
 *   hit                       in the CPU's own cache, or a write to a line that nobody else holds
 *   core_to_core[i][j]        the line is modified in j's cache; or a write to a line that others hold (the farthest of them);
 *                             or a read of a clean line that a CPU of the same node holds (the nearest)
 *   memory_from[i][home]      otherwise, from when its turn comes at the memory controller and the link (bandwidth.c)
 *
 * Accesses block, unless the machine has `misses` (overlap.c) or a store buffer (stores.c), and the transfers of one line queue up behind each other. A prefetcher may bring
 * the neighbour of a line that is loaded from memory: at no time, within a page, and if no cache has it. */
#include "lines.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WAYS 8
#define CONTENDED 20000000 /* ps for which a line that moved between CPUs counts as contended */

struct line *lines;
static uint32_t sets;

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
    prepare_levels();
    return lines != MAP_FAILED;
}

int range_of(uint64_t physical)
{
    for (int r = 0; r < machine.ranges; r++)
        if (physical >= machine.range[r].begin && physical < machine.range[r].end)
            return r;
    return -1;
}

int home_of(uint32_t line)
{
    const uint64_t offset = (uint64_t)line << machine.line_shift;
    int r = 0;
    while (r < machine.ranges - 1 && offset - machine.range[r].offset >= machine.range[r].end - machine.range[r].begin)
        r++;
    return machine.range[r].node;
}

/* The number of the line that a byte of this range is in. */
uint32_t line_of(int range, uint64_t physical)
{
    return (physical - machine.range[range].begin + machine.range[range].offset) >> machine.line_shift;
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

/* A line that was written goes back to its memory, which nobody waits for. */
static void drop_from_cache(int i, uint32_t tag)
{
    struct line *l = &lines[tag - 1];
    const uint64_t mine = 1ull << i;
    lock(l);
    bool written = l->holders & mine && l->owner == i;
    l->holders &= ~mine;
    if (l->owner == i)
        l->owner = -1;
    unlock(l);
    if (written && machine.limited)
        queue_write(machine.node_of[i], home_of(tag - 1), clock_of(i));
}

/* What an earlier section left: its lines are prepared anew where the model does not see it, and another CPU's would block. */
void empty_caches(void)
{
    for (int i = 0; i < machine.cpus; i++)
        for (size_t k = 0; k < (size_t)sets * WAYS; k++)
            if (cpu[i].tags[k]) {
                struct line *l = &lines[cpu[i].tags[k] - 1];
                l->holders = 0, l->owner = -1;
                cpu[i].tags[k] = 0;
            }
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

static bool is_contended(struct line *l, ps now)
{
    lock(l);
    bool contended = l->contended && now - l->contended < CONTENDED;
    unlock(l);
    return contended;
}

static void put_and_drop(int i, uint32_t id)
{
    uint32_t gone = machine.levels ? 0 : put_into_cache(i, id + 1); /* serve_from_levels has */
    if (gone)
        drop_from_cache(i, gone);
}

static void bring_neighbour(int i, uint32_t id)
{
    uint32_t neighbour = neighbour_of(id, machine.prefetch);
    struct line *l = &lines[neighbour];
    if (neighbour == id)
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

/* When the access of line `id` that begins at `t` is done; the line is then where it was wanted. `source`: who gave it. */
static ps serve(int i, const struct access *access, uint32_t id, ps t, enum source *source)
{
    if (machine.levels)
        return serve_from_levels(i, access, id, t, source);
    struct cpu *self = &cpu[i];
    struct line *l = &lines[id];
    uint64_t mine = 1ull << i;
    lock(l);
    uint64_t others = l->holders & ~mine;
    if ((l->holders & mine) && (!access->write || !others)) {
        self->hits++;
        *source = OWN_CACHE;
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
            *source = OTHER_CACHE;
            l->contended = t + cost;
        } else {
            int home = machine.range[access->range].node;
            self->loads++;
            *source = FROM_MEMORY;
            t = queue_read(machine.node_of[i], home, t);
            cost = machine.memory_from[i][home];
        }
        l->holders = access->write ? mine : l->holders | mine;
        l->owner = access->write ? i : -1;
        l->free = t += cost;
    }
    unlock(l);
    return t;
}

/* A store past the caches goes to the memory, which is written without being read; no cache has the line afterwards. */
static ps serve_past(int i, const struct access *access, uint32_t id, ps t)
{
    struct line *l = &lines[id];
    const int home = machine.range[access->range].node;
    if (machine.levels)
        flush_line(id, t);
    lock(l);
    l->holders = 0, l->owner = -1;
    unlock(l);
    return queue_write(machine.node_of[i], home, t) + machine.memory_from[i][home];
}

static bool is_past(const struct access *access)
{
    return access->write && access->form.flags & PAST;
}

/* Whether another line has to come to the CPU, or goes to memory: not where it only has to be taken from others that hold it too. */
static bool goes_out(int i, const struct access *access, uint32_t id)
{
    return is_past(access) || !(lines[id].holders >> i & 1);
}

/* Its turn comes when all that is earlier has been charged. Where bandwidth is limited, what goes out asks in the order of time. */
ps serve_in_turn(int i, const struct access *access, ps t, enum source *source)
{
    const uint32_t id = line_of(access->range, access->physical);
    take_turn(i, is_contended(&lines[id], t) ? 0 : machine.limited && goes_out(i, access, id) ? AMONG_MEASURING : QUANTUM);
    if (is_past(access)) {
        *source = FROM_MEMORY;
        return serve_past(i, access, id, t);
    }
    t = serve(i, access, id, t, source);
    put_and_drop(i, id);
    if (*source == FROM_MEMORY && !access->write)
        bring_neighbour(i, id);
    return t;
}

void access_memory(int i, const struct access *access)
{
    const uint32_t id = line_of(access->range, access->physical);
    enum source source;
    cpu[i].accesses++;
    wait_for_address(i, access);
    if (machine.tlbs)
        advance_clock(i, clock_of(i) + translate(i, access));
    if (is_past(access) && goes_with_last(i, id))
        return;
    if (machine.stores && buffer_access(i, access))
        return;
    if (goes_out(i, access, id))
        wait_for_place(i);
    const ps done = serve_in_turn(i, access, clock_of(i) + (access->form.flags & ATOMIC ? machine.atomic : 0), &source);
    advance_clock(i, go_on(i, access, id, done, source));
    /* It goes on when all that is earlier than its end has been executed, since QEMU calls back after it has executed an access: a
     * compare-and-swap must not see the future. */
    take_turn(i, is_contended(&lines[id], clock_of(i)) ? 0 : QUANTUM);
}
