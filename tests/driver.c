/* Runs one kernel without Python, for other processors under emulation and under sanitizers: driver THREADS BYTES PARAMETER...
 * Prints the descriptor's name and, per thread: executed, operations, check, begin, end, cursor, values. Exit code 3: the kernel cannot do that.
 *
 * driver alone prints what there is to choose: name, initial, least and most value and choices of each parameter. What lies behind the buffers must not be
 * touched: where AddressSanitizer looks, it is told so, to the byte. */
#include "nb.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define FORBID(from, bytes) __asan_poison_memory_region(from, bytes)
#else
#define FORBID(from, bytes) (void)0
#endif

extern const struct nb_descriptor nb_descriptor;
int nb_run(struct nb_thread *);

#define MOST_THREADS 8
#define UNSUPPORTED 3
#define PAGE 4096u /* a block of its own for each thread, as Python has it */

/* On a CPU of its own, as numabench has it: threads that wait for each other on one would spin through whole time slices. */
static void *enter(void *at)
{
    const struct nb_thread *t = at;
    cpu_set_t allowed, own;
    int cpus = !sched_getaffinity(0, sizeof allowed, &allowed) ? CPU_COUNT(&allowed) : 0, wanted = cpus ? (int)t->index % cpus : 0;
    CPU_ZERO(&own);
    for (int cpu = 0; cpus && cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && !wanted--)
            CPU_SET(cpu, &own);
    if (cpus)
        sched_setaffinity(0, sizeof own, &own);
    return (void *)(intptr_t)nb_run(at);
}

static int all(struct nb_case *c, uint8_t *blocks, uint32_t phase)
{
    pthread_t id[MOST_THREADS];
    void *status;
    int worst = 0;
    c->phase = phase;
    c->arrived = 0;
    memset(c->opens, 0, sizeof c->opens);
    for (uint32_t i = 0; i < c->threads; i++) {
        struct nb_thread *t = (struct nb_thread *)(blocks + i * PAGE);
        t->gates = 0;
        pthread_create(&id[i], NULL, enter, t);
    }
    for (uint32_t i = 0; i < c->threads; i++) {
        pthread_join(id[i], &status);
        worst |= (int)(intptr_t)status;
    }
    return worst;
}

/* `bytes` from a page's begin on, with a page behind them that nobody may touch. */
static uint8_t *memory(uint64_t bytes)
{
    const uint64_t whole = (bytes + PAGE - 1) / PAGE * PAGE + PAGE;
    uint8_t *at = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        exit(UNSUPPORTED);
    mprotect(at + whole - PAGE, PAGE, PROT_NONE);
    FORBID(at + bytes, whole - bytes);
    return at;
}

/* What kernels are handed by convention: an end to write to, the end to read it from, a file to read; then two for the other direction, and a pipe's own two. */
static void open_all(struct nb_case *c)
{
    int there[2], back[2];
    uint8_t page[PAGE];
    memset(c->descriptor, -1, sizeof c->descriptor);
    c->descriptor[2] = memfd_create("source", 0);
    for (uint32_t i = 0; i < sizeof page; i++)
        page[i] = (uint8_t)(i * 7);
    for (int i = 0; i < 256; i++)
        if (write(c->descriptor[2], page, sizeof page) != (ssize_t)sizeof page)
            exit(UNSUPPORTED);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, there) || socketpair(AF_UNIX, SOCK_STREAM, 0, back))
        exit(UNSUPPORTED);
    c->descriptor[0] = there[0], c->descriptor[1] = there[1];
    c->descriptor[3] = back[0], c->descriptor[4] = back[1];
    if (pipe(back))
        exit(UNSUPPORTED);
    c->descriptor[5] = back[1], c->descriptor[6] = back[0];
}

static int choices(void)
{
    printf("%s\n", nb_descriptor.name);
    for (uint32_t i = 0; i < nb_descriptor.n_parameters; i++) {
        const struct nb_parameter *p = &nb_descriptor.parameters[i];
        printf("%s %lld %lld %lld %s\n", p->name, (long long)p->initial, (long long)p->least, (long long)p->most,
               p->choices ? p->choices : "-");
    }
    return 0;
}

int main(int count, char **words)
{
    static struct nb_case c;
    static uint8_t blocks[MOST_THREADS * PAGE] __attribute__((aligned(PAGE)));
    if (count < 3)
        return choices();
    c.threads = (uint32_t)atoi(words[1]);
    c.buffer_bytes = c.scratch_bytes = strtoull(words[2], NULL, 0);
    c.buffer = memory(c.buffer_bytes);
    c.scratch = memory(c.scratch_bytes);
    c.warmup_ns = 100000;
    c.window_ns = 2000000;
    c.batch_ns = 20000;
    open_all(&c);
    c.crowded = c.threads > sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 3; i < count; i++)
        c.parameter[i - 3] = strtoll(words[i], NULL, 0);
    for (uint32_t i = 0; i < c.threads; i++) {
        struct nb_thread *t = (struct nb_thread *)(blocks + i * PAGE);
        t->shared = &c;
        t->index = i;
        t->group = i % 2;
        t->schedstat = -1;
    }
    for (int phase = 0; phase < 3; phase++) /* prepared once, measured twice */
        if (all(&c, blocks, phase ? NB_MEASURE : NB_PREPARE))
            return UNSUPPORTED;
    printf("%s\n", nb_descriptor.name);
    for (uint32_t i = 0; i < c.threads; i++) {
        const struct nb_thread *t = (const struct nb_thread *)(blocks + i * PAGE);
        const uint64_t found[] = {t->executed, t->operations, t->check, t->begin_ns, t->end_ns, t->cursor};
        for (size_t k = 0; k < NB_COUNT(found); k++)
            printf("%llu ", (unsigned long long)found[k]);
        for (size_t k = 0; k < NB_VALUES; k++)
            printf("%llu%c", (unsigned long long)t->value[k], k + 1 < NB_VALUES ? ' ' : '\n');
    }
    return 0;
}
