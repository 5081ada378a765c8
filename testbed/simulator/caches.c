/* The caches of machines with [[timing.caches]], and where a line is in them: L1 and L2 of each CPU, an L3 that the CPUs of a group share.
 *
 * L2 holds what L1 holds. An inclusive L3 holds what the L2 of its CPUs hold: what leaves it leaves them. A victim L3 holds what left them; what is
 * wanted again moves out of it. In each set the line that was used the longest time ago goes; a set is the line's number modulo their count.
 *
 * Only levels.c calls this, one access at a time: what goes from a shared cache goes from others' caches too. */
#include "lines.h"
#include <stdlib.h>
#include <string.h>

static uint32_t *tags[MOST_LEVELS][MOST_CPUS]; /* of each level, by CPU or group: [sets][ways] line + 1, most recent first, 0: free */

void prepare_levels(void)
{
    for (int k = 0; k < machine.levels; k++)
        for (int of = 0; of < machine.cpus; of++)
            tags[k][of] = calloc((size_t)machine.level[k].sets * machine.level[k].ways, sizeof **tags[k]);
}

static uint32_t *set_of(int k, int of, uint32_t id)
{
    return tags[k][of] + (size_t)(id % machine.level[k].sets) * machine.level[k].ways;
}

/* The way that has the line, or -1. */
static int way_of(int k, int of, uint32_t id)
{
    const uint32_t *set = set_of(k, of, id);
    for (int way = 0; way < machine.level[k].ways; way++)
        if (set[way] == id + 1)
            return way;
    return -1;
}

static void move_to(uint32_t *set, int from, int to, uint32_t tag)
{
    if (from < to)
        memmove(set + from, set + from + 1, (to - from) * sizeof *set);
    else
        memmove(set + to + 1, set + to, (from - to) * sizeof *set);
    set[to] = tag;
}

static void remove_line(int k, int of, uint32_t id)
{
    const int way = way_of(k, of, id);
    if (way >= 0)
        move_to(set_of(k, of, id), way, machine.level[k].ways - 1, 0);
}

/* Puts the line first in its set; returns the tag that had to go, or 0. */
uint32_t put_first(int k, int of, uint32_t id)
{
    uint32_t *set = set_of(k, of, id);
    const int way = way_of(k, of, id), last = machine.level[k].ways - 1, from = way < 0 ? last : way;
    const uint32_t gone = way < 0 ? set[last] : 0;
    move_to(set, from, 0, id + 1);
    return gone;
}

/* A line that memory did not have as it is goes there: nobody waits for it, but its controller is busy. */
void write_back(uint32_t id, ps now)
{
    const int home = home_of(id);
    queue_write(home, home, now);
}

static bool modified_by(const struct line *l, int i)
{
    return l->owner == i && (l->holders >> i & 1);
}

/* The CPU that has it modified in caches of its own, or -1. */
int owner_of(const struct line *l)
{
    return l->owner >= 0 && modified_by(l, l->owner) ? l->owner : -1;
}

/* Out of a CPU's own caches; whether it was modified there. */
bool drop_from_cpu(int i, uint32_t id)
{
    struct line *l = &lines[id];
    const bool modified = modified_by(l, i);
    for (int k = 0; k < L3; k++)
        remove_line(k, i, id);
    l->holders &= ~(1ull << i);
    l->owner = modified ? -1 : l->owner;
    return modified;
}

bool drop_from_group(int group, uint32_t id)
{
    struct line *l = &lines[id];
    const bool dirty = l->dirty == group + 1;
    remove_line(L3, group, id);
    l->groups &= ~(1ull << group);
    l->dirty = dirty ? 0 : l->dirty;
    return dirty;
}

static void put_into_group(int group, uint32_t id, ps now)
{
    const uint32_t gone = put_first(L3, group, id);
    lines[id].groups |= 1ull << group;
    if (!gone)
        return;
    bool dirty = drop_from_group(group, gone - 1);
    for (int j = 0; !machine.victim && j < machine.cpus; j++)
        if (machine.group_of[j] == group && (lines[gone - 1].holders >> j & 1))
            dirty |= drop_from_cpu(j, gone - 1);
    if (dirty)
        write_back(gone - 1, now);
}

/* What left the last cache of the CPU's own: into a victim L3 it goes as it is, an inclusive one has it and gets what was written. */
static void leave_cpu(int i, uint32_t id, ps now)
{
    const int group = machine.group_of[i];
    const bool modified = drop_from_cpu(i, id);
    if (machine.victim)
        put_into_group(group, id, now);
    if (modified)
        lines[id].dirty = group + 1;
}

/* Into the CPU's caches from level `nearest` on, and where it must be besides. */
void bring(int i, uint32_t id, int nearest, ps now)
{
    uint32_t gone;
    if (!machine.victim || nearest == L3)
        put_into_group(machine.group_of[i], id, now);
    for (int k = L3 - 1; k >= nearest; k--) {
        lines[id].holders |= 1ull << i;
        if ((gone = put_first(k, i, id)) && k == L3 - 1)
            leave_cpu(i, gone - 1, now);
    }
}

/* The nearest of the CPU's own levels that has the line, or -1. */
int level_of(int i, uint32_t id)
{
    for (int k = 0; k < L3; k++)
        if (way_of(k, i, id) >= 0)
            return k;
    return -1;
}
