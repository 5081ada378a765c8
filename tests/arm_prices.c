/* Prices on a simulated machine of aarch64, ns: a dependent load from memory of node 0 by CPU 0 and by the last one, and what two CPUs pay that count in turn by
 * compare-and-swap, for a round trip. The atomics are those of the kernels: -DNB_LSE, or exclusive pairs. */
#define _GNU_SOURCE
#include "../kernels/nb_atomic.h"
#include "../testbed/guest/switch.h"
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { LOADS = 4000, STEP = 512, ROUNDS = 1000, ASIDE = ROUNDS / 5 };
static _Alignas(4096) uint64_t word;
static _Alignas(4096) int arrived;
static int last;
static double took[2];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        exit(3);
}

static void chase(char *first, const char *what)
{
    char *p = first;
    SWITCH(TURN_ON);
    SWITCH(ENTER);
    for (int k = 0; k < LOADS / 10; k++) /* the page of code is translated anew */
        p = *(char **)p;
    const double begin = now();
    for (int k = 0; k < LOADS; k++)
        p = *(char **)p;
    const double ns = now() - begin;
    SWITCH(LEAVE);
    SWITCH(TURN_OFF);
    printf("%s %.3f\n", what, ns / LOADS);
    if (!p)
        exit(3);
}

static void *turns(void *index)
{
    const uint64_t mine = (uintptr_t)index;
    double begin = 0;
    pin(mine ? last : 0);
    nb_add(&word, 0);
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < 3)
        ;
    SWITCH(ENTER);
    for (uint64_t k = 0; k < ROUNDS; k++) {
        if (k == ASIDE)
            begin = now();
        for (uint64_t seen = 2 * k + mine; !nb_cas(&word, &seen, seen + 1);)
            seen = 2 * k + mine;
    }
    took[mine] = now() - begin;
    SWITCH(LEAVE);
    return NULL;
}

int main(void)
{
    pthread_t threads[2];
    last = sysconf(_SC_NPROCESSORS_ONLN) - 1;
    printf("%s\npage %ld\n", NB_INSTRUCTIONS, sysconf(_SC_PAGESIZE));
    pin(0);
    char *memory = aligned_alloc(1 << 16, 2 * LOADS * STEP);
    for (uint64_t k = 0; k < 2 * LOADS; k++) /* 4001 has no part in common with 8000: one cycle */
        *(char **)(memory + k * STEP) = memory + (k + 4001) % (2 * LOADS) * STEP;
    chase(memory, "near");
    pin(last);
    chase(memory, "far");
    for (uintptr_t k = 0; k < 2; k++)
        pthread_create(&threads[k], NULL, turns, (void *)k);
    while (__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < 2)
        usleep(1000);
    SWITCH(TURN_ON);
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    for (int k = 0; k < 2; k++)
        pthread_join(threads[k], NULL);
    SWITCH(TURN_OFF);
    printf("round %.3f %.3f\n", took[0] / (ROUNDS - ASIDE), took[1] / (ROUNDS - ASIDE));
    return word == 2 * ROUNDS ? 0 : 4;
}
