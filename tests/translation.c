/* The simulator's translation.c without QEMU: a guest whose page tables are made here, one page at a time. */
#include "../testbed/simulator/simulator.h"
#include <stdlib.h>
#include <string.h>

#define DIRECT_MAP 0xffff888000000000ull
#define TABLES 256
enum { PRESENT = 1, LEAF = 128 };

struct configuration machine;
struct cpu cpu[MOST_CPUS];
static uint64_t tables[TABLES][512]; /* table k lies at physical address (k + 1) * 4096; the first is the root */
static unsigned made;

GByteArray *g_byte_array_new(void)
{
    GByteArray *array = calloc(1, sizeof *array);
    array->data = malloc(64);
    return array;
}

GByteArray *g_byte_array_set_size(GByteArray *array, unsigned length)
{
    array->len = length;
    return array;
}

char *g_array_free(GArray *array, int segment)
{
    (void)array, (void)segment;
    return NULL;
}

GArray *qemu_plugin_get_registers(void)
{
    static register_descriptor all[] = {{(void *)1, "rax", "core"}, {(void *)2, "cr3", "core"}};
    static GArray array = {(char *)all, 2};
    return &array;
}

int qemu_plugin_read_register(struct qemu_plugin_register *handle, GByteArray *array)
{
    uint64_t root = 4096 | 0x8000000000000005ull; /* with bits that are no address */
    if (handle != (void *)2)
        return -1;
    memcpy(array->data + array->len, &root, sizeof root);
    array->len += sizeof root;
    return sizeof root;
}

bool qemu_plugin_read_memory_vaddr(uint64_t address, GByteArray *array, size_t length)
{
    uint64_t offset = address - DIRECT_MAP - 4096;
    if (offset + length > sizeof tables)
        return false;
    g_byte_array_set_size(array, length);
    memcpy(array->data, (char *)tables + offset, length);
    return true;
}

/* A machine of one CPU with the `n` structures of `rows`: level, holds, entries, ways, latency; without any page. */
bool begin(int n, const int64_t (*rows)[5], int64_t small, int64_t huge)
{
    memset(tables, 0, sizeof tables);
    memset(cpu, 0, sizeof *cpu);
    machine = (struct configuration){.cpus = 1, .tlbs = n, .walk = {small, huge}};
    for (int s = 0; s < n; s++)
        machine.tlb[s] = (struct tlb){rows[s][0], rows[s][1], rows[s][2], rows[s][3], rows[s][4]};
    made = 1;
    find_root(0);
    return prepare_translation();
}

/* Maps a page of 1 << `shift` bytes (12, 21, 30) at `address`; where it leads to is told with each access. */
void map(uint64_t address, int shift)
{
    unsigned table = 0;
    for (int at = 39;; at -= 9) {
        uint64_t *entry = &tables[table][address >> at & 511];
        if (at == shift) {
            *entry = PRESENT | (shift > 12 ? LEAF : 0);
            return;
        }
        if (!*entry)
            *entry = (made + 1) * 4096ull | PRESENT | 1ull << 63, made++;
        table = (*entry & 0xfffffffffffffull) / 4096 - 1;
    }
}

int64_t access_at(uint64_t address, uint64_t physical)
{
    return translate(0, &(struct access){.address = address, .physical = physical});
}

uint64_t walks(void) { return cpu[0].walks; }
uint64_t unread(void) { return cpu[0].unread; }
