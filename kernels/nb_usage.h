/* What the kernel has counted of the calling thread. */
#ifndef NB_USAGE_H
#define NB_USAGE_H
#include "nb.h"
#include <string.h>
#include <sys/resource.h>

/* Page faults, switches of its own accord (ru_nvcsw: it slept) and the others (ru_nivcsw: it lost its CPU); zeros where the kernel does not tell. */
static inline struct rusage nb_usage(void)
{
    struct rusage found;
    memset(&found, 0, sizeof found);
    (void)getrusage(RUSAGE_THREAD, &found);
    return found;
}
#endif
