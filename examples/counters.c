/* counters: two threads, each of which adds to a counter of its own; what does an addition cost by how far apart the counters are, on CPUs of one socket
 * (0 and 1) and of two (0 and 2)? */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum { ADDITIONS = 4000 };
static _Alignas(512) char memory[1024];
static struct { int cpu, at; } work[2];
static double seconds[2];
static atomic_int missing;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *count(void *number)
{
    long me = (long)number;
    cpu_set_t cpu;
    CPU_ZERO(&cpu);
    CPU_SET(work[me].cpu, &cpu);
    sched_setaffinity(0, sizeof cpu, &cpu);
    atomic_long *counter = (atomic_long *)(memory + work[me].at);
    for (atomic_fetch_sub(&missing, 1); atomic_load(&missing);) /* begin together */
        ;
    double began = now();
    for (int i = 0; i < ADDITIONS; i++)
        atomic_fetch_add(counter, 1);
    seconds[me] = now() - began;
    return NULL;
}

int main(void)
{
    for (int other = 1; other <= 2; other++)
        for (int apart = 8; apart <= 256; apart *= apart == 8 ? 8 : 2) {
            pthread_t thread[2];
            missing = 2;
            for (long i = 0; i < 2; i++) {
                work[i].cpu = i * other, work[i].at = i * apart;
                pthread_create(&thread[i], NULL, count, (void *)i);
            }
            for (int i = 0; i < 2; i++)
                pthread_join(thread[i], NULL);
            printf("CPUs 0 and %d, counters %3d bytes apart: %5.0f ns an addition\n", other, apart, 5e8 * (seconds[0] + seconds[1]) / ADDITIONS);
        }
    return 0;
}
