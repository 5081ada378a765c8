/* The whole contract between a kernel and numabench. A kernel is one C file that exports
 *   const struct nb_descriptor nb_descriptor   (what it is; Python reads it, nothing is written twice)
 *   int nb_run(struct nb_thread *)             (entered by every thread at once, first with NB_PREPARE, then NB_MEASURE)
 * Python owns placement, memory and descriptors, crew.c the threads; a kernel owns the start gate, the clock and the inner loop.
 * A kernel allocates nothing and prints nothing. */
#ifndef NB_H
#define NB_H
#define _GNU_SOURCE
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include "nb_atomic.h"

#define NB_ABI 5
#define NB_PARAMETERS 12 /* room for parameters; a kernel uses as many as it declares */
#define NB_VALUES 16     /* room for a kernel's own results */
#define NB_BINS 640      /* histogram of batches (nb_window.h), or of times in ns: 16 bins per octave, 2^40 ns at most */
#define NB_GATES 8       /* gates that lie ahead of each other: used in turn */
#define NB_DESCRIPTORS 8 /* room for open files, sockets, pipes ... of which a kernel knows what each is */

enum { NB_PREPARE, NB_MEASURE };
enum { NB_OK, NB_UNSUPPORTED }; /* what nb_run returns */
enum { NB_LOWER_IS_BETTER = -1, NB_NEITHER_IS_BETTER, NB_HIGHER_IS_BETTER };

struct nb_parameter { /* `choices` ("a|b|c") makes it an enumeration: the value is the index */
    const char *name, *choices, *summary;
    int64_t initial, least, most;
};

struct nb_metric {
    const char *name, *unit, *summary;
    int64_t polarity;
};

struct nb_descriptor {
    uint32_t abi, version;
    const char *name, *summary;
    const struct nb_parameter *parameters;
    const struct nb_metric *metrics;
    uint32_t n_parameters, n_metrics;
};

/* One entry into a kernel, shared by its threads. The gate's words have lines of their own, of 256 bytes and in fours too. */
struct nb_case {
    uint32_t threads, phase;
    uint32_t crowded, reserved;              /* crowded: some of the threads share a CPU, so that who waits must let others run */
    uint64_t warmup_ns, window_ns, batch_ns; /* batch_ns: how far apart a thread looks at the clock */
    uint8_t *buffer, *scratch;               /* measured memory; memory for preparation only */
    uint64_t buffer_bytes, scratch_bytes;
    int64_t parameter[NB_PARAMETERS];
    int32_t descriptor[NB_DESCRIPTORS]; /* opened by Python for this case alone; -1: none */
    uint8_t pad0[1024];
    uint32_t arrived;
    uint8_t pad1[1020];
    uint64_t opens[NB_GATES];
    uint8_t pad2[960];
};

/* One thread: what it is told, then what it found. */
struct nb_thread {
    struct nb_case *shared;
    uint32_t index, group;       /* group: index of its NUMA node among the nodes in use */
    uint32_t gates, gaps;        /* gaps: batches that were interrupted */
    int32_t cpu_begin, cpu_end;
    int32_t schedstat, binned;   /* descriptor of its /proc/thread-self/schedstat, -1 without one; whether this entry has filled the histogram */
    uint64_t begin_ns, end_ns;   /* CLOCK_MONOTONIC */
    uint64_t operations;         /* inside the window */
    uint64_t executed;           /* since NB_PREPARE, warm-ups included: what `check` is predicted from */
    uint64_t check;
    uint64_t gap_ns, cursor;     /* cursor: where a kernel goes on in the next entry */
    uint64_t run_delay_ns;       /* inside the window: runnable and not running */
    uint64_t value[NB_VALUES];
    uint32_t histogram[NB_BINS];
};

#define NB_COUNT(array) (sizeof(array) / sizeof(*(array)))
#define NB_DESCRIBE(NAME, VERSION, SUMMARY, PARAMETERS, METRICS)                                                                     \
    const struct nb_descriptor nb_descriptor = {NB_ABI, VERSION, NAME, SUMMARY, PARAMETERS, METRICS, NB_COUNT(PARAMETERS),           \
                                                NB_COUNT(METRICS)};                                                                  \
    const char nb_instructions[] = NB_INSTRUCTIONS; /* what atomic operations are made of */                                         \
    /* sizes and offsets that the loader compares with its own */                                                                    \
    const uint32_t nb_layout[] = {sizeof(struct nb_parameter), sizeof(struct nb_metric), sizeof(struct nb_descriptor),               \
                                  sizeof(struct nb_case), sizeof(struct nb_thread), offsetof(struct nb_descriptor, n_metrics),       \
                                  offsetof(struct nb_case, parameter), offsetof(struct nb_case, descriptor),                         \
                                  offsetof(struct nb_case, arrived), offsetof(struct nb_case, opens),                                \
                                  offsetof(struct nb_thread, begin_ns), offsetof(struct nb_thread, value),                           \
                                  offsetof(struct nb_thread, histogram)}

#ifdef NB_CLOCK /* tests: the name of another clock */
uint64_t NB_CLOCK(void);
#endif

static inline uint64_t nb_now(void)
{
#ifdef NB_CLOCK
    return NB_CLOCK();
#endif
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* All threads of the case leave together: the last to arrive names a time ahead (as long as a line takes to reach everybody, who get it
 * one after the other) and each spins on the clock until then. Released one by one they would hardly overlap. Returns that time, the same
 * for all; when a thread really left, its own clock says. It also clears the gate before, which all have left, so that there is no end to them. */
static inline uint64_t nb_gate(struct nb_thread *t)
{
    struct nb_case *c = t->shared;
    uint64_t *opens = &c->opens[t->gates % NB_GATES], at;
    t->gates++;
    if (nb_add32(&c->arrived, 1) + 1 == c->threads * t->gates) {
        nb_store_relaxed(&c->opens[(t->gates - 2) % NB_GATES], 0);
        nb_store_release(opens, nb_now() + 5000 + 50 * c->threads);
    }
    while (!(at = nb_load_acquire(opens)))
        if (c->crowded)
            sched_yield();
    while (nb_now() < at)
        ;
    return at;
}
#endif
