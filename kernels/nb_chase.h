/* Pointer chases: one cycle through all lines of a memory, by construction, once or in several laps of different order.
 *
 * Every line holds a pointer to the next and, beside it, its own number in the cycle. Where the chase stands after any
 * count of loads is therefore known beforehand: a chain that is not one cycle (a shuffle of self pointers walks a
 * random share of its lines) ends at a wrong number. */
#ifndef NB_CHASE_H
#define NB_CHASE_H
#include "nb_cpu.h"
#include <stdint.h>

#define NB_VISITED (NB_LINE > 64 ? NB_LINE : 64) /* bytes of the line that a chase visits: one load is one line */
enum { NB_VISITED_BYTES = 10 };                  /* of value[]: that, by which Python predicts where the chase stands */

/* Lines are shuffled within groups of `group` lines and the groups among each other; 0: not at all. They are visited by residue class: first
 * all that are a multiple of `classes` of them from the beginning, then the next ones. What a prefetcher brings beside a line is long gone when
 * its own class comes: by class all of the memory is gone through before, and not a group, which a cache holds (31 % of the loads hit it).
 * The cycle visits every line `laps` times, each time by another pointer and after another line, so that a prefetcher which remembers what
 * followed on a line is wrong. `order` has room for `lines` numbers. */
struct nb_chain {
    uint8_t *memory;
    uint32_t *order;
    uint64_t lines, line_bytes, group, seed, laps, classes;
};

/* Lines that are less apart may come along with each other. */
static inline uint64_t nb_classes(uint64_t line_bytes)
{
    return line_bytes < NB_APART ? NB_APART / line_bytes : 1;
}

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

/* All classes go through the groups in the same order, so that the way from a line to its neighbour is always as long as a class. */
static inline void nb_chain_order(const struct nb_chain *c, uint64_t *state)
{
    const uint64_t groups = c->group && c->group < c->lines ? c->lines / c->group : 1, among = nb_draw(state, UINT64_MAX);
    uint32_t *order = c->order;
    for (uint64_t class = 0, lines; class < c->classes; class++, order += lines) {
        lines = c->lines / c->classes + (class < c->lines % c->classes);
        const uint64_t group = groups > 1 ? c->group / c->classes : lines;
        uint64_t same = among;
        for (uint64_t i = 0; i < lines; i++)
            order[i] = (uint32_t)(class + i * c->classes);
        for (uint64_t first = 0; c->group && first < lines; first += group)
            nb_shuffle(order + first, lines - first < group ? lines - first : group, 1, state);
        if (c->group)
            nb_shuffle(order, groups, group, &same);
    }
}

/* The place of chase `k` in the cycle, in lines: multiples of this share of it, of which any number up to 64 are spread over the cycle and, taken
 * four times, over a class, with no gap under 0.29 of an even one (the best of 30,000 tried; the golden ratio leaves 0.11). No chase soon
 * comes to where another has been, nor beside it. */
#define NB_SPREAD 0x68dffcc6u
static inline uint64_t nb_chain_start(const struct nb_chain *c, uint64_t k)
{
    return (uint64_t)(uint32_t)(k * NB_SPREAD) * (c->laps * c->lines) >> 32;
}

/* `starts`: room for the places of `n` chases. */
static inline void nb_chain_build(const struct nb_chain *c, uint64_t **starts, uint64_t n)
{
    uint64_t state = c->seed, *first = NULL, *last = NULL;
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
        for (uint64_t k = 0; k < n; k++)
            if (nb_chain_start(c, k) / c->lines == lap)
                starts[k] = nb_chain_word(c, c->order[nb_chain_start(c, k) % c->lines], lap);
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
