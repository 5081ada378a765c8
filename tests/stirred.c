/* What is by chance in a litmus test, for tests/test_memory_ordering.py. */
#include "memory_ordering.c"

/* For `rounds` rounds of thread `index`: the delay, whether x and y are in one line, and the order of the instances. */
void stirred(uint64_t seed, uint32_t index, uint64_t rounds, uint64_t *delay, uint64_t *beside, uint64_t *order)
{
    static struct nb_case c;
    struct nb_thread t = {.shared = &c, .index = index};
    c.parameter[SEED] = (int64_t)seed;
    const uint64_t own = by_chance(seed, UINT64_MAX - index);
    for (uint64_t round = 0; round < rounds; round++) {
        const uint64_t random = by_chance(own, round);
        const struct turn turn = turn_of(&t, round, random);
        delay[round] = delay_of(random >> 40);
        beside[round] = (uint64_t)(turn.y - turn.x);
        for (uint64_t k = 0; k < INSTANCES; k++)
            order[round * INSTANCES + k] = (k * turn.step + turn.first) % INSTANCES;
    }
}
