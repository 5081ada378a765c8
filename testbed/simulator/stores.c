/* Store buffers: a plain store takes a place and the CPU goes on. The stores of a CPU drain in order and one at a time, each at the price that it then has;
 * the first one of a buffer is always under way. A full buffer waits for it, a full fence and a locked operation for all of them.
 *
 * When a store begins is a matter of its CPU's virtual time: whatever moves that clock on serves the stores that begin before. */
#include "simulator.h"

static struct buffer {
    struct access store[MOST_STORES]; /* a ring of machine.stores */
    int first, count;
    ps done; /* when the first one will be */
} buffers[MOST_CPUS];

static struct access *place(struct buffer *b, int k)
{
    return &b->store[(b->first + k) % machine.stores];
}

void advance_clock(int i, ps now)
{
    struct buffer *b = &buffers[i];
    enum source source;
    while (b->count && b->done <= now) {
        b->first = (b->first + 1) % machine.stores;
        if (--b->count) {
            atomic_store(&cpu[i].clock, b->done);
            b->done = serve_in_turn(i, place(b, 0), b->done, &source);
        }
    }
    atomic_store(&cpu[i].clock, now);
}

void drain_stores(int i)
{
    while (buffers[i].count)
        advance_clock(i, buffers[i].done);
}

/* The model came on: nothing is under way. */
void forget_stores(int i)
{
    buffers[i].count = 0;
}

/* A load of a line with a store in the buffer takes what it finds there. */
static bool forwards(struct buffer *b, uint32_t line)
{
    for (int k = 0; k < b->count; k++)
        if (line_of(place(b, k)->range, place(b, k)->physical) == line)
            return true;
    return false;
}

bool buffer_access(int i, const struct access *access)
{
    struct buffer *b = &buffers[i];
    enum source source;
    if (access->form.flags & ATOMIC) {
        drain_stores(i);
        return false;
    }
    if (!access->write) {
        bool found = forwards(b, line_of(access->range, access->physical));
        if (found)
            advance_clock(i, clock_of(i) + machine.hit);
        return found;
    }
    if (b->count == machine.stores)
        advance_clock(i, b->done);
    *place(b, b->count++) = *access;
    if (b->count == 1)
        b->done = serve_in_turn(i, access, clock_of(i), &source);
    return true;
}
