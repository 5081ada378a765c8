/* lookups WEIGHT0 WEIGHT1: four threads look up random lines of a table whose pages are dealt out to two nodes by these weights (0: none).
 * Prints what all of them read together. Needs Linux 6.9 and root (who writes weights); a simulated machine has both. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 4, LOOKUPS = 10000, LINE = 64, PAGE = 4096, BYTES = 16 << 20, MPOL_WEIGHTED_INTERLEAVE = 6 };
static char *table;
static atomic_int missing = THREADS;
static double rate[THREADS]; /* bytes a second */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *look_up(void *number)
{
    cpu_set_t cpu;
    CPU_ZERO(&cpu);
    CPU_SET((long)number, &cpu);
    sched_setaffinity(0, sizeof cpu, &cpu);
    unsigned long random = (long)number + 1;
    for (atomic_fetch_sub(&missing, 1); atomic_load(&missing);) /* begin together */
        ;
    double began = now();
    for (int i = 0; i < LOOKUPS; i++) {
        random = random * 6364136223846793005ul + 1442695040888963407ul;
        *(volatile char *)(table + (random >> 40) % (BYTES / LINE) * LINE);
    }
    rate[(long)number] = LINE * LOOKUPS / (now() - began);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return fprintf(stderr, "usage: lookups WEIGHT0 WEIGHT1\n"), 2;
    unsigned long nodes = 0;
    for (int node = 0; node < 2; node++) {
        char path[80];
        snprintf(path, sizeof path, "/sys/kernel/mm/mempolicy/weighted_interleave/node%d", node);
        FILE *file = atoi(argv[1 + node]) ? fopen(path, "w") : NULL;
        if (file && fprintf(file, "%s", argv[1 + node]) > 0 && !fclose(file))
            nodes |= 1ul << node;
    }
    table = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(table, BYTES, MADV_NOHUGEPAGE); /* or 2 MiB at a time would be dealt out */
    if (syscall(SYS_mbind, table, (unsigned long)BYTES, MPOL_WEIGHTED_INTERLEAVE, &nodes, 65ul, 0u))
        return perror("mbind"), 1;
    for (long at = 0; at < BYTES; at += PAGE)
        table[at] = 1;
    pthread_t thread[THREADS];
    for (long i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, look_up, (void *)i);
    double sum = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        sum += rate[i];
    }
    printf("weights %s:%s  %.0f MB/s\n", argv[1], argv[2], 1e-6 * sum);
    return 0;
}
