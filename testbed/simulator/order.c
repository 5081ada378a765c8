/* Order: a virtual CPU may run at most a quantum of virtual time ahead of the slowest one, and not at all ahead on lines that
 * others touched lately (memory.c says which). What the guest finds therefore depends on the host's scheduling by a quantum at
 * most, and that does not add up. */
#include "simulator.h"
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define SPINS 3000          /* looks before a thread sleeps: about 100 us: being woken up costs a virtual machine 50 */
#define NAP_NS 500000       /* how long it sleeps before it looks whether the others are stuck */
#define STUCK_LOOKS 2

static atomic_int waiting;

static bool may_go(int i, ps slack)
{
    ps mine = clock_of(i);
    for (int j = 0; j < machine.cpus; j++)
        if (j != i && atomic_load(&cpu[j].state) == RUNNING) {
            ps other = clock_of(j), allowed = slack != AMONG_MEASURING ? slack : counters_of(j)->inside ? 0 : QUANTUM;
            if (other + allowed < mine || (!allowed && other == mine && j < i))
                return false;
        }
    return true;
}

void wake_ready(void)
{
    if (!atomic_load(&waiting))
        return;
    for (int w = 0; w < machine.cpus; w++)
        if (atomic_load(&cpu[w].waiting) && (!atomic_load(&on) || may_go(w, cpu[w].slack)) && atomic_exchange(&cpu[w].waiting, 0))
            syscall(SYS_futex, &cpu[w].waiting, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static bool asleep(int thread)
{
    char path[64], text[256], *end;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    FILE *file = fopen(path, "r");
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        fclose(file);
    text[length] = 0;
    return (end = strrchr(text, ')')) && end[1] && end[2] != 'R';
}

/* All that i waits for sleep where this plug-in cannot see it (QEMU's big lock, an exclusive section): waiting on would be for
 * ever. */
static bool stuck(int i)
{
    ps mine = clock_of(i);
    for (int j = 0; j < machine.cpus; j++)
        if (j != i && cpu[j].state == RUNNING && clock_of(j) <= mine && !cpu[j].waiting && !asleep(cpu[j].thread))
            return false;
    return true;
}

void take_turn(int i, ps slack)
{
    struct cpu *self = &cpu[i];
    int looks = 0, active = 0;
    wake_ready();
    if (may_go(i, slack))
        return;
    self->waits++, self->slack = slack;
    for (int j = 0; j < machine.cpus; j++)
        active += cpu[j].state == RUNNING && !cpu[j].waiting;
    if (active <= machine.spinners)
        for (int k = SPINS; k > 0; k--) {
            _mm_pause();
            if (may_go(i, slack) || !atomic_load(&on))
                return;
        }
    while (atomic_load(&on)) {
        struct timespec nap = {0, NAP_NS};
        atomic_store(&self->waiting, 1);
        atomic_fetch_add(&waiting, 1);
        long failed = 0;
        self->sleeps++;
        if (!may_go(i, slack))
            failed = syscall(SYS_futex, &self->waiting, FUTEX_WAIT_PRIVATE, 1, &nap, NULL, 0);
        int error = failed ? errno : 0;
        atomic_store(&self->waiting, 0);
        atomic_fetch_sub(&waiting, 1);
        if (may_go(i, slack))
            return;
        if (error == ETIMEDOUT && (looks = stuck(i) ? looks + 1 : 0) >= STUCK_LOOKS) {
            self->stalls++;
            return;
        }
    }
}
