/* The simulated machine: a plug-in of QEMU's that turns a guest into a NUMA machine whose timing is given.
 *
 * While it is ON every virtual CPU has a clock of its own, which counts its instructions and the modelled latency of
 * its user-space loads, stores and atomics, and every clock that the guest can read follows it. How slowly and how
 * unevenly the host runs the threads of QEMU therefore hardly matters.
 *
 *   clock.c       virtual clocks, and what makes QEMU and the guest read them
 *   order.c       keeps the virtual CPUs together: none runs ahead of the slowest by more than a quantum
 *   memory.c      caches, lines, coherence, memory controllers: what an access costs
 *   record.c      what each section touched, from outside: which CPU, which node, how many pages
 *   instrument.c  the plug-in: what is instrumented, and how the guest switches it
 *
 * The guest switches by `nopl disp32(%rax)` with disp32 = 0x4e554d00 + n, a no-op on every real machine (guest/switch.c): the
 * model comes ON and goes, and while it is ON a virtual CPU is INSIDE what is to be timed or not. Loads and stores call back
 * only from pages of code that some CPU executed INSIDE; all else runs at the speed of plain emulation. */
#ifndef SIMULATOR_H
#define SIMULATOR_H
#define _GNU_SOURCE
#include "qemu_plugin.h"
#include <limits.h>
#include <stdatomic.h>

#define MOST_CPUS 64
#define MOST_NODES 16
#define MAGIC 0x4e554d00u
#define SLICE 1000      /* instructions between looks at the others' clocks */
#define QUANTUM 100000 /* ps that a CPU may be ahead of the slowest one, on lines that nobody else uses */
enum { TURN_ON = 1, TURN_OFF, ENTER, LEAVE, ENTER_ALL, WATCH };

typedef int64_t ps; /* picoseconds: of virtual time, and of latencies */
enum { ABSENT, RUNNING, IDLE };
enum { NOTHING, PAIR, NEXT }; /* the other line of its aligned pair, or the next one */

/* What the machine is like: set once by configuration.c. */
struct configuration {
    int cpus, ranges, line_shift, node_of[MOST_CPUS];
    bool timed; /* false: accesses are recorded and cost nothing, clocks are the host's */
    ps memory_from[MOST_CPUS][MOST_NODES], core_to_core[MOST_CPUS][MOST_CPUS], occupancy[MOST_NODES];
    ps instruction, hit, atomic, pause;
    int prefetch; /* what comes along with a line that is loaded from memory */
    uint64_t cache_bytes;
    int spinners; /* at most so many threads of virtual CPUs may wait by spinning: one per CPU of the host */
    struct { uint64_t begin, end, offset; int node; } range[2 * MOST_NODES]; /* guest-physical memory, offset: in all of it */
    char statistics[PATH_MAX], sections[PATH_MAX];
};
extern struct configuration machine;
bool configure(const char *path);

struct cpu {
    _Atomic ps clock;
    atomic_int state, waiting, thread;
    ps slack;        /* how far ahead it may be while it waits */
    bool armed;      /* RDTSC traps in this thread */
    bool naming;     /* the next two loads name the range to watch */
    uint32_t *tags;  /* [sets][WAYS] line + 1, most recent first */
    uint64_t accesses, hits, transfers, loads, waits, sleeps, stalls, untranslated, brought;
} __attribute__((aligned(128)));
extern struct cpu cpu[MOST_CPUS];
extern atomic_int on;
extern struct qemu_plugin_scoreboard *board;
extern __thread int me; /* this thread's virtual CPU, or -1 */

/* What the translated code itself counts and looks at, per virtual CPU. */
struct counters {
    uint64_t executed; /* instructions since the clock was last brought up to date */
    uint64_t inside;   /* executes what is to be timed */
};
/* One access of a user-space instruction, as it calls back after it was executed. */
struct access {
    uint64_t address, physical; /* virtual; guest-physical, in machine.range[range] */
    int range;
    bool write, atomic;
};
static inline struct counters *counters_of(int i) { return qemu_plugin_scoreboard_find(board, i); }
static inline ps clock_of(int i) { return atomic_load_explicit(&cpu[i].clock, memory_order_relaxed); }

/* Brings a virtual CPU's clock up to date with the instructions that it has executed. */
static inline void settle(int i)
{
    struct counters *counters = counters_of(i);
    atomic_store(&cpu[i].clock, clock_of(i) + (ps)counters->executed * machine.instruction);
    counters->executed = 0;
}

/* clock.c */
ps real_time(void);
void begin_clocks(void); /* once, at start */
void start_clocks(void); /* the model comes ON */
void stop_clocks(void);  /* and goes: the host's clocks go on */
void trap_clock(int i);  /* in virtual CPU i's own thread */

/* order.c */
void take_turn(int i, ps slack);
void wake_ready(void);

/* memory.c */
bool prepare_memory(void);
int range_of(uint64_t physical); /* -1: no memory */
void access_memory(int i, const struct access *access);

/* record.c */
void prepare_record(void);
void watch(int i, uint64_t address);
void record_access(int i, int range, uint64_t address, uint64_t physical);
void end_section(void);
#endif
