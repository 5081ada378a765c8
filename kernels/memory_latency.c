/* Latency of dependent loads: a pointer chase through a working set (nb_chase.h), or several at the same time through one cycle, each
 * from another place on: what a core can have on its way at once. */
#include "nb.h"
#include "nb_chase.h"
#include "nb_cpu.h"
#include "nb_single.h"
#include "nb_window.h"

enum { LINE, GROUP, SEED, CHAINS, LAPS, NEIGHBOURS };
#define MOST_CHAINS 64
#define MOST_IN_REGISTERS 16

static const struct nb_parameter parameters[] = {
    [LINE] = {"line_bytes", NULL, "distance of visited lines; 0: as far apart as lines are", 0, 0, 1 << 16},
    [GROUP] = {"group_bytes", NULL, "lines are shuffled within groups of this size and the groups among each other; 0: not at all", 262144,
               0, INT64_MAX},
    [SEED] = {"seed", NULL, "of the order", 1, 0, INT64_MAX},
    [CHAINS] = {"chains", NULL, "independent chases at the same time", 1, 1, MOST_CHAINS},
    [LAPS] = {"laps", NULL, "rounds through all lines, each in another order, before an order comes again", 1, 1, 4},
    [NEIGHBOURS] = {"neighbours", "apart|together", "lines that may come along with each other: each when all others of its class were visited, or in one group", 0,
                    0, 1},
};
static const struct nb_metric metrics[] = {
    {"latency", "ns", "time of one dependent load, in the mean batch of a window (1 % trimmed at either end)", NB_LOWER_IS_BETTER},
    {"cycles", "cycle", "the same in cycles of the core, whose clock rate is measured around the sample", NB_LOWER_IS_BETTER},
    {"time_per_line", "ns", "latency divided by the chases: a line each, all at the same time", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("memory_latency", 4, "pointer chases through a working set", parameters, metrics);

/* Lines walked once before measuring. Larger sets need none of it: they were built in the chase's own order, so that a
 * cache too small for all of them holds their end and not their beginning. */
#define WALK_AT_MOST (1u << 18)

/* Where each of the chases stands and how far it has come: in the scratch memory, which the order has left by then. All are there from
 * the beginning, so that one preparation serves any number of them. */
struct chases {
    uint64_t *at[MOST_CHAINS], steps[MOST_CHAINS];
};

static struct chases *chases_of(const struct nb_thread *t)
{
    return (struct chases *)t->shared->scratch;
}

/* One operation is a load of every chase. The loops over `chains`, a constant in each copy, are unrolled: the places stay in registers. */
static inline __attribute__((always_inline)) void chase_together(struct nb_thread *t, uint64_t n, const int chains)
{
    struct chases *all = chases_of(t);
    uint64_t *p[MOST_IN_REGISTERS];
    for (int k = 0; k < chains; k++)
        p[k] = all->at[k], all->steps[k] += n;
    for (; n; n -= 8) {
#pragma GCC unroll 8
        for (int step = 0; step < 8; step++)
#pragma GCC unroll 16
            for (int k = 0; k < chains; k++)
                p[k] = (uint64_t *)(uintptr_t)*(volatile uint64_t *)p[k];
    }
    for (int k = 0; k < chains; k++)
        all->at[k] = p[k];
}

/* More than registers hold: the places are in the first cache, where a load and a store of each hide behind the others' lines. Eight at a time: a core looks
 * ahead by instructions, and those of a loop over every chain would take the room of others' loads. */
static void chase_many(struct nb_thread *t, uint64_t n)
{
    struct chases *all = chases_of(t);
    const int chains = (int)t->shared->parameter[CHAINS];
    for (int k = 0; k < chains; k++)
        all->steps[k] += n;
#define STEP(k) all->at[k] = (uint64_t *)(uintptr_t)*(volatile uint64_t *)all->at[k];
    for (; n; n--) {
        int k = 0;
        for (; k + 8 <= chains; k += 8) {
            STEP(k) STEP(k + 1) STEP(k + 2) STEP(k + 3) STEP(k + 4) STEP(k + 5) STEP(k + 6) STEP(k + 7)
        }
        for (; k < chains; k++)
            STEP(k)
    }
}

static void chase(struct nb_thread *t, uint64_t n)
{
    struct chases *all = chases_of(t);
    *all->at = nb_chase(*all->at, n);
    *all->steps += n;
}

#define TOGETHER(chains)                                                                                                             \
    static void chase_##chains(struct nb_thread *t, uint64_t n)                                                                      \
    {                                                                                                                                \
        chase_together(t, n, chains);                                                                                                \
    }
TOGETHER(2) TOGETHER(3) TOGETHER(4) TOGETHER(5) TOGETHER(6) TOGETHER(7) TOGETHER(8) TOGETHER(9)
TOGETHER(10) TOGETHER(11) TOGETHER(12) TOGETHER(13) TOGETHER(14) TOGETHER(15) TOGETHER(16)

static const nb_batch batches[] = {NULL,    chase,    chase_2,  chase_3,  chase_4,  chase_5,  chase_6,  chase_7, chase_8,
                                   chase_9, chase_10, chase_11, chase_12, chase_13, chase_14, chase_15, chase_16};

static struct nb_chain chain_of(const struct nb_case *c)
{
    const uint64_t line = c->parameter[LINE] ? (uint64_t)c->parameter[LINE] : NB_VISITED;
    return (struct nb_chain){c->buffer, (uint32_t *)c->scratch, c->buffer_bytes / line, line, (uint64_t)c->parameter[GROUP] / line,
                             (uint64_t)c->parameter[SEED], (uint64_t)c->parameter[LAPS], c->parameter[NEIGHBOURS] ? 1 : nb_classes(line)};
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const struct nb_chain chain = chain_of(c);
    struct chases *all = chases_of(t);
    if (c->phase == NB_PREPARE) {
        const uint64_t lines = chain.lines, walked = lines * chain.laps < WALK_AT_MOST ? lines * chain.laps : WALK_AT_MOST;
        struct chases start = {0};
        if (c->threads != 1 || !lines || chain.line_bytes % 8 || chain.laps > chain.line_bytes / 16 || chain.group % chain.classes || lines > UINT32_MAX || lines * sizeof(uint32_t) > c->scratch_bytes ||
            sizeof start > c->scratch_bytes)
            return NB_UNSUPPORTED;
        nb_chain_build(&chain, start.at, MOST_CHAINS);
        *all = start;
        chase(t, walked / 64 * 64);
        t->executed = *all->steps;
        return NB_OK;
    }
    const uint64_t chains = (uint64_t)c->parameter[CHAINS], ticks = nb_ticks(), begin = nb_now();
    nb_window(t, chains > MOST_IN_REGISTERS ? chase_many : batches[chains]);
    t->value[NB_VISITED_BYTES] = chain.line_bytes;
    t->value[NB_SINGLE_LOADS] = 0;
    if (chains == 1) {
        *all->at = nb_single_loads(t, *all->at, nb_ticks() - ticks, nb_now() - begin);
        t->executed += t->value[NB_SINGLE_LOADS];
        *all->steps += t->value[NB_SINGLE_LOADS];
    }
    t->check = t->cursor = 0;
    for (uint64_t k = 0; k < chains; k++) {
        t->check += *nb_chain_number(all->at[k]);
        t->cursor += all->steps[k];
    }
    return NB_OK;
}
