/* The simulated machine: a plug-in of QEMU's that turns a guest into a NUMA machine whose timing is given.
 *
 * While it is ON every virtual CPU has a clock of its own, which counts its instructions and the modelled latency of
 * its user-space loads, stores and atomics, and every clock that the guest can read follows it. How slowly and how
 * unevenly the host runs the threads of QEMU therefore hardly matters.
 *
 *   clock.c       virtual clocks, and what makes QEMU and the guest read them
 *   order.c       keeps the virtual CPUs together: none runs ahead of the slowest by more than a quantum
 *   memory.c      a cache for each CPU, lines, coherence: what an access costs
 *   caches.c      levels of caches instead, and where a line is in them
 *   levels.c      what an access costs there
 *   flush.c       instructions that take a line out of all caches
 *   bandwidth.c   memory controllers and links: which lines they carry, one after the other
 *   overlap.c     what waits for a line on its way and what does not; decode.c: which registers an instruction reads and writes
 *   stores.c      store buffers: what a CPU does not wait for, and what waits for it
 *   translation.c what it costs to learn where an address lies: TLB and page walks
 *   events.c      what changes at given times: distances, clock, a CPU that is away, a busy controller
 *   record.c      what each section touched, from outside: which CPU, which node, how many pages
 *   instrument.c  the plug-in: what is instrumented, and how the guest switches it
 *   aarch64.c     the same instructions of another architecture, and its exclusive pairs
 *
 * The guest switches by `nopl disp32(%rax)` with disp32 = 0x4e554d00 + n (aarch64: `movz xzr, #0x4e00 + n, lsl #48`), a no-op on every real machine (guest/switch.h): the
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
#define MOST_LEVELS 3
#define MOST_STORES 256 /* places of a store buffer */
#define MOST_TLBS 8
#define MAGIC 0x4e554d00u
#define ARM_MAGIC 0x4eu
#define SLICE 1000      /* instructions between looks at the others' clocks */
#ifndef QUANTUM
#define QUANTUM 100000 /* ps that a CPU may be ahead of the slowest one, on lines that nobody else uses */
#endif
#define AMONG_MEASURING -1 /* in place of a quantum: not at all ahead of CPUs that are INSIDE, which alone have accesses that are modelled */
enum { TURN_ON = 1, TURN_OFF, ENTER, LEAVE, ENTER_ALL, WATCH };

typedef int64_t ps; /* picoseconds: of virtual time, and of latencies */
enum { ABSENT, RUNNING, IDLE };
enum { NOTHING, PAIR, NEXT }; /* the other line of its aligned pair, or the next one */

enum { SMALL_PAGE, HUGE_PAGE, PAGE_SIZES }; /* 4 KiB, 2 MiB */

/* One structure of a CPU's TLB. */
struct tlb {
    int level, holds, entries, ways; /* holds: pages of size 1 << SMALL_PAGE, 1 << HUGE_PAGE or both */
    ps latency;                      /* what a hit in it adds */
};

/* What the machine is like: set by configuration.c, and changed by events.c. */
struct configuration {
    int cpus, ranges, line_shift, node_of[MOST_CPUS];
    bool timed; /* false: accesses are recorded and cost nothing, clocks are the host's */
    ps memory_from[MOST_CPUS][MOST_NODES], core_to_core[MOST_CPUS][MOST_CPUS], occupancy[MOST_NODES];
    ps instruction, hit, atomic, pause;
    int prefetch; /* what comes along with a line that is loaded from memory */
    int stores;   /* places of each CPU's store buffer; 0: a store blocks */
    uint64_t cache_bytes;
    int levels, group_of[MOST_CPUS]; /* levels of caches instead of that one, the last of which a group shares; 0: none */
    bool victim;                     /* the last level holds what left the others */
    struct level { uint32_t sets; int ways, prefetch; ps latency; } level[MOST_LEVELS];
    int tlbs;
    struct tlb tlb[MOST_TLBS]; /* nearest level first */
    ps walk[PAGE_SIZES];       /* what one adds, by the size of the page that it finds */
    int misses;    /* lines that a CPU can have on their way; 0: every access blocks */
    bool limited;  /* by [timing.bandwidth]: written lines go back over the bus, and requests are served in the order of time exactly */
    ps link[MOST_NODES][MOST_NODES]; /* how long a line keeps the link from one node to another busy */
    int spinners; /* at most so many threads of virtual CPUs may wait by spinning: one per CPU of the host */
    struct { uint64_t begin, end, offset; int node; } range[2 * MOST_NODES]; /* guest-physical memory, offset: in all of it */
    char statistics[PATH_MAX], sections[PATH_MAX];
};
extern struct configuration machine;
bool configure(const char *path);
ps nanoseconds(double value);

