/* What a section (the time between two switches) did to the memory that the guest asked to watch, seen from outside: per virtual
 * CPU and node how many accesses, per node how many different pages. One line of JSON each. */
#include "simulator.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_SHIFT 12

static uint64_t first, last, named[2];
static atomic_int names, section;
static _Atomic uint64_t accesses[MOST_CPUS][MOST_NODES], pages[MOST_NODES];
static _Atomic int *seen; /* per page of the machine: the section that it was last counted in */
static FILE *out;

void prepare_record(void)
{
    uint64_t bytes = 0;
    for (int r = 0; r < machine.ranges; r++)
        bytes += machine.range[r].end - machine.range[r].begin;
    seen = mmap(NULL, ((bytes >> PAGE_SHIFT) + 1) * sizeof *seen, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                -1, 0);
    out = *machine.sections ? fopen(machine.sections, "w") : NULL;
    atomic_store(&section, 1);
}

/* The first two loads after WATCH name the first and the last byte. */
void watch(int i, uint64_t address)
{
    named[atomic_fetch_add(&names, 1)] = address;
    if (atomic_load(&names) < 2)
        return;
    first = named[0], last = named[1];
    cpu[i].naming = false;
    atomic_store(&names, 0);
}

void record_access(int i, int range, uint64_t address, uint64_t physical)
{
    if (address < first || address > last)
        return;
    int node = machine.range[range].node, now = atomic_load_explicit(&section, memory_order_relaxed);
    uint64_t page = (physical - machine.range[range].begin + machine.range[range].offset) >> PAGE_SHIFT;
    accesses[i][node]++;
    if (atomic_load_explicit(&seen[page], memory_order_relaxed) != now && atomic_exchange(&seen[page], now) != now)
        pages[node]++;
}

void end_section(void)
{
    if (out && last) {
        fprintf(out, "{\"bytes\": %llu, \"accesses\": {", (unsigned long long)(last - first + 1));
        const char *comma = "";
        for (int i = 0; i < machine.cpus; i++)
            for (int n = 0; n < MOST_NODES; n++)
                if (accesses[i][n]) {
                    fprintf(out, "%s\"%d/%d\": %llu", comma, i, n, (unsigned long long)accesses[i][n]);
                    comma = ", ";
                }
        fprintf(out, "}, \"pages\": {");
        comma = "";
        for (int n = 0; n < MOST_NODES; n++)
            if (pages[n]) {
                fprintf(out, "%s\"%d\": %llu", comma, n, (unsigned long long)pages[n]);
                comma = ", ";
            }
        fprintf(out, "}}\n");
        fflush(out);
    }
    memset(accesses, 0, sizeof accesses);
    memset(pages, 0, sizeof pages);
    first = last = 0;
    atomic_fetch_add(&section, 1);
}
