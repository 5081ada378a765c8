/* Pointer chases: one cycle through all lines of a memory, by construction, once or in several laps of different order.
 *
 * Every line holds a pointer to the next and, beside it, its own number in the cycle. Where the chase stands after any
 * count of loads is therefore known beforehand: a chain that is not one cycle (a shuffle of self pointers walks a
 * random share of its lines) ends at a wrong number. */
#ifndef NB_CHASE_H
#define NB_CHASE_H
#include "nb_cpu.h"
#include <stdint.h>

/* Lines are shuffled within groups of `group` lines and the groups among each other; 0: not at all. The cycle visits every line `laps`
 * times, each time by another pointer and after another line, so that a prefetcher which remembers what followed on a line is wrong.
 * `order` has room for `lines` numbers. */
struct nb_chain {
    uint8_t *memory;
    uint32_t *order;
    uint64_t lines, line_bytes, group, seed, laps;
};

static inline uint64_t nb_draw(uint64_t *state, uint64_t below) /* splitmix64, scaled: Steele, Lea & Flood 2014 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint64_t)((unsigned __int128)(z ^ z >> 31) * below >> 64);
}

/* Fisher-Yates over `n` runs of `run` numbers each. */
static inline void nb_shuffle(uint32_t *order, uint64_t n, uint64_t run, uint64_t *state)
{
    for (uint64_t i = n; i > 1; i--) {
        uint32_t *a = order + (i - 1) * run, *b = order + nb_draw(state, i) * run;
        for (uint64_t k = 0; k < run; k++) {
            uint32_t swap = a[k];
            a[k] = b[k];
            b[k] = swap;
        }
    }
}

/* The word of the line that holds a lap's pointer. It varies, so that no set of the cache sees the same offset every time. */
static inline uint64_t *nb_chain_word(const struct nb_chain *c, uint32_t line, uint64_t lap)
{
    return (uint64_t *)(c->memory + line * c->line_bytes) + (((line * 0x9e3779b1u) >> 16) + 2 * lap) % (c->line_bytes / 8);
}

/* The number of the line in the cycle: in the other half of the pointer's aligned pair of words. */
static inline uint64_t *nb_chain_number(uint64_t *pointer)
{
    return (uint64_t *)((uintptr_t)pointer ^ 8);
}

#define AHEAD 16 /* lines on their way while one is written */

static inline void nb_chain_order(const struct nb_chain *c, uint64_t *state)
{
    uint64_t group = c->group < c->lines ? c->group : c->lines;
    for (uint64_t i = 0; i < c->lines; i++)
        c->order[i] = (uint32_t)i;
    if (group) {
        for (uint64_t first = 0; first < c->lines; first += group)
            nb_shuffle(c->order + first, c->lines - first < group ? c->lines - first : group, 1, state);
        nb_shuffle(c->order, c->lines / group, group, state);
    }
}

/* `starts`: room for `n` places in the cycle, each an n-th of it after the one before. */
static inline void nb_chain_build(const struct nb_chain *c, uint64_t **starts, uint64_t n)
{
    uint64_t state = c->seed, *first = NULL, *last = NULL, found = 0;
    for (uint64_t lap = 0; lap < c->laps; lap++) {
        nb_chain_order(c, &state);
        if (!lap)
            first = nb_chain_word(c, *c->order, lap);
        else
            *last = (uint64_t)(uintptr_t)nb_chain_word(c, *c->order, lap);
        for (uint64_t i = 0; i < c->lines; i++) {
            uint64_t *here = nb_chain_word(c, c->order[i], lap);
            if (i + AHEAD < c->lines)
                __builtin_prefetch(c->memory + c->order[i + AHEAD] * c->line_bytes, 1);
            *here = (uint64_t)(uintptr_t)nb_chain_word(c, c->order[i + 1 < c->lines ? i + 1 : 0], lap);
            *nb_chain_number(here) = lap * c->lines + i;
            last = here;
        }
        for (; found < n && found * c->laps * c->lines / n < (lap + 1) * c->lines; found++)
            starts[found] = nb_chain_word(c, c->order[found * c->laps * c->lines / n - lap * c->lines], lap);
    }
    if (c->laps > 1)
        *last = (uint64_t)(uintptr_t)first;
}

/* `n` loads, a multiple of 64, each of which needs the result of the one before. */
static inline uint64_t *nb_chase(uint64_t *p, uint64_t n)
{
    for (; n; n -= 64) {
        NB_TIMES_64(p = (uint64_t *)(uintptr_t)*(volatile uint64_t *)p;)
    }
    return p;
}
#endif