struct cpu {
    _Atomic ps clock;
    atomic_int state, waiting, thread;
    ps slack;        /* how far ahead it may be while it waits */
    bool armed;      /* RDTSC traps in this thread */
    bool naming;     /* the next two loads name the range to watch */
    uint32_t *tags;  /* [sets][WAYS] line + 1, most recent first */
    uint64_t accesses, hits, transfers, loads, waits, sleeps, stalls, untranslated, brought, walks, unread;
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
/* Which registers (a bit each) address memory, give and take a value: decode.c. */
enum { ATOMIC = 1, MEMORY = 2, UPDATES = 4, PAST = 8, FENCE = 16, UNKNOWN = 32, EXCLUSIVE = 64 }; /* UPDATES: what it writes depends on what it read there; PAST: past the caches */
struct form {
    uint16_t address, source, target, flags;
};
_Static_assert(sizeof(struct form) == sizeof(void *), "a form is handed to callbacks in place of a pointer");

enum source { OWN_CACHE, OTHER_CACHE, FROM_MEMORY };

/* One access of a user-space instruction, as it calls back after it was executed. */
struct access {
    uint64_t address, physical; /* virtual; guest-physical, in machine.range[range] */
    int range, bytes;
    bool write;
    struct form form;
};
static inline struct counters *counters_of(int i) { return qemu_plugin_scoreboard_find(board, i); }
static inline ps clock_of(int i) { return atomic_load_explicit(&cpu[i].clock, memory_order_relaxed); }

void advance_clock(int i, ps now); /* stores.c */

/* events.c */
extern _Atomic ps next_event; /* clock from which on there is something to do */
bool set_event(const char *key, const double *x, int n);
void start_events(ps origin);
void stop_events(ps end);
void happen(int i); /* in virtual CPU i's own thread */

/* Brings a virtual CPU's clock up to date with the instructions that it has executed, and with what has happened until then. */
static inline void settle(int i)
{
    struct counters *counters = counters_of(i);
    ps now = clock_of(i) + (ps)counters->executed * machine.instruction;
    counters->executed = 0;
    advance_clock(i, now);
    if (now >= atomic_load_explicit(&next_event, memory_order_relaxed))
        happen(i);
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
void empty_caches(void); /* nobody executes what is to be timed; of machines without levels */
int range_of(uint64_t physical); /* -1: no memory */
uint32_t line_of(int range, uint64_t physical);
int home_of(uint32_t line); /* the node */
void access_memory(int i, const struct access *access);
ps serve_in_turn(int i, const struct access *access, ps t, enum source *source); /* one that begins at t: when it is done, and who gave the line */

/* stores.c */
bool buffer_access(int i, const struct access *access); /* whether that was all of it */
void drain_stores(int i);
void forget_stores(int i);

/* caches.c, levels.c */
void prepare_levels(void);
ps serve_from_levels(int i, const struct access *access, uint32_t id, ps t, enum source *source);
void flush_line(uint32_t id, ps now);

/* flush.c */
void instrument_flush(struct qemu_plugin_insn *instruction, const uint8_t *code); /* if it is one */
void remember_page(int i, uint64_t address, uint64_t physical);

/* translation.c */
struct qemu_plugin_register *find_register(const char *name); /* in a virtual CPU's own thread; NULL: there is none */
bool prepare_translation(void);
void find_root(int i);         /* in virtual CPU i's own thread: the register that names its page tables */
void empty_translation(void);  /* nobody executes what is to be timed */
ps translate(int i, const struct access *access); /* what the translation of its address adds to it */

/* bandwidth.c */
ps queue_read(int node, int home, ps at);
ps queue_write(int node, int home, ps at);

/* decode.c */
struct form decode(const uint8_t *instruction);

/* overlap.c */
void forget_overlap(void);                                  /* the model comes ON: nothing is on its way */
void wait_for_address(int i, const struct access *access);  /* the clock goes to when the access can begin ... */
void wait_for_place(int i);                                 /* ... and to when one more line can be on its way */
void wait_for_all(int i);
void pass_on(int i, struct form form);                      /* an instruction without memory */
ps go_on(int i, const struct access *access, uint32_t line, ps done, enum source source); /* when the CPU does */
bool goes_with_last(int i, uint32_t line);                  /* a store past the caches, with the one before it */

/* aarch64.c */
enum arm_kind { ARM_ACCESS, ARM_ATOMIC, ARM_LOAD_EXCLUSIVE, ARM_STORE_EXCLUSIVE, ARM_CLOCK_READ, ARM_PAUSE };
enum arm_kind arm_kind_of(const uint8_t *code);
unsigned arm_switch_of(const uint8_t *code);                /* its number, or 0 */
void keep_exclusive(int i, const struct access *access);    /* its load was executed */
void forget_exclusive(int i);                               /* so was its store, which is charged */
void charge_exclusive(int i);                               /* a load whose store did not come, if there is one */

/* record.c */
void prepare_record(void);
void watch(int i, uint64_t address);
void record_access(int i, int range, uint64_t address, uint64_t physical);
void end_section(void);
#endif
