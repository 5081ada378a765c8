/* Programs that do a known number of what `numabench bill` counts: `victims WHAT N`. Each prints the kernel's own count of it, as it stands at its end.
 *
 * moves: N moves to another CPU, of the one thread. parks: N times it sleeps on a futex until its partner on the same CPU wakes it.
 * gives: N times a page is touched and given back, beside a thread that runs. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int cpus[2], count;
static atomic_int turn, done;

static void pin(int cpu)
{
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    if (sched_setaffinity(0, sizeof only, &only))
        _exit(3);
}

/* The first CPUs that may be used; whether there are two. */
static int find_cpus(void)
{
    cpu_set_t all;
    int found = 0;
    if (sched_getaffinity(0, sizeof all, &all))
        return 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
        if (CPU_ISSET(cpu, &all))
            cpus[found++] = cpu;
    return found == 2;
}

static long migrations(void)
{
    char line[200];
    long found = -1;
    FILE *file = fopen("/proc/self/sched", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, "se.nr_migrations", 16))
            found = atol(strchr(line, ':') + 1);
    if (file)
        fclose(file);
    return found;
}

static long tlb_interrupts(void)
{
    static char line[1 << 16];
    long found = 0;
    FILE *file = fopen("/proc/interrupts", "r");
    while (file && fgets(line, sizeof line, file)) {
        char *at = strstr(line, "TLB:"), *end;
        for (at = at ? at + 4 : line; at != line; at = end) {
            found += strtol(at, &end, 10);
            if (end == at)
                break;
        }
    }
    if (file)
        fclose(file);
    return found;
}

static void pass_turns(int own)
{
    for (int i = 0; i < count; i++) {
        while (atomic_load(&turn) != own)
            syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, !own, NULL, NULL, 0);
        atomic_store(&turn, !own);
        syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

static void *partner(void *nothing)
{
    pass_turns(1);
    return nothing;
}

static void *spinner(void *nothing)
{
    pin(cpus[1]);
    atomic_store(&turn, 1);
    while (!atomic_load(&done))
        ;
    return nothing;
}

int main(int argc, char **argv)
{
    struct rusage used;
    pthread_t other;
    if (argc != 3 || !find_cpus())
        return 77;
    count = atoi(argv[2]);
    if (!strcmp(argv[1], "moves")) {
        pin(cpus[0]);
        long before = migrations();
        for (int i = 1; i <= count; i++)
            pin(cpus[i % 2]);
        printf("%ld %ld\n", before, migrations());
    } else if (!strcmp(argv[1], "parks")) {
        pin(cpus[0]);
        pthread_create(&other, NULL, partner, NULL);
        pass_turns(0);
        pthread_join(other, NULL);
        getrusage(RUSAGE_SELF, &used);
        printf("%ld\n", used.ru_nvcsw);
    } else {
        long before = tlb_interrupts();
        char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        pin(cpus[0]);
        pthread_create(&other, NULL, spinner, NULL);
        while (!atomic_load(&turn))
            ;
        for (int i = 0; i < count; i++) {
            page[0] = 1;
            if (madvise(page, 4096, MADV_DONTNEED))
                return 4;
        }
        atomic_store(&done, 1);
        pthread_join(other, NULL);
        getrusage(RUSAGE_SELF, &used);
        printf("%ld %ld\n", used.ru_minflt, tlb_interrupts() - before);
    }
    return 0;
}
