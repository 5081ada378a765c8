/* Dependent loads of 1 and of 2 threads on node 0, then of 1 thread on node 1: ns per load, one line each. For the simulated machine. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LOADS = 8000, STRIDE = 128, BYTES = LOADS * STRIDE, MPOL_BIND = 2 };
static struct work { int cpu, node; double ns; } work[2];
static atomic_int missing;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void *chain(int node)
{
    unsigned long mask = 1ul << node;
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || syscall(SYS_mbind, p, (unsigned long)BYTES, MPOL_BIND, &mask, 65ul, 0u))
        exit(3);
    for (long i = 0; i < LOADS; i++) /* 77 has no factor in common with 8000 */
        *(void **)(p + i * STRIDE) = p + (i + 77) % LOADS * STRIDE;
    return p;
}

static void *walk(void *argument)
{
    struct work *w = argument;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(w->cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
    void **p = chain(w->node); /* in the thread that walks: no other cache holds any of it */
    for (int i = 0; i < LOADS; i++) /* what the building left in the cache goes */
        p = *p;
    for (atomic_fetch_sub(&missing, 1); atomic_load(&missing);) /* awake: a processor that sleeps wakes up when the host likes */
        ;
    for (int i = 0; i < LOADS / 4; i++) /* who woke up first is no longer alone */
        p = *p;
    double begin = now();
    for (int i = 0; i < LOADS / 2; i++)
        p = *p;
    w->ns = (now() - begin) / (LOADS / 2);
    for (int i = 0; i < LOADS / 4; i++) /* nor is who woke up last */
        p = *p;
    return p;
}

static void measure(int threads, int node)
{
    pthread_t thread[2];
    missing = threads;
    for (int i = 0; i < threads; i++) {
        work[i] = (struct work){i, node, 0};
        pthread_create(&thread[i], NULL, walk, &work[i]);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    printf("%d %d %.1f\n", threads, node, work[0].ns);
}

int main(void)
{
    measure(1, 0);
    measure(2, 0);
    measure(1, 1);
    return 0;
}
