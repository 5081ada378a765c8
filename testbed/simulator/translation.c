/* Translation: what it costs to learn where a virtual address lies, before its access begins.
 *
 * Each CPU has a TLB of levels, and a level one set-associative structure for each size of page, or one for both. A hit adds the latency of its
 * level, and an address that no level holds a page walk. The access then begins: nothing overlaps.
 *
 * An entry is a virtual page together with the physical page that it led to, and an access hits it if both are its own. QEMU has
 * translated the address by the guest's tables as they are now, so that an entry whose page was unmapped or moved away can't be hit
 * again and ages out: no invalidation has to be seen. That leaves the size of a page: only a walk reads it (from the guest's own
 * tables), and all entries go when the model comes on. */
#include "simulator.h"
#include <stdlib.h>
#include <string.h>

#define DIRECT_MAP 0xffff888000000000ull /* of the guest's kernel, which boots with nokaslr and four levels of tables: all physical memory */
#define FRAME 0x000ffffffffff000ull      /* of a table's entry */
#define PRESENT 1ull
#define LEAF 128ull                      /* of an entry of the second or third table: it maps a huge page */

struct entry {
    uint64_t page, physical; /* numbers of pages of `size` */
    int size;
    bool valid;
};
static struct entry *entries[MOST_TLBS][MOST_CPUS]; /* [sets][ways], most recent first */
static const int shifts[PAGE_SIZES] = {[SMALL_PAGE] = 12, [HUGE_PAGE] = 21};
static struct qemu_plugin_register *root[MOST_CPUS]; /* CR3 */
static __thread GByteArray *bytes;

bool prepare_translation(void)
{
    for (int s = 0; s < machine.tlbs; s++)
        for (int i = 0; i < machine.cpus; i++)
            if (!(entries[s][i] = calloc(machine.tlb[s].entries, sizeof **entries[s])))
                return false;
    return true;
}

void empty_translation(void)
{
    for (int s = 0; s < machine.tlbs; s++)
        for (int i = 0; i < machine.cpus; i++)
            memset(entries[s][i], 0, machine.tlb[s].entries * sizeof **entries[s]);
}

struct qemu_plugin_register *find_register(const char *name)
{
    GArray *all = qemu_plugin_get_registers();
    struct qemu_plugin_register *found = NULL;
    for (unsigned k = 0; k < all->len; k++) {
        const register_descriptor *one = (const register_descriptor *)all->data + k;
        if (!strcmp(one->name, name))
            found = one->handle;
    }
    g_array_free(all, 1);
    return found;
}

void find_root(int i)
{
    root[i] = find_register("cr3");
}

static bool read_word(uint64_t physical, uint64_t *word)
{
    if (!qemu_plugin_read_memory_vaddr(DIRECT_MAP + physical, bytes, sizeof *word))
        return false;
    memcpy(word, bytes->data, sizeof *word);
    return true;
}

/* The size of the page that holds `address`, by the tables of the process that runs: the second and the third table's entry say that they map a
 * page themselves. A page of 1 GiB counts as its pieces of 2 MiB. */
static int size_of_page(int i, uint64_t address)
{
    uint64_t table = 0;
    if (!bytes)
        bytes = g_byte_array_new();
    g_byte_array_set_size(bytes, 0);
    if (!root[i] || qemu_plugin_read_register(root[i], bytes) != sizeof table) {
        cpu[i].unread++;
        return SMALL_PAGE;
    }
    memcpy(&table, bytes->data, sizeof table);
    for (int shift = 39; shift >= shifts[HUGE_PAGE]; shift -= 9) {
        if (!read_word((table & FRAME) + (address >> shift & 511) * sizeof table, &table) || !(table & PRESENT)) {
            cpu[i].unread++;
            return SMALL_PAGE;
        }
        if (shift < 39 && (table & LEAF))
            return HUGE_PAGE;
    }
    return SMALL_PAGE;
}

static struct entry *set_of(int i, int s, uint64_t page)
{
    const struct tlb *tlb = &machine.tlb[s];
    return entries[s][i] + page % (tlb->entries / tlb->ways) * tlb->ways;
}

static bool is(const struct entry *e, const struct access *access, int size)
{
    return e->valid && e->size == size && e->page == access->address >> shifts[size] && e->physical == access->physical >> shifts[size];
}

/* Whether structure `s` holds the page, as one of `size`; it is then the most recent one of its set. */
static bool look_up(int i, int s, const struct access *access, int size)
{
    struct entry *set = set_of(i, s, access->address >> shifts[size]);
    for (int way = 0; way < machine.tlb[s].ways; way++)
        if (is(set + way, access, size)) {
            struct entry found = set[way];
            memmove(set + 1, set, way * sizeof *set);
            set[0] = found;
            return true;
        }
    return false;
}

/* Puts the page into all levels nearer than `level`, each of which had been searched for it; the least recent of the set goes. */
static void fill(int i, int level, const struct access *access, int size)
{
    uint64_t page = access->address >> shifts[size];
    for (int s = 0; s < machine.tlbs; s++)
        if (machine.tlb[s].level < level && (machine.tlb[s].holds & 1 << size)) {
            struct entry *set = set_of(i, s, page);
            memmove(set + 1, set, (machine.tlb[s].ways - 1) * sizeof *set);
            set[0] = (struct entry){page, access->physical >> shifts[size], size, true};
        }
}

ps translate(int i, const struct access *access)
{
    if (!machine.tlbs)
        return 0;
    for (int s = 0; s < machine.tlbs; s++) /* nearest first */
        for (int size = SMALL_PAGE; size < PAGE_SIZES; size++)
            if ((machine.tlb[s].holds & 1 << size) && look_up(i, s, access, size)) {
                fill(i, machine.tlb[s].level, access, size);
                return machine.tlb[s].latency;
            }
    int size = size_of_page(i, access->address);
    cpu[i].walks++;
    fill(i, INT_MAX, access, size);
    return machine.walk[size];
}
