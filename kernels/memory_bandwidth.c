/* Bandwidth: every thread streams through its own part of the memory, round and round, and all of them at the same time.
 *
 * One operation is a line of 64 bytes of each array. The data is never zero and changes in every round: writing zeros, or what is
 * there already, is another measurement on processors that notice. The check value is the sum of the first words of all steps
 * that were read or, of the other streams, that of all words which they left, with the first half counted twice (a permutation of the whole has its sum). Python predicts it. */
#include "nb.h"
#include "nb_cycles.h"
#include "nb_stream.h"
#include "nb_window.h"

enum { KERNEL, VECTOR };
enum { CLOCK = 6 }; /* of value[]: batches of nb_clock */

static const struct nb_parameter parameters[] = {
    [KERNEL] = {"kernel", NB_STREAM_NAMES, "load a; a = word; a = b; a = b + factor * c; _nt: with stores past the caches", NB_READ, 0,
                NB_TRIAD_NT},
    [VECTOR] = {"vector", NB_VECTOR_NAMES, "instruction set", NB_PORTABLE_WORDS, 0, NB_SVE_SET},
};
static const struct nb_metric metrics[] = {
    {"bandwidth", "B/s", "bytes that the program reads and writes, of all threads, 1 GB = 10^9 B", NB_HIGHER_IS_BETTER},
    {"bus_bandwidth", "B/s", "the same with the lines that stores into caches read first: an estimate of what the memory moves",
     NB_HIGHER_IS_BETTER},
    {"bytes_per_cycle", "B/cycle", "program bytes of one thread in a cycle of its core, by its clock as the window ends", NB_HIGHER_IS_BETTER},
};
NB_DESCRIBE("memory_bandwidth", 3, "streams through private memory", parameters, metrics);

#define LINE 64u
#define ALIASED 4096u
#define CHECKED (64u << 20) /* bytes that are summed up at most: the streams come by all of them in turn */

static uint64_t arrays(const struct nb_case *c)
{
    switch (c->parameter[KERNEL]) {
    case NB_COPY:
    case NB_COPY_NT:
        return 2;
    case NB_TRIAD:
    case NB_TRIAD_NT:
        return 3;
    default:
        return 1;
    }
}

static uint64_t part_bytes(const struct nb_case *c)
{
    return c->buffer_bytes / c->threads;
}

/* Bytes of one array. The arrays are multiples of 4 KiB apart where they are that large: a load then never has the same low twelve bits as
 * a store that is still on its way, which some processors take for the same address. */
static uint64_t array_bytes(const struct nb_case *c)
{
    uint64_t bytes = part_bytes(c) / arrays(c), unit = bytes >= ALIASED ? ALIASED : 2 * NB_STREAM_STEP;
    return bytes / unit * unit;
}

static uint8_t *array(const struct nb_thread *t, uint64_t number)
{
    return t->shared->buffer + t->index * part_bytes(t->shared) + number * array_bytes(t->shared);
}

/* Word i of every array is i % PERIOD + 1 at first: never zero, no two lines alike in a neighbourhood, sums of doubles exact. A prime, so
 * that no shift by lines finds the same data. */
#define PERIOD 2039u

static void fill(uint8_t *to, uint64_t words, int doubles)
{
    for (uint64_t i = 0, word = 1; i < words; i++, word = word < PERIOD ? word + 1 : 1) {
        double number = (double)word;
        memcpy(to + i * 8, doubles ? (void *)&number : (void *)&word, 8);
    }
}

/* What round `n` writes, and its factor. The word is odd times a counter: never zero, never twice the same. */
static uint64_t round_factor(int doubles, uint64_t n)
{
    return doubles ? n % 7 + 1 : (n + 1) * 0x9e3779b97f4a7c15u;
}

/* Odd rounds of a copy read so much further on, so that each round finds other data: a round leaves out the last step of either array, and is one piece. (In two pieces, from the
 * middle of the source to its end and on from its begin, the beginnings of the loops were 1.3 % of a copy within L1.) */
#define SHIFT NB_STREAM_STEP

/* `n` lines from where the last batch ended. */
static void stream(struct nb_thread *t, uint64_t n)
{
    const struct nb_case *c = t->shared;
    nb_stream run = nb_find_stream(c->parameter[VECTOR], c->parameter[KERNEL]);
    const int turned = arrays(c) == 2, doubles = arrays(c) == 3;
    const uint64_t lines = (array_bytes(c) - (turned ? SHIFT : 0)) / LINE;
    uint64_t at = t->executed % lines, turn = t->executed / lines, sum = 0;
    uint8_t *to = array(t, 0), *b = array(t, arrays(c) > 1), *d = array(t, arrays(c) - 1);
    while (n) { /* whole rounds but the first and the last: in the first cache a round takes 50 ns */
        const uint64_t some = n < lines - at ? n : lines - at;
        sum += run(to + at * LINE, b + at * LINE + (turned && turn % 2 ? SHIFT : 0), d + at * LINE, some * LINE, round_factor(doubles, turn));
        n -= some;
        at += some;
        if (at == lines)
            at = 0, turn++;
    }
    t->check += sum;
    if (c->parameter[KERNEL] >= NB_WRITE_NT)
        nb_drain();
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE) {
        if (!nb_find_stream(c->parameter[VECTOR], c->parameter[KERNEL]) || !array_bytes(c) || (c->threads > 1 && part_bytes(c) % 64))
            return NB_UNSUPPORTED;
        for (uint64_t k = 0; k < arrays(c); k++)
            fill(array(t, k), array_bytes(c) / 8, arrays(c) == 3);
        memset(array(t, arrays(c)), 1, part_bytes(c) - arrays(c) * array_bytes(c)); /* what is left, so that all of it can be proven */
        t->check = 0;
        return NB_OK;
    }
    nb_window(t, stream);
    nb_clock(t, &t->value[CLOCK]);
    if (c->parameter[KERNEL] != NB_READ) {
        nb_stream sum = nb_find_stream(c->parameter[VECTOR], NB_SUM);
        uint64_t bytes = array_bytes(c) < CHECKED ? array_bytes(c) : CHECKED;
        t->check = sum(NULL, array(t, 0), NULL, bytes, 0) + sum(NULL, array(t, 0), NULL, bytes / 2, 0);
    }
    return NB_OK;
}
