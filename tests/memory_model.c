/* The model without QEMU: a machine's configuration, and instructions one by one, as testbed/simulator/instrument.c would report them. For tests. */
#include "without_qemu.h"
#include <string.h>
#include <ucontext.h>

/* Each CPU executes in a context of its own, which is left where it has to wait for its turn. */
static ucontext_t caller, contexts[MOST_CPUS];
static char stacks[MOST_CPUS][1 << 16];
static struct { const uint8_t *code; int kind, bytes; uint64_t address; bool done; } given[MOST_CPUS];

void take_turn(int i, ps slack)
{
    if (slack <= 0)
        swapcontext(&contexts[i], &caller);
}

int begin(const char *path)
{
    forget_overlap();
    return configure(path) && prepare_memory();
}

ps now(int i)
{
    return clock_of(i);
}

void wait_for(int i, ps when)
{
    if (when > clock_of(i))
        atomic_store(&cpu[i].clock, when);
}

static void perform(int i)
{
    const struct form form = machine.misses || machine.limited ? decode(given[i].code) : (struct form){0};
    struct access access = {.address = given[i].address, .physical = given[i].address, .range = range_of(given[i].address), .bytes = given[i].bytes, .form = form};
    atomic_store(&cpu[i].clock, clock_of(i) + machine.instruction);
    if (machine.misses && (form.flags & (FENCE | UNKNOWN) || (form.target && !(form.flags & MEMORY))))
        pass_on(i, form);
    for (int write = 0; write < 2; write++)
        if (given[i].kind >> write & 1 && (write || !(form.flags & ATOMIC))) {
            access.write = write;
            access_memory(i, &access);
        }
    given[i].done = true;
}

/* Goes on with what the CPU executes: whether it is done, or waits for its turn. */
bool go_on_executing(int i)
{
    swapcontext(&caller, &contexts[i]);
    return given[i].done;
}

/* An instruction that reads (1), writes (2) or does both (3) `bytes` at `address`, or neither (0); `code` has 16 bytes. */
bool execute(int i, const uint8_t *code, int kind, uint64_t address, int bytes)
{
    static uint8_t codes[MOST_CPUS][16];
    given[i].code = memcpy(codes[i], code, 16), given[i].kind = kind, given[i].address = address, given[i].bytes = bytes, given[i].done = false;
    getcontext(&contexts[i]);
    contexts[i].uc_stack = (stack_t){.ss_sp = stacks[i], .ss_size = sizeof stacks[i]};
    contexts[i].uc_link = &caller;
    makecontext(&contexts[i], (void (*)(void))perform, 1, i);
    return go_on_executing(i);
}

uint64_t decoded(const uint8_t *code)
{
    const struct form f = decode(code);
    return f.address | (uint64_t)f.source << 16 | (uint64_t)f.target << 32 | (uint64_t)f.flags << 48;
}
