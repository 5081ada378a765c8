/* The machine as a text of `key value...` lines, times in ns (testbed/qemu.py writes it). */
#include "simulator.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct configuration machine = {.timed = true};

ps nanoseconds(double value)
{
    return (ps)(value * 1000 + 0.5);
}

static bool set(const char *key, const double *x, int n)
{
    if (!strcmp(key, "cpus"))
        machine.cpus = x[0];
    else if (!strcmp(key, "spinners"))
        machine.spinners = x[0];
    else if (!strcmp(key, "timed"))
        machine.timed = x[0];
    else if (!strcmp(key, "node_of"))
        for (int i = 0; i < n; i++)
            machine.node_of[i] = x[i];
    else if (!strcmp(key, "range")) { /* begin end offset node */
        int r = machine.ranges++;
        machine.range[r].begin = x[0], machine.range[r].end = x[1], machine.range[r].offset = x[2], machine.range[r].node = x[3];
    } else if (!strcmp(key, "memory_from"))
        for (int i = 1; i < n; i++)
            machine.memory_from[(int)x[0]][i - 1] = nanoseconds(x[i]);
    else if (!strcmp(key, "core_to_core"))
        for (int i = 1; i < n; i++)
            machine.core_to_core[(int)x[0]][i - 1] = nanoseconds(x[i]);
    else if (!strcmp(key, "occupancy"))
        for (int i = 0; i < n; i++)
            machine.occupancy[i] = nanoseconds(x[i]);
    else if (!strcmp(key, "link"))
        for (int i = 1; i < n; i++)
            machine.link[(int)x[0]][i - 1] = nanoseconds(x[i]);
    else if (!strcmp(key, "limited"))
        machine.limited = x[0];
    else if (!strcmp(key, "misses"))
        machine.misses = x[0];
    else if (!strcmp(key, "line"))
        for (machine.line_shift = 0; 1 << machine.line_shift < x[0]; machine.line_shift++)
            ;
    else if (!strcmp(key, "cache"))
        machine.cache_bytes = x[0];
    else if (!strcmp(key, "level")) { /* sets ways latency prefetch */
        machine.level[machine.levels++] = (struct level){.sets = x[0], .ways = x[1], .latency = nanoseconds(x[2]), .prefetch = x[3]};
    } else if (!strcmp(key, "group_of"))
        for (int i = 0; i < n; i++)
            machine.group_of[i] = x[i];
    else if (!strcmp(key, "victim"))
        machine.victim = x[0];
    else if (!strcmp(key, "instruction"))
        machine.instruction = nanoseconds(x[0]);
    else if (!strcmp(key, "hit"))
        machine.hit = nanoseconds(x[0]);
    else if (!strcmp(key, "atomic"))
        machine.atomic = nanoseconds(x[0]);
    else if (!strcmp(key, "prefetch"))
        machine.prefetch = x[0];
    else if (!strcmp(key, "stores"))
        machine.stores = x[0];
    else if (!strcmp(key, "tlb")) { /* level holds entries ways latency */
        struct tlb *tlb = &machine.tlb[machine.tlbs++];
        *tlb = (struct tlb){.level = x[0], .holds = x[1], .entries = x[2], .ways = x[3], .latency = nanoseconds(x[4])};
    } else if (!strcmp(key, "walk"))
        for (int size = 0; size < PAGE_SIZES; size++)
            machine.walk[size] = nanoseconds(x[size]);
    else if (!strcmp(key, "pause"))
        machine.pause = nanoseconds(x[0]);
    else
        return set_event(key, x, n);
    return true;
}

bool configure(const char *path)
{
    FILE *file = fopen(path, "r");
    char text[8192], *rest;
    if (!file)
        return perror(path), false;
    while (fgets(text, sizeof text, file)) {
        char *key = strtok_r(text, " \n", &rest), *word;
        double x[MOST_CPUS + 1] = {0};
        int n = 0;
        while (key && n < MOST_CPUS + 1 && (word = strtok_r(NULL, " \n", &rest)))
            x[n++] = strtod(word, NULL);
        if (key && !set(key, x, n))
            return fprintf(stderr, "simulator: unknown key %s in %s\n", key, path), false;
    }
    fclose(file);
    if (machine.cpus < 1 || machine.cpus > MOST_CPUS || machine.stores > MOST_STORES || !machine.ranges || (machine.timed && machine.instruction <= 0))
        return fprintf(stderr, "simulator: %s describes no machine\n", path), false;
    return true;
}
