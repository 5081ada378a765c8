/* Events: what happens to the machine at given times, as to a guest whose host moves it about. The time is the virtual time that the model has been
 * ON since the boot, so that a script is the same whatever the host does meanwhile.
 *
 * An event changes `machine` for all virtual CPUs when the first of them gets there (the others are behind it by a quantum at most), and
 * a theft sets the clock of one CPU forward: what it was to do waits, as it does where a host takes the CPU away. */
#include "simulator.h"
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#define MOST_EVENTS 64
#define NEVER INT64_MAX

struct event {
    ps at, every;       /* every: 0: once */
    double slower;      /* times that instructions, hits and atomics take; 0: as before */
    ps (*core_to_core)[MOST_CPUS];
    ps *occupancy;
    int stolen;         /* CPU that is away for `away`, or -1 */
    ps away;
};
static struct event events[MOST_EVENTS];
static int count;
static struct { ps *price, given; } of_clock[] = {
    {&machine.instruction, 0}, {&machine.hit, 0}, {&machine.atomic, 0}, {&machine.pause, 0},
    {&machine.level[0].latency, 0}, {&machine.level[1].latency, 0}, {&machine.level[2].latency, 0},
};
static ps base, passed;             /* clock at which the time of the script is 0; that time when the model went */
static ps back[MOST_CPUS];          /* clock at which a stolen CPU is given back */
_Atomic ps next_event = NEVER;      /* clock from which on something is to be done */

bool set_event(const char *key, const double *x, int n)
{
    struct event *e = &events[count - 1];
    if (!strcmp(key, "event")) { /* at every slower: of the lines that follow */
        if (count == MOST_EVENTS)
            return false;
        events[count++] = (struct event){.at = nanoseconds(x[0]), .every = nanoseconds(x[1]), .slower = x[2], .stolen = -1};
    } else if (!count)
        return false;
    else if (!strcmp(key, "event_steal"))
        e->stolen = x[0], e->away = nanoseconds(x[1]);
    else if (!strcmp(key, "event_occupancy")) {
        e->occupancy = e->occupancy ? e->occupancy : calloc(MOST_NODES, sizeof(ps));
        for (int i = 0; i < n; i++)
            e->occupancy[i] = nanoseconds(x[i]);
    } else if (!strcmp(key, "event_core_to_core")) {
        e->core_to_core = e->core_to_core ? e->core_to_core : calloc(MOST_CPUS, sizeof *e->core_to_core);
        for (int i = 1; i < n; i++)
            e->core_to_core[(int)x[0]][i - 1] = nanoseconds(x[i]);
    } else
        return false;
    return true;
}

static void apply(const struct event *e)
{
    for (size_t k = 0; e->slower && k < sizeof of_clock / sizeof *of_clock; k++)
        *of_clock[k].price = of_clock[k].given * e->slower + 0.5;
    if (e->core_to_core)
        memcpy(machine.core_to_core, e->core_to_core, sizeof machine.core_to_core);
    if (e->occupancy)
        memcpy(machine.occupancy, e->occupancy, sizeof machine.occupancy);
    if (e->stolen >= 0)
        back[e->stolen] = base + e->at + e->away;
}

/* Clock of the next thing to do: of an event, or as long as a CPU is stolen always. */
static ps next_after(ps now)
{
    ps next = NEVER;
    for (int k = 0; k < count; k++)
        if (events[k].at != NEVER && base + events[k].at < next)
            next = base + events[k].at;
    for (int j = 0; j < machine.cpus; j++)
        next = back[j] > now ? 0 : next;
    return next;
}

void happen(int i)
{
    static atomic_int lock;
    while (atomic_exchange(&lock, 1))
        _mm_pause();
    ps now = clock_of(i);
    for (;;) {
        struct event *due = NULL;
        for (int k = 0; k < count; k++)
            if (events[k].at != NEVER && base + events[k].at <= now && (!due || events[k].at < due->at))
                due = &events[k];
        if (!due)
            break;
        apply(due);
        due->at = due->every ? due->at + due->every : NEVER;
    }
    ps until = back[i];
    atomic_store(&next_event, next_after(now));
    atomic_store(&lock, 0);
    if (until > now)
        advance_clock(i, until);
}

void start_events(ps origin)
{
    static bool begun;
    for (size_t k = 0; !begun && k < sizeof of_clock / sizeof *of_clock; k++)
        of_clock[k].given = *of_clock[k].price;
    begun = true;
    for (int j = 0; j < machine.cpus; j++)
        back[j] += origin - passed - base;
    base = origin - passed;
    atomic_store(&next_event, next_after(origin));
}

void stop_events(ps end)
{
    passed = end - base;
    atomic_store(&next_event, NEVER);
}
