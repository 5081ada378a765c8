/* What the simulator's model (testbed.programs.MODEL) takes from QEMU and from the plug-in around it, for programs that drive it alone. */
#ifndef WITHOUT_QEMU_H
#define WITHOUT_QEMU_H
#include "../testbed/simulator/simulator.h"
#include <stddef.h>

struct cpu cpu[MOST_CPUS];
atomic_int on = 1;
struct qemu_plugin_scoreboard *board;
__thread int me = -1;
static struct counters counters[MOST_CPUS];

void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *unused, unsigned i)
{
    (void)unused;
    return &counters[i];
}

/* Page tables, which nothing here has. */
GByteArray *g_byte_array_new(void) { return NULL; }
GByteArray *g_byte_array_set_size(GByteArray *bytes, unsigned size) { (void)size; return bytes; }
char *g_array_free(GArray *array, int segment) { (void)array, (void)segment; return NULL; }
GArray *qemu_plugin_get_registers(void) { return NULL; }
int qemu_plugin_read_register(struct qemu_plugin_register *which, GByteArray *into) { (void)which, (void)into; return 0; }
bool qemu_plugin_read_memory_vaddr(uint64_t address, GByteArray *into, size_t length) { (void)address, (void)into, (void)length; return false; }
#endif
