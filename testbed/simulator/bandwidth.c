/* Bandwidth: each memory controller, and each link from one node to another, serves one line after the other, in the order in which they ask.
 *
 * What a line takes there (its bytes divided by the bandwidth) keeps others waiting; the line itself has it in the latency of its memory. */
#include "simulator.h"

static _Atomic ps controller_free[MOST_NODES], link_free[MOST_NODES][MOST_NODES];

/* When something that is busy for `service` with each line begins with one that is wanted at `at`. */
static ps queue(_Atomic ps *until, ps service, ps at)
{
    ps begin, free = atomic_load(until);
    if (!service)
        return at;
    do
        begin = free > at ? free : at;
    while (!atomic_compare_exchange_weak(until, &free, begin + service));
    return begin;
}

/* A line from the memory of `home` to a CPU of `node`: when it sets out. */
ps queue_read(int node, int home, ps at)
{
    return queue(&link_free[home][node], machine.link[home][node], queue(&controller_free[home], machine.occupancy[home], at));
}

/* A line back: when the controller begins with it. */
ps queue_write(int node, int home, ps at)
{
    return queue(&controller_free[home], machine.occupancy[home], queue(&link_free[node][home], machine.link[node][home], at));
}
