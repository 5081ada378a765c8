/* Runs one kernel without Python, for other processors under emulation: driver THREADS BYTES PARAMETER...
 * Prints the descriptor's name and, per thread: executed, operations, check, begin, end, cursor, values. */
#include "nb.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct nb_descriptor nb_descriptor;
int nb_run(struct nb_thread *);

static void *enter(void *t)
{
    return (void *)(intptr_t)nb_run(t);
}

static int all(struct nb_case *c, struct nb_thread *threads, uint32_t phase)
{
    pthread_t id[8];
    void *status;
    int worst = 0;
    c->phase = phase;
    c->arrived = 0;
    memset(c->opens, 0, sizeof c->opens);
    for (uint32_t i = 0; i < c->threads; i++) {
        threads[i].gates = 0;
        pthread_create(&id[i], NULL, enter, &threads[i]);
    }
    for (uint32_t i = 0; i < c->threads; i++) {
        pthread_join(id[i], &status);
        worst |= (int)(intptr_t)status;
    }
    return worst;
}

int main(int count, char **words)
{
    static struct nb_case c;
    struct nb_thread *threads = aligned_alloc(4096, 8 * 4096);
    c.threads = (uint32_t)atoi(words[1]);
    c.buffer_bytes = c.scratch_bytes = strtoull(words[2], NULL, 0);
    c.buffer = aligned_alloc(4096, c.buffer_bytes);
    c.scratch = aligned_alloc(4096, c.scratch_bytes);
    memset(c.buffer, 0, c.buffer_bytes);
    memset(threads, 0, 8 * 4096);
    c.warmup_ns = 100000;
    c.window_ns = 2000000;
    c.batch_ns = 20000;
    for (int i = 3; i < count; i++)
        c.parameter[i - 3] = strtoll(words[i], NULL, 0);
    for (uint32_t i = 0; i < c.threads; i++) {
        threads[i].shared = &c;
        threads[i].index = i;
    }
    if (all(&c, threads, NB_PREPARE) || all(&c, threads, NB_MEASURE))
        return 1;
    printf("%s\n", nb_descriptor.name);
    for (uint32_t i = 0; i < c.threads; i++) {
        const struct nb_thread *t = &threads[i];
        const uint64_t found[] = {t->executed, t->operations, t->check, t->begin_ns, t->end_ns, t->cursor};
        for (size_t k = 0; k < NB_COUNT(found); k++)
            printf("%llu ", (unsigned long long)found[k]);
        for (size_t k = 0; k < NB_VALUES; k++)
            printf("%llu%c", (unsigned long long)t->value[k], k + 1 < NB_VALUES ? ' ' : '\n');
    }
    return 0;
}
