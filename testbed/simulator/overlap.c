/* Overlap: on a machine with `misses` an access does not block its CPU; what needs the line waits for it.
 *
 *   a register      is ready when all that it was made of is: other registers, and the line that it was loaded from
 *   a word          in memory is as ready as the register that was stored there (the last 1,024 of them, by address)
 *   an access       begins when the registers that address it are ready
 *   a line          that has to come from elsewhere needs one of `misses` places, from when it is asked for until it is there
 *
 * Nothing else waits: vectors and flags are ready at once (branches are predicted, sums are behind). Lines from other caches, atomics and
 * instructions that decode.c does not know block; these two and fences wait for all that is on its way. */
#include "simulator.h"
#include <string.h>

#define MOST_MISSES 256
#define REGISTERS 16
#define REMEMBERED 1024

static struct core {
    ps ready[REGISTERS], loaded; /* loaded: when what the present instruction read is there */
    struct { uint32_t line; ps done; } way[MOST_MISSES];
    struct { uint64_t word; ps ready; } words[REMEMBERED];
    uint32_t past; /* line + 1 that the last store past the caches went to */
} cores[MOST_CPUS];

void forget_overlap(void)
{
    memset(cores, 0, sizeof cores);
}

static inline ps later(ps a, ps b)
{
    return a > b ? a : b;
}

static ps ready(const struct core *core, uint16_t registers)
{
    ps last = 0;
    for (; registers; registers &= registers - 1)
        last = later(last, core->ready[__builtin_ctz(registers)]);
    return last;
}

static void set(struct core *core, uint16_t registers, ps when)
{
    for (; registers; registers &= registers - 1)
        core->ready[__builtin_ctz(registers)] = when;
}

static ps word(const struct core *core, uint64_t address)
{
    address /= 8;
    return core->words[address % REMEMBERED].word == address ? core->words[address % REMEMBERED].ready : 0;
}

/* A word that is ready is remembered no longer. */
static void set_words(struct core *core, const struct access *access, ps when, ps now)
{
    for (uint64_t w = access->address / 8; w <= (access->address + access->bytes - 1) / 8; w++) {
        if (when > now)
            core->words[w % REMEMBERED].word = w, core->words[w % REMEMBERED].ready = when;
        else if (core->words[w % REMEMBERED].word == w)
            core->words[w % REMEMBERED].ready = 0;
    }
}

static void wait_until(int i, ps when)
{
    if (when > clock_of(i))
        atomic_store(&cpu[i].clock, when);
}

void wait_for_all(int i)
{
    struct core *core = &cores[i];
    ps last = ready(core, 0xffff);
    for (int k = 0; k < machine.misses; k++)
        last = later(last, core->way[k].done);
    core->past = 0;
    wait_until(i, last);
}

void wait_for_address(int i, const struct access *access)
{
    if (machine.misses && access->form.flags & (ATOMIC | UNKNOWN))
        wait_for_all(i);
    else if (machine.misses)
        wait_until(i, ready(&cores[i], access->form.address));
}

static int first_place(const struct core *core)
{
    int first = 0;
    for (int k = 1; k < machine.misses; k++)
        first = core->way[k].done < core->way[first].done ? k : first;
    return first;
}

void wait_for_place(int i)
{
    if (machine.misses)
        wait_until(i, cores[i].way[first_place(&cores[i])].done);
}

void pass_on(int i, struct form form)
{
    struct core *core = &cores[i];
    if (form.flags & (FENCE | UNKNOWN))
        wait_for_all(i);
    set(core, form.target, ready(core, form.source));
}

bool goes_with_last(int i, uint32_t line)
{
    bool same = cores[i].past == line + 1;
    cores[i].past = line + 1;
    return same;
}

ps go_on(int i, const struct access *access, uint32_t line, ps done, enum source source)
{
    struct core *core = &cores[i];
    const struct form form = access->form;
    const ps now = clock_of(i);
    if (!machine.misses)
        return done;
    if (source == FROM_MEMORY) {
        int place = first_place(core);
        core->way[place].line = line, core->way[place].done = done;
    } else
        for (int k = 0; k < machine.misses; k++) /* a line that is on its way is not there yet */
            if (core->way[k].line == line)
                done = later(done, core->way[k].done);
    const bool blocks = source == OTHER_CACHE || form.flags & (ATOMIC | UNKNOWN);
    if (access->write) {
        const ps value = blocks ? done : later(ready(core, form.source), form.flags & UPDATES ? core->loaded : 0);
        set_words(core, access, value, now);
        if (form.flags & UPDATES)
            set(core, form.target, value);
    } else {
        core->loaded = later(done, later(word(core, access->address), ready(core, form.source)));
        set(core, form.target, core->loaded);
    }
    return blocks ? done : now;
}
