/* What differs between processors, behind one name each. -DNB_PORTABLE selects the plain C11 forms everywhere. */
#ifndef NB_CPU_H
#define NB_CPU_H
#include <stdint.h>

/* Bytes of a cache line of the machine that is measured: numabench says so when it compiles. NB_APART: what lies this far apart is another line,
 * and no neighbour that a prefetcher brings along. A power of two; half of it are two lines, a pair apart. Python counts with the largest (MOST_APART): memory is
 * planned before the line is measured. */
#ifndef NB_LINE
#define NB_LINE 64
#endif
#define NB_APART (4 * NB_LINE > 256 ? 4 * NB_LINE : 256)
#define NB_APART_ODD (NB_APART + NB_LINE) /* of many in a row: an odd number of lines, so that they use all sets of a cache */
_Static_assert(NB_LINE <= 256 && !(NB_LINE & (NB_LINE - 1)), "Python plans memory for lines of 256 bytes at most");

/* Tells a sibling thread that this one only waits. Never inside a hop: it costs 25 ns and more there and hides the distance. On aarch64 an ISB, which
 * holds the core for some ten cycles: its YIELD does nothing on cores without sibling threads. */
static inline void nb_relax(void)
{
#if defined(__x86_64__) && !defined(NB_PORTABLE)
    __asm__ volatile("pause");
#elif defined(__aarch64__) && !defined(NB_PORTABLE)
    __asm__ volatile("isb" : : : "memory");
#endif
}

/* Waits until everything before is done: stores visible, those past the caches as well. Nothing after it begins earlier. A fence orders and need not wait,
 * and neither does what needs a locked operation's result: on Zen 4 that is there before the stores are (5 ns after a store to a line 28 ns away, 38 with
 * lfence behind, which begins when the locked operation is done; sfence and lfence wait for no store at all, 12 ns). */
static inline void nb_drain(void)
{
#if defined(__x86_64__) && !defined(NB_PORTABLE)
    __asm__ volatile("lock orq $0, (%%rsp)\n\tlfence" : : : "memory", "cc");
#elif defined(__aarch64__) && !defined(NB_PORTABLE)
    __asm__ volatile("dsb ish" : : : "memory");
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* C11 knows no waiting */
#endif
}

/* Writes a line back to memory and takes it out of every cache; NB_CAN_FLUSH says whether this processor lets programs do that. Complete after nb_flushed. */
static inline void nb_flush(void *line)
{
#if defined(__x86_64__) && !defined(NB_PORTABLE)
    __asm__ volatile("clflush (%0)" : : "r"(line) : "memory");
#elif defined(__aarch64__) && !defined(NB_PORTABLE)
    __asm__ volatile("dc civac, %0" : : "r"(line) : "memory");
#else
    (void)line;
#endif
}

static inline void nb_flushed(void)
{
#if defined(__x86_64__) && !defined(NB_PORTABLE)
    __asm__ volatile("mfence\n\tlfence" : : : "memory"); /* flushes are ordered by mfence alone */
#else
    nb_drain();
#endif
}

/* Asks for a line to read it, without waiting. */
static inline void nb_prefetch(const void *line)
{
    __builtin_prefetch(line, 0, 3);
}

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(NB_PORTABLE)
#define NB_CAN_FLUSH 1
#else
#define NB_CAN_FLUSH 0
#endif

/* The compiler must take `x` as it is now: it can neither fold operations on it nor drop them. */
#if (defined(__GNUC__) || defined(__clang__)) && !defined(NB_PORTABLE)
#define NB_OPAQUE(x) __asm__ volatile("" : "+r"(x))
#else
#define NB_OPAQUE(x)                                                                                                                 \
    do {                                                                                                                             \
        volatile __typeof__(x) nb_opaque_ = (x);                                                                                     \
        (x) = nb_opaque_;                                                                                                            \
    } while (0)
#endif

/* One cycle, and the next needs its result. An exclusive-or: consecutive additions are merged by some renamers. */
static inline uint64_t nb_step(uint64_t x, uint64_t y)
{
#if defined(__x86_64__) && !defined(NB_PORTABLE)
    __asm__ volatile("xorq %1, %0" : "+r"(x) : "r"(y));
#elif defined(__aarch64__) && !defined(NB_PORTABLE)
    __asm__ volatile("eor %0, %0, %1" : "+r"(x) : "r"(y));
#else
    x ^= y;
    NB_OPAQUE(x);
#endif
    return x;
}

/* `n` dependent multiplies: work that takes a known time and that no processor can hurry. The factor is odd, so no
 * information is lost and the result never becomes constant. */
static inline uint64_t nb_work(uint64_t x, uint64_t n)
{
    for (; n; n--) {
        x *= 0x9e3779b97f4a7c15u;
        NB_OPAQUE(x);
    }
    return x;
}

#define NB_TIMES_8(statement) statement statement statement statement statement statement statement statement
#define NB_TIMES_64(statement)                                                                                                       \
    NB_TIMES_8(statement) NB_TIMES_8(statement) NB_TIMES_8(statement) NB_TIMES_8(statement)                                          \
    NB_TIMES_8(statement) NB_TIMES_8(statement) NB_TIMES_8(statement) NB_TIMES_8(statement)
#endif
