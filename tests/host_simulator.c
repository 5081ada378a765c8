/* The simulator's memory without QEMU: what a test calls with addresses of its own. Orders nothing, since one thread plays all CPUs. */
#include "without_qemu.h"
#include "../testbed/simulator/lines.h"
#include "nb_chase.h"
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))
#define LINES 4096u /* that a test uses */

void take_turn(int i, ps slack) { (void)i, (void)slack; }

EXPORT bool prepare(const char *path)
{
    machine = (struct configuration){.timed = true};
    return configure(path) && prepare_memory();
}

EXPORT ps serve_access(int i, ps at, uint64_t physical, int write)
{
    atomic_store(&cpu[i].clock, at);
    access_memory(i, &(struct access){.address = physical, .physical = physical, .range = range_of(physical), .write = write});
    return clock_of(i);
}

EXPORT void flush(ps at, uint64_t physical) { flush_line(line_of(range_of(physical), physical), at); }

EXPORT void forget_all(void)
{
    for (uint32_t id = 0; id < LINES; id++) {
        flush_line(id, 0);
        lines[id] = (struct line){0};
    }
}

/* ps of a load of numabench's own chase, in its second lap. */
EXPORT double chase(uint64_t bytes, uint64_t group, uint64_t seed)
{
    const uint64_t count = bytes / NB_VISITED;
    uint8_t *memory = aligned_alloc(1 << 21, bytes);
    uint64_t *p = NULL, **starts = &p;
    struct nb_chain chain = {memory, malloc(count * sizeof(uint32_t)), count, NB_VISITED, group / NB_VISITED, seed, 1, nb_classes(NB_VISITED)};
    nb_chain_build(&chain, starts, 1);
    ps at = 0, begin = 0;
    for (int lap = 0; lap < 2; lap++) {
        begin = at;
        for (uint64_t i = 0; i < count; i++, p = (uint64_t *)(uintptr_t)*p)
            at = serve_access(0, at, (uint64_t)((uint8_t *)p - memory), 0);
    }
    free(chain.order);
    free(memory);
    return (double)(at - begin) / (double)count;
}
