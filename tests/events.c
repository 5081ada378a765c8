/* Drives testbed/simulator/events.c directly: clocks are set by hand, and what the machine is then is printed. */
#include "../testbed/simulator/simulator.h"
#include <stdio.h>

struct configuration machine = {.cpus = 2, .instruction = 270, .hit = 1080, .atomic = 5000, .pause = 10000};
struct cpu cpu[MOST_CPUS];
static struct counters counters[MOST_CPUS];
atomic_int on;
struct qemu_plugin_scoreboard *board;

void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *of, unsigned i)
{
    (void)of;
    return &counters[i];
}

void advance_clock(int i, ps now)
{
    cpu[i].clock = now;
}

ps nanoseconds(double value)
{
    return value * 1000 + 0.5;
}

/* Where CPU i's clock is after it was put `at` ns after `origin`, and what the machine is like. */
static void show(ps origin, int i, double at)
{
    cpu[i].clock = origin + nanoseconds(at);
    settle(i);
    printf("%g %d %lld %lld %lld %lld\n", at, i, (long long)(cpu[i].clock - origin) / 1000, (long long)machine.instruction, (long long)machine.core_to_core[0][1],
           (long long)machine.occupancy[0]);
}

int main(void)
{
    set_event("event", (double[]){1000, 5000, 0}, 3);
    set_event("event_core_to_core", (double[]){0, 0, 107}, 3);
    set_event("event", (double[]){3500, 5000, 0}, 3);
    set_event("event_core_to_core", (double[]){0, 0, 27}, 3);
    set_event("event", (double[]){2000, 0, 3.7 / 3.3}, 3);
    set_event("event", (double[]){2500, 0, 0}, 3);
    set_event("event_occupancy", (double[]){12.8}, 1);
    set_event("event", (double[]){3000, 0, 0}, 3);
    set_event("event_steal", (double[]){1, 800}, 2);
    ps first = nanoseconds(1e6), second = nanoseconds(9e6);
    start_events(first);
    show(first, 0, 999);
    show(first, 0, 1000);
    show(first, 1, 2000);
    show(first, 0, 2600);
    show(first, 1, 2950); /* CPU 0 gets to the theft first */
    show(first, 0, 3000);
    show(first, 1, 3010); /* away until 3800 */
    show(first, 0, 3010); /* the other one is not */
    show(first, 1, 3900);
    stop_events(first + nanoseconds(4000)); /* the model goes, and the script stands still */
    start_events(second);
    show(second, 0, 1900); /* 5900 of the script: as before */
    show(second, 0, 2100); /* 6100: the first event again */
    return 0;
}
