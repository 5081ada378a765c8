/* What the simulator takes instructions of aarch64 for, and what it charges of exclusive pairs, without QEMU.
 *
 *   arm_instructions WORD...    of each in hexadecimal: its kind, or the number of the switch that it is
 *   arm_instructions            what a pair, a failed one and one that was forgotten are charged */
#include "../testbed/simulator/aarch64.c"
#include <stdio.h>
#include <stdlib.h>

struct configuration machine;
struct cpu cpu[MOST_CPUS];
struct qemu_plugin_scoreboard *board;
static struct counters counters;
_Atomic ps next_event = INT64_MAX;
static int charged;

void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *of, unsigned i)
{
    (void)of, (void)i;
    return &counters;
}

void happen(int i)
{
    (void)i;
}

void advance_clock(int i, ps now)
{
    cpu[i].clock = now;
}

void access_memory(int i, const struct access *access)
{
    (void)i;
    charged += access->write ? 1 : 100;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"access", "atomic", "load-exclusive", "store-exclusive", "clock", "pause"};
    for (int k = 1; k < argc; k++) {
        const uint32_t word = strtoul(argv[k], NULL, 16);
        const uint8_t *code = (const uint8_t *)&word;
        if (arm_switch_of(code))
            printf("switch %u\n", arm_switch_of(code));
        else
            puts(names[arm_kind_of(code)]);
    }
    if (argc > 1)
        return 0;
    keep_exclusive(0, &(struct access){.write = true});
    forget_exclusive(0);
    charge_exclusive(0);
    printf("stored %d\n", charged);
    keep_exclusive(0, &(struct access){.write = true});
    charge_exclusive(1);
    printf("of another %d\n", charged);
    charge_exclusive(0);
    charge_exclusive(0);
    printf("failed %d\n", charged);
    return 0;
}
