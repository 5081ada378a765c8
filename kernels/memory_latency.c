/* Latency of dependent loads: a pointer chase through a working set, one cycle by construction.
 *
 * Every line holds a pointer to the next and, beside it, its own number in the cycle. Where the chase stands after any
 * count of loads is therefore known beforehand: a chain that is not one cycle (a shuffle of self pointers walks a
 * random share of its lines) ends at a wrong number. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"

enum { LINE, GROUP, SEED };

static const struct nb_parameter parameters[] = {
    [LINE] = {"line_bytes", NULL, "distance of visited lines", 64, 16, 4096},
    [GROUP] = {"group_bytes", NULL, "lines are shuffled within groups of this size and the groups among each other; 0: not at all", 262144,
               0, INT64_MAX},
    [SEED] = {"seed", NULL, "of the order", 1, 0, INT64_MAX},
};
static const struct nb_metric metrics[] = {
    {"latency", "ns", "time of one dependent load, in the median batch of a window", NB_LOWER_IS_BETTER},
    {"cycles", "cycle", "the same in cycles of the core, whose clock rate is measured around the sample", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("memory_latency", 1, "pointer chase through a working set", parameters, metrics);

/* Lines walked once before measuring. Larger sets need none of it: they were built in the chase's own order, so that a
 * cache too small for all of them holds their end and not their beginning. */
#define WALK_AT_MOST (1u << 18)

static uint64_t draw(uint64_t *state, uint64_t below) /* splitmix64, scaled: Steele, Lea & Flood 2014 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint64_t)((unsigned __int128)(z ^ z >> 31) * below >> 64);
}

/* Fisher-Yates over `n` runs of `run` numbers each. */
static void shuffle(uint32_t *order, uint64_t n, uint64_t run, uint64_t *state)
{
    for (uint64_t i = n; i > 1; i--) {
        uint32_t *a = order + (i - 1) * run, *b = order + draw(state, i) * run;
        for (uint64_t k = 0; k < run; k++) {
            uint32_t swap = a[k];
            a[k] = b[k];
            b[k] = swap;
        }
    }
}

/* The word of the line that holds the pointer varies, so that no set of the cache sees the same offset every time. */
static uint64_t *word(const struct nb_case *c, uint32_t line)
{
    uint64_t words = (uint64_t)c->parameter[LINE] / 8;
    return (uint64_t *)(c->buffer + line * (uint64_t)c->parameter[LINE]) + ((line * 0x9e3779b1u) >> 16) % words;
}

static uint64_t *beside(uint64_t *pointer)
{
    return (uint64_t *)((uintptr_t)pointer ^ 8); /* the other half of an aligned pair of words */
}

static void build(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    uint64_t lines = c->buffer_bytes / (uint64_t)c->parameter[LINE], state = (uint64_t)c->parameter[SEED];
    uint64_t group = (uint64_t)c->parameter[GROUP] / (uint64_t)c->parameter[LINE];
    uint32_t *order = (uint32_t *)c->scratch;
    for (uint64_t i = 0; i < lines; i++)
        order[i] = (uint32_t)i;
    if (group) {
        if (group > lines)
            group = lines;
        for (uint64_t first = 0; first < lines; first += group)
            shuffle(order + first, lines - first < group ? lines - first : group, 1, &state);
        shuffle(order, lines / group, group, &state);
    }
    for (uint64_t i = 0; i < lines; i++) {
        uint64_t *here = word(c, order[i]);
        *here = (uint64_t)(uintptr_t)word(c, order[i + 1 < lines ? i + 1 : 0]);
        *beside(here) = i;
    }
    t->cursor = (uint64_t)(uintptr_t)word(c, order[0]);
    t->value[0] = lines;
}

static void chase(struct nb_thread *t, uint64_t n)
{
    uint64_t *p = (uint64_t *)(uintptr_t)t->cursor;
    for (; n; n -= 64) {
        NB_TIMES_64(p = (uint64_t *)(uintptr_t)*(volatile uint64_t *)p;)
    }
    t->cursor = (uint64_t)(uintptr_t)p;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE) {
        uint64_t lines = c->buffer_bytes / (uint64_t)c->parameter[LINE];
        if (lines > UINT32_MAX || lines * sizeof(uint32_t) > c->scratch_bytes)
            return NB_UNSUPPORTED;
        build(t);
        uint64_t walk = (lines < WALK_AT_MOST ? lines : WALK_AT_MOST) / 64 * 64;
        chase(t, walk);
        t->executed = walk;
        return NB_OK;
    }
    nb_window(t, chase);
    t->check = *beside((uint64_t *)(uintptr_t)t->cursor);
    return NB_OK;
}
