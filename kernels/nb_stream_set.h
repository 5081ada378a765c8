/* The streams of one instruction set: included by nb_stream.h once for each, which defines before
 *   SET, TARGET                  the set's name; what lets the compiler use it
 *   V, F, W                      a vector of words, of doubles, its bytes
 *   LOAD STORE STREAM            one vector; STREAM past the caches
 *   STREAM_TWO                   two neighbouring ones past the caches, k and k + 1 from p, where one instruction does that
 *   ADD WORDS DOUBLES SCALED     sum of words, one word or double in all places, b + f * c in doubles
 *   HIDE                         keeps the compiler from seeing through a value, so that no loop becomes a library call
 * and all of which are undefined again at the end. `bytes` is a multiple of NB_STREAM_STEP. */
#define NAME_(stream, set) nb_##stream##_##set
#define NAME__(stream, set) NAME_(stream, set)
#define NAME(stream) NAME__(stream, SET)
#define EIGHT(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)
#define PAIRS(DO) DO(0, 1) DO(2, 3) DO(4, 5) DO(6, 7)
#define INSIDE TARGET static inline __attribute__((always_inline))

#ifndef STREAM_TWO
#define STREAM_TWO(p, k, v, w) STREAM((p) + (k) * W, v), STREAM((p) + ((k) + 1) * W, w)
#endif

/* Vectors k and k + 1 from p: each is worked out where it is stored, unless two are stored at once. */
#define PUT(p, k, v, w)                                                                                                              \
    if (past) {                                                                                                                      \
        STREAM_TWO(p, k, v, w);                                                                                                      \
    } else {                                                                                                                         \
        STORE((p) + (k) * W, v);                                                                                                     \
        STORE((p) + ((k) + 1) * W, w);                                                                                               \
    }

/* Every vector is loaded; of every step the first word is summed up (in the first lane of `first`, with others that nobody looks at). A
 * sum of all words would measure the adders: as many additions as loads fill their ports, and 326 instead of 450 GB/s came from the
 * first cache of a processor that loads two vectors of 64 bytes per cycle. */
TARGET static uint64_t NAME(read)(uint8_t *to, const uint8_t *b, const uint8_t *c, size_t bytes, uint64_t factor)
{
    (void)to, (void)c, (void)factor;
    uint64_t words[NB_STREAM_STEP / 64] __attribute__((aligned(64)));
    V first = WORDS(0), v;
    for (size_t i = 0; i < bytes; i += NB_STREAM_STEP) {
        first = ADD(first, LOAD(b + i));
        _Pragma("GCC unroll 8") for (size_t k = 1; k < 8; k++) {
            v = LOAD(b + i + k * W);
            HIDE(v);
        }
        for (size_t j = i + 8 * W; j < i + NB_STREAM_STEP; j += 8 * W)
            _Pragma("GCC unroll 8") for (size_t k = 0; k < 8; k++) {
                v = LOAD(b + j + k * W);
                HIDE(v);
            }
    }
    STORE((uint8_t *)words, first);
    return *words;
}

/* The sum of all words: for checking what other streams left. */
TARGET static uint64_t NAME(sum)(uint8_t *to, const uint8_t *b, const uint8_t *c, size_t bytes, uint64_t factor)
{
    (void)to, (void)c, (void)factor;
    uint64_t words[NB_STREAM_STEP / 64] __attribute__((aligned(64))), sum = 0;
    V all = WORDS(0);
    for (size_t i = 0; i < bytes; i += W)
        all = ADD(all, LOAD(b + i));
    STORE((uint8_t *)words, all);
    for (size_t k = 0; k < W / 8; k++)
        sum += words[k];
    return sum;
}

INSIDE void NAME(write_all)(uint8_t *to, size_t bytes, uint64_t word, int past)
{
    V v = WORDS(word);
    HIDE(v);
    for (size_t i = 0; i < bytes; i += 8 * W) {
#define DO(k, l) PUT(to + i, k, v, v)
        PAIRS(DO)
#undef DO
    }
}

INSIDE void NAME(copy_all)(uint8_t *to, const uint8_t *b, size_t bytes, int past)
{
    V v0, v1, v2, v3, v4, v5, v6, v7;
    for (size_t i = 0; i < bytes; i += 8 * W) {
#define DO(k)                                                                                                                        \
    v##k = LOAD(b + i + k * W);                                                                                                      \
    HIDE(v##k);
        EIGHT(DO)
#undef DO
#define DO(k, l) PUT(to + i, k, v##k, v##l)
        PAIRS(DO)
#undef DO
    }
}

INSIDE void NAME(triad_all)(uint8_t *to, const uint8_t *b, const uint8_t *c, size_t bytes, double factor, int past)
{
    F f = DOUBLES(factor);
    for (size_t i = 0; i < bytes; i += 8 * W) {
#define SCALED_AT(k) SCALED(LOAD(b + i + (k) * W), f, LOAD(c + i + (k) * W))
#define DO(k, l) PUT(to + i, k, SCALED_AT(k), SCALED_AT(l))
        PAIRS(DO)
#undef SCALED_AT
#undef DO
    }
}

/* The six that store, as functions of the one type. */
#define STORING(stream, all, ...)                                                                                                    \
    TARGET static uint64_t NAME(stream)(uint8_t *to, const uint8_t *b, const uint8_t *c, size_t bytes, uint64_t factor)              \
    {                                                                                                                                \
        (void)b, (void)c, (void)factor;                                                                                              \
        NAME(all)(__VA_ARGS__);                                                                                                      \
        return 0;                                                                                                                    \
    }
STORING(write, write_all, to, bytes, factor, 0)
STORING(copy, copy_all, to, b, bytes, 0)
STORING(triad, triad_all, to, b, c, bytes, (double)factor, 0)
STORING(write_nt, write_all, to, bytes, factor, 1)
STORING(copy_nt, copy_all, to, b, bytes, 1)
STORING(triad_nt, triad_all, to, b, c, bytes, (double)factor, 1)

static const nb_stream NAME(streams)[NB_STREAM_COUNT] = {NAME(read),     NAME(write),   NAME(copy),    NAME(triad),
                                                         NAME(write_nt), NAME(copy_nt), NAME(triad_nt), NAME(sum)};

#undef STORING
#undef INSIDE
#undef EIGHT
#undef PAIRS
#undef PUT
#undef NAME
#undef NAME_
#undef NAME__
#undef SET
#undef TARGET
#undef V
#undef F
#undef W
#undef LOAD
#undef STORE
#undef STREAM
#undef STREAM_TWO
#undef ADD
#undef WORDS
#undef DOUBLES
#undef SCALED
#undef HIDE
