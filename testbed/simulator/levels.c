/* What an access costs on machines with [[timing.caches]] (caches.c):
 *
 *   latency of the level      the nearest one of the CPU's own that has the line, and nobody else has a copy if it is written
 *   core_to_core[i][j]        the line is modified in j's caches, or in the L3 of j's group (of j the nearest CPU there); or a write to a line that others
 *                             hold (the farthest of them); or, if the own L3 has it not, a read of a clean line that another on the same node holds
 *   memory_from[i][home]      otherwise
 *
 * One access at a time is served, under one lock. */
#include "lines.h"
#include <sched.h>
#include <string.h>

#define LOOKS 1000

static atomic_int one_at_a_time;

static void enter(void)
{
    for (int looks = 0; atomic_exchange_explicit(&one_at_a_time, 1, memory_order_acquire); looks++)
        if (looks < LOOKS)
            _mm_pause();
        else
            sched_yield(); /* whoever is inside is not running */
}

static void leave(void)
{
    atomic_store_explicit(&one_at_a_time, 0, memory_order_release);
}

/* From the nearest, or the farthest, of these CPUs, and of the nearest CPU of each of these groups; of `node` alone, if that is none below 0. -1: there is none. */
static ps reach(int i, uint64_t holders, uint64_t groups, int node, bool farthest)
{
    ps found = -1, of_group[MOST_CPUS];
    memset(of_group, -1, sizeof of_group);
    for (int j = 0; j < machine.cpus; j++) {
        const ps cost = machine.core_to_core[i][j];
        const int group = machine.group_of[j];
        if (node >= 0 && machine.node_of[j] != node)
            continue;
        if ((holders >> j & 1) && (found < 0 || (farthest ? cost > found : cost < found)))
            found = cost;
        if ((groups >> group & 1) && (of_group[group] < 0 || cost < of_group[group]))
            of_group[group] = cost;
    }
    for (int group = 0; group < machine.cpus; group++)
        if (of_group[group] >= 0 && (found < 0 || (farthest ? of_group[group] > found : of_group[group] < found)))
            found = of_group[group];
    return found;
}

/* What the transfer of a line costs that is not the CPU's own to use as it wants; -1: memory has to give it. `others`, `elsewhere`: who else holds it. */
static ps transfer_cost(int i, const struct line *l, bool write, uint64_t others, uint64_t elsewhere, bool *between)
{
    const int owner = owner_of(l), group = machine.group_of[i];
    *between = true;
    if (owner >= 0 && owner != i)
        return machine.core_to_core[i][owner];
    if (l->dirty && l->dirty != group + 1)
        return reach(i, 0, 1ull << (l->dirty - 1), -1, false);
    if (write && (others || elsewhere))
        return reach(i, others, elsewhere, -1, true);
    *between = false;
    if (l->groups >> group & 1)
        return machine.level[L3].latency;
    const ps near = reach(i, others, elsewhere, machine.node_of[i], false);
    *between = near >= 0;
    return near;
}

/* Afterwards the CPU has it, of a write alone. What was modified elsewhere is written back when it is read, to the own L3 if that is inclusive and the owner's too. */
static void take(int i, uint32_t id, bool write, ps now)
{
    struct line *l = &lines[id];
    const int owner = owner_of(l), group = machine.group_of[i];
    const bool inside = owner >= 0 && machine.group_of[owner] == group && !machine.victim, own = l->dirty == group + 1;
    if (write) {
        for (int j = 0; j < machine.cpus; j++)
            if (j != i && (l->holders >> j & 1))
                drop_from_cpu(j, id);
        for (int g = 0; g < machine.cpus; g++)
            if ((l->groups >> g & 1) && (g != group || machine.victim))
                drop_from_group(g, id);
        l->dirty = 0;
    } else if (owner >= 0 && owner != i) {
        l->owner = -1;
        if (!inside)
            write_back(id, now);
        l->dirty = inside ? group + 1 : 0;
    } else if (l->dirty && !own) {
        l->dirty = 0;
        write_back(id, now);
    }
    if (machine.victim && (l->groups >> group & 1))
        drop_from_group(group, id); /* it moves out of there as it is */
    bring(i, id, 0, now);
    l->owner = write || (own && machine.victim) ? i : l->owner == i ? -1 : l->owner;
}

/* With a line that memory gave for a load. */
static void bring_neighbours(int i, uint32_t id, ps now)
{
    for (int k = 0; k < machine.levels; k++) {
        const uint32_t neighbour = neighbour_of(id, machine.level[k].prefetch);
        if (neighbour == id || lines[neighbour].holders || lines[neighbour].groups)
            continue;
        cpu[i].brought++;
        bring(i, neighbour, k, now);
        lines[neighbour].owner = -1;
    }
}

ps serve_from_levels(int i, const struct access *access, uint32_t id, ps t, enum source *source)
{
    struct cpu *self = &cpu[i];
    struct line *l = &lines[id];
    const uint64_t group = 1ull << machine.group_of[i];
    enter();
    const int k = level_of(i, id);
    const uint64_t others = l->holders & ~(1ull << i), elsewhere = l->groups & ~group;
    if (k >= 0 && (!access->write || (!others && !elsewhere))) {
        self->hits++;
        *source = OWN_CACHE;
        t += machine.level[k].latency;
        for (int nearer = k; nearer >= 0; nearer--)
            put_first(nearer, i, id);
        if (access->write) {
            l->owner = i, l->dirty = 0;
            if (machine.victim && (l->groups & group))
                drop_from_group(machine.group_of[i], id);
        }
    } else {
        bool between;
        ps cost = transfer_cost(i, l, access->write, others, elsewhere, &between);
        lock(l);
        t = l->free > t ? l->free : t;
        if (cost < 0) {
            const int home = machine.range[access->range].node;
            self->loads++;
            *source = FROM_MEMORY;
            t = queue_read(machine.node_of[i], home, t);
            cost = machine.memory_from[i][home];
        } else if (between) {
            self->transfers++;
            *source = OTHER_CACHE;
            l->contended = t + cost;
        } else
            *source = OWN_CACHE; /* the L3 of its group */
        l->free = t += cost;
        unlock(l);
        take(i, id, access->write, t);
        if (*source == FROM_MEMORY && !access->write)
            bring_neighbours(i, id, t);
    }
    leave();
    return t;
}

/* Out of all caches: what was written goes to memory. */
void flush_line(uint32_t id, ps now)
{
    struct line *l = &lines[id];
    bool dirty = false;
    enter();
    for (int j = 0; j < machine.cpus; j++) {
        if (l->holders >> j & 1)
            dirty |= drop_from_cpu(j, id);
        if (l->groups >> j & 1)
            dirty |= drop_from_group(j, id);
    }
    if (dirty)
        write_back(id, now);
    leave();
}
