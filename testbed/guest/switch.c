/* Preloaded into what runs in the guest: switches the model on while all threads of a kernel measure, and off again.
 *
 * numabench does not know where it runs. It loads a kernel and looks up `nb_run`; this library answers with a function of its
 * own that turns the model on when the first thread of a case enters the real one, and off when the last has left. (The kernel's
 * gate lets none leave before all have entered.) Where there are levels of caches it is on while a single thread prepares, too. Everything else (Python, compiling, starting processes) runs at the speed of plain emulation.
 *
 * The switch is harmless on any machine (switch.h). */
#include "../../kernels/nb.h"
#include "switch.h"
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MOST_KERNELS 8
#ifdef __aarch64__
#define OLDEST_GLIBC "GLIBC_2.17"
#else
#define OLDEST_GLIBC "GLIBC_2.2.5"
#endif

typedef int entry(struct nb_thread *);
static entry *kernels[MOST_KERNELS];
static atomic_uint inside;
static atomic_int on; /* the model is: a thread that entered before would not be inside */

/* WATCH takes the two loads that follow it as the ends of the memory to record. */
static void watch(const uint8_t *first, const uint8_t *last)
{
#ifdef __aarch64__
    __asm__ volatile(SWITCH_INSTRUCTION("%c2") "\n\tldrb w9, [%0]\n\tldrb w9, [%1]" ::"r"(first), "r"(last), "i"(WATCH) : "x9", "memory");
#else
    __asm__ volatile(SWITCH_INSTRUCTION("%c2") "\n\tmovb (%0), %%al\n\tmovb (%1), %%al" ::"r"(first), "r"(last), "i"(WATCH)
                     : "rax", "memory");
#endif
}

static int enter(entry *kernel, struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->phase != NB_MEASURE && !(c->threads == 1 && getenv("TESTBED_CACHES"))) /* levels of caches are as the preparation left them */
        return kernel(t);
    if (atomic_fetch_add(&inside, 1) == 0) {
        SWITCH(TURN_ON);
        SWITCH(ENTER);
        if (c->phase == NB_MEASURE) /* reading pages that nobody has written would keep them from being huge */
            watch(c->buffer, c->buffer + c->buffer_bytes - 1);
        atomic_store(&on, 1);
    }
    while (!atomic_load(&on))
        ;
    SWITCH(ENTER);
    int status = kernel(t);
    SWITCH(LEAVE);
    if (atomic_fetch_sub(&inside, 1) == 1) {
        atomic_store(&on, 0);
        SWITCH(TURN_OFF);
    }
    return status;
}

#define ENTRY(k)                                                                                                                     \
    static int enter_##k(struct nb_thread *t)                                                                                        \
    {                                                                                                                                \
        return enter(kernels[k], t);                                                                                                 \
    }
ENTRY(0) ENTRY(1) ENTRY(2) ENTRY(3) ENTRY(4) ENTRY(5) ENTRY(6) ENTRY(7)

static entry *const entries[MOST_KERNELS] = {enter_0, enter_1, enter_2, enter_3, enter_4, enter_5, enter_6, enter_7};

/* Beyond MOST_KERNELS a kernel is called directly, which a missing figure would show. */
__attribute__((visibility("default"))) void *dlsym(void *restrict library, const char *restrict name)
{
    static void *(*real)(void *, const char *);
    if (!real)
        real = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");
    if (!real)
        real = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", OLDEST_GLIBC);
    void *found = real(library, name);
    if (!found || strcmp(name, "nb_run"))
        return found;
    for (int k = 0; k < MOST_KERNELS; k++)
        if (!kernels[k] || kernels[k] == (entry *)found) {
            kernels[k] = (entry *)found;
            return (void *)entries[k];
        }
    return found;
}
