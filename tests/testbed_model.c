/* The simulator's model without QEMU: a thread for each CPU plays a program, as instrument.c would on behalf of a guest.
 *
 *   testbed_model CONFIGURATION TURNS < programs
 *
 * A line for each CPU: its number, how many instructions it executes first, then steps that it repeats: `run N` (instructions), `read A`, `write A`, `atomic A`,
 * `fence 0`. A line comes back for each: its number and the ps at which each of its turns ended. All go on until every CPU has had its turns. */
#include "without_qemu.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST_STEPS 4096

struct step {
    char kind; /* its first letter; i: instructions */
    uint64_t value;
};
static struct program {
    int cpu, begin, steps;
    struct step step[MOST_STEPS];
    ps *ended;
} programs[MOST_CPUS];
static int turns;
static atomic_int unfinished;

static void play(int i, const struct step *step)
{
    if (step->kind == 'i') {
        counters[i].executed += step->value;
        return;
    }
    settle(i);
    if (step->kind == 'f')
        drain_stores(i);
    else
        access_memory(i, &(struct access){.address = step->value, .physical = step->value, .bytes = 8, .write = step->kind != 'r', .form.flags = step->kind == 'a' ? ATOMIC : 0});
}

static void *run(void *argument)
{
    struct program *p = argument;
    me = p->cpu;
    cpu[me].thread = syscall(SYS_gettid);
    counters[me].executed = p->begin;
    for (int turn = 0; atomic_load(&unfinished); turn++) {
        for (int k = 0; k < p->steps; k++)
            play(me, &p->step[k]);
        settle(me);
        take_turn(me, QUANTUM);
        if (turn < turns)
            p->ended[turn] = clock_of(me);
        if (turn == turns - 1)
            atomic_fetch_sub(&unfinished, 1);
    }
    atomic_store(&cpu[me].state, IDLE);
    wake_ready();
    return NULL;
}

int main(int argc, char **argv)
{
    char text[1 << 16], *rest;
    int n = 0;
    pthread_t threads[MOST_CPUS];
    if (argc != 3 || !configure(argv[1]) || !prepare_memory())
        return 2;
    turns = atoi(argv[2]);
    for (; n < MOST_CPUS && fgets(text, sizeof text, stdin); n++) {
        struct program *p = &programs[n];
        p->cpu = atoi(strtok_r(text, " \n", &rest));
        p->begin = atoi(strtok_r(NULL, " \n", &rest));
        p->ended = calloc(turns, sizeof *p->ended);
        for (char *kind; p->steps < MOST_STEPS && (kind = strtok_r(NULL, " \n", &rest)); p->steps++)
            p->step[p->steps] = (struct step){kind[0] == 'r' && kind[1] == 'u' ? 'i' : kind[0], strtoull(strtok_r(NULL, " \n", &rest), NULL, 10)};
        cpu[p->cpu].state = RUNNING;
    }
    atomic_store(&unfinished, n);
    for (int k = 0; k < n; k++)
        pthread_create(&threads[k], NULL, run, &programs[k]);
    for (int k = 0; k < n; k++)
        pthread_join(threads[k], NULL);
    for (int k = 0; k < n; k++) {
        printf("%d", programs[k].cpu);
        for (int turn = 0; turn < turns; turn++)
            printf(" %lld", (long long)programs[k].ended[turn]);
        printf("\n");
    }
    return 0;
}
