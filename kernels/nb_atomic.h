/* Atomic operations as instructions: what a compiler makes of its built-ins differs (an add of 0 becomes a fence and a load, a full fence `mfence` or a
 * locked operation, an operation on aarch64 a call, an exclusive pair or one instruction), and the instruction is what is measured. For words of 64 bits, and
 * with 32 in the name of 32:
 *
 *   nb_add(p, n)   nb_swap(p, new)             return what was there
 *   nb_cas(p, &seen, new)                      whether *p was `seen`, and is `new` now; if not, `seen` is what was there
 *   nb_load(p)   nb_store(p, x)
 *   nb_full_fence()   nb_acquire_fence()   nb_release_fence()
 *   nb_swap16(p, new)                          of a half word
 *   nb_set_bit32_acquire(p, bit)               whether it was set
 *
 * Sequentially consistent, or with _relaxed, _acquire, _release behind. NB_INSTRUCTIONS names what they are made of:
 *
 *                  x86-64                  aarch64, LSE             aarch64, LL/SC              elsewhere
 *   add            lock xadd               ldadd, ldadda, l, al     ldxr, stxr; ldaxr, stlxr    __atomic_fetch_add
 *   swap           xchg                    swp, swpa, l, al         the same                    __atomic_exchange_n
 *   cas            lock cmpxchg            cas, casa, l, al         the same; a failing one     __atomic_compare_exchange_n
 *                                                                   stores nothing
 *   load           mov                     ldar; relaxed: ldr                                   __atomic_load_n
 *   store          xchg; else mov          stlr; relaxed: str                                   __atomic_store_n
 *   full fence     lock or on the stack    dmb ish                                              __atomic_thread_fence
 *   acquire        none                    dmb ishld
 *   release        none                    dmb ish
 *
 * The thread sanitizer does not see into instructions: for it they are what they are elsewhere. */
#ifndef NB_ATOMIC_H
#define NB_ATOMIC_H
#include "nb_cpu.h"
#include <stdint.h>

#define NB_INLINE static inline __attribute__((always_inline))
#ifdef __SANITIZE_THREAD__ /* gcc */
#define NB_SANITIZED
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) /* clang */
#define NB_SANITIZED
#endif
#endif
#if defined(__x86_64__) && !defined(NB_PORTABLE) && !defined(NB_SANITIZED)
#define NB_ATOMIC_X86
#elif defined(__aarch64__) && !defined(NB_PORTABLE) && !defined(NB_SANITIZED)
#define NB_ATOMIC_ARM
#endif

#ifdef NB_ATOMIC_X86
#define NB_INSTRUCTIONS "x86-64: lock prefix"
#define NB_WIDE "q"
#define NB_NARROW "l"
#define NB_FENCE_OF(NAME, INSTRUCTION)                                                                                               \
    NB_INLINE void NAME(void)                                                                                                        \
    {                                                                                                                                \
        __asm__ volatile(INSTRUCTION : : : "memory", "cc");                                                                          \
    }
NB_FENCE_OF(nb_full_fence, "lock orq $0, (%%rsp)")
NB_FENCE_OF(nb_acquire_fence, "")
NB_FENCE_OF(nb_release_fence, "")
#define NB_ORDERED(T, S, X, ORDER, A, L)                                                                                             \
    NB_INLINE T nb_add##X##ORDER(T *p, T n)                                                                                          \
    {                                                                                                                                \
        __asm__ volatile("lock xadd" S " %0, %1" : "+r"(n), "+m"(*p) : : "memory", "cc");                                            \
        return n;                                                                                                                    \
    }                                                                                                                                \
    NB_INLINE T nb_swap##X##ORDER(T *p, T x)                                                                                         \
    {                                                                                                                                \
        __asm__ volatile("xchg" S " %0, %1" : "+r"(x), "+m"(*p) : : "memory");                                                       \
        return x;                                                                                                                    \
    }                                                                                                                                \
    NB_INLINE int nb_cas##X##ORDER(T *p, T *seen, T x)                                                                               \
    {                                                                                                                                \
        int same;                                                                                                                    \
        __asm__ volatile("lock cmpxchg" S " %3, %1" : "=@ccz"(same), "+m"(*p), "+a"(*seen) : "r"(x) : "memory");                    \
        return same;                                                                                                                 \
    }
#define NB_LOAD(T, S, X, ORDER, ACQUIRE)                                                                                             \
    NB_INLINE T nb_load##X##ORDER(const T *p)                                                                                        \
    {                                                                                                                                \
        T x;                                                                                                                         \
        __asm__ volatile("mov" S " %1, %0" : "=r"(x) : "m"(*p) : "memory");                                                          \
        return x;                                                                                                                    \
    }
#define NB_STORE(T, S, X, ORDER, RELEASE)                                                                                            \
    NB_INLINE void nb_store##X##ORDER(T *p, T x)                                                                                     \
    {                                                                                                                                \
        __asm__ volatile("mov" S " %1, %0" : "=m"(*p) : "r"(x) : "memory");                                                          \
    }
#define NB_LOAD_STORE(T, S, X)                                                                                                       \
    NB_LOAD(T, S, X, , )                                                                                                             \
    NB_LOAD(T, S, X, _acquire, )                                                                                                     \
    NB_LOAD(T, S, X, _relaxed, )                                                                                                     \
    NB_STORE(T, S, X, _release, )                                                                                                    \
    NB_STORE(T, S, X, _relaxed, )                                                                                                    \
    NB_INLINE void nb_store##X(T *p, T x)                                                                                            \
    {                                                                                                                                \
        (void)nb_swap##X(p, x);                                                                                                      \
    }

#elif defined(NB_ATOMIC_ARM)
#define NB_WIDE "x"
#define NB_NARROW "w"
#define NB_FENCE_OF(NAME, INSTRUCTION)                                                                                               \
    NB_INLINE void NAME(void)                                                                                                        \
    {                                                                                                                                \
        __asm__ volatile(INSTRUCTION : : : "memory");                                                                                \
    }
NB_FENCE_OF(nb_full_fence, "dmb ish")
NB_FENCE_OF(nb_acquire_fence, "dmb ishld")
NB_FENCE_OF(nb_release_fence, "dmb ish")
#define NB_LOAD(T, W, X, ORDER, INSTRUCTION)                                                                                         \
    NB_INLINE T nb_load##X##ORDER(const T *p)                                                                                        \
    {                                                                                                                                \
        T x;                                                                                                                         \
        __asm__ volatile(INSTRUCTION " %" W "0, %1" : "=r"(x) : "Q"(*p) : "memory");                                                 \
        return x;                                                                                                                    \
    }
#define NB_STORE(T, W, X, ORDER, INSTRUCTION)                                                                                        \
    NB_INLINE void nb_store##X##ORDER(T *p, T x)                                                                                     \
    {                                                                                                                                \
        __asm__ volatile(INSTRUCTION " %" W "1, %0" : "=Q"(*p) : "r"(x) : "memory");                                                 \
    }
/* An acquire load is ldar and not ldapr, which compilers take where they may (+rcpc): that one does not wait for an earlier stlr. */
#define NB_LOAD_STORE(T, W, X)                                                                                                       \
    NB_LOAD(T, W, X, , "ldar")                                                                                                       \
    NB_LOAD(T, W, X, _acquire, "ldar")                                                                                               \
    NB_LOAD(T, W, X, _relaxed, "ldr")                                                                                                \
    NB_STORE(T, W, X, , "stlr")                                                                                                      \
    NB_STORE(T, W, X, _release, "stlr")                                                                                              \
    NB_STORE(T, W, X, _relaxed, "str")
#ifdef NB_LSE /* numabench defines it where the processor has the atomic instructions of Armv8.1 (HWCAP_ATOMICS) */
#define NB_INSTRUCTIONS "aarch64: LSE"
#define NB_ORDERED(T, W, X, ORDER, A, L)                                                                                             \
    NB_INLINE T nb_add##X##ORDER(T *p, T n)                                                                                          \
    {                                                                                                                                \
        T was;                                                                                                                       \
        __asm__ volatile(".arch_extension lse\n\tldadd" A L " %" W "2, %" W "0, %1" : "=r"(was), "+Q"(*p) : "r"(n) : "memory");      \
        return was;                                                                                                                  \
    }                                                                                                                                \
    NB_INLINE T nb_swap##X##ORDER(T *p, T x)                                                                                         \
    {                                                                                                                                \
        T was;                                                                                                                       \
        __asm__ volatile(".arch_extension lse\n\tswp" A L " %" W "2, %" W "0, %1" : "=r"(was), "+Q"(*p) : "r"(x) : "memory");        \
        return was;                                                                                                                  \
    }                                                                                                                                \
    NB_INLINE int nb_cas##X##ORDER(T *p, T *seen, T x)                                                                               \
    {                                                                                                                                \
        T was = *seen;                                                                                                               \
        __asm__ volatile(".arch_extension lse\n\tcas" A L " %" W "0, %" W "2, %1" : "+r"(was), "+Q"(*p) : "r"(x) : "memory");        \
        const int same = was == *seen;                                                                                               \
        *seen = was;                                                                                                                 \
        return same;                                                                                                                 \
    }
#else
#define NB_INSTRUCTIONS "aarch64: LL/SC"
#define NB_ORDERED(T, W, X, ORDER, A, L)                                                                                             \
    NB_INLINE T nb_add##X##ORDER(T *p, T n)                                                                                          \
    {                                                                                                                                \
        T was, sum;                                                                                                                  \
        uint32_t lost;                                                                                                               \
        __asm__ volatile("1: ld" A "xr %" W "0, %3\n\tadd %" W "1, %" W "0, %" W "4\n\tst" L "xr %w2, %" W "1, %3\n\tcbnz %w2, 1b"  \
                         : "=&r"(was), "=&r"(sum), "=&r"(lost), "+Q"(*p)                                                             \
                         : "r"(n)                                                                                                    \
                         : "memory");                                                                                                \
        return was;                                                                                                                  \
    }                                                                                                                                \
    NB_INLINE T nb_swap##X##ORDER(T *p, T x)                                                                                         \
    {                                                                                                                                \
        T was;                                                                                                                       \
        uint32_t lost;                                                                                                               \
        __asm__ volatile("1: ld" A "xr %" W "0, %2\n\tst" L "xr %w1, %" W "3, %2\n\tcbnz %w1, 1b"                                    \
                         : "=&r"(was), "=&r"(lost), "+Q"(*p)                                                                         \
                         : "r"(x)                                                                                                    \
                         : "memory");                                                                                                \
        return was;                                                                                                                  \
    }                                                                                                                                \
    NB_INLINE int nb_cas##X##ORDER(T *p, T *seen, T x) /* stores nothing where it fails, unlike an instruction that does it all */   \
    {                                                                                                                                \
        T was;                                                                                                                       \
        uint32_t lost;                                                                                                               \
        __asm__ volatile("1: ld" A "xr %" W "0, %2\n\tcmp %" W "0, %" W "3\n\tb.ne 2f\n\tst" L "xr %w1, %" W "4, %2\n\tcbnz %w1, 1b\n2:" \
                         : "=&r"(was), "=&r"(lost), "+Q"(*p)                                                                         \
                         : "r"(*seen), "r"(x)                                                                                        \
                         : "memory", "cc");                                                                                          \
        const int same = was == *seen;                                                                                               \
        *seen = was;                                                                                                                 \
        return same;                                                                                                                 \
    }
#endif

#else
#define NB_INSTRUCTIONS "C11"
#define NB_WIDE
#define NB_NARROW
#define NB_FENCE_OF(NAME, ORDER)                                                                                                     \
    NB_INLINE void NAME(void)                                                                                                        \
    {                                                                                                                                \
        __atomic_thread_fence(ORDER);                                                                                                \
    }
NB_FENCE_OF(nb_full_fence, __ATOMIC_SEQ_CST)
NB_FENCE_OF(nb_acquire_fence, __ATOMIC_ACQUIRE)
NB_FENCE_OF(nb_release_fence, __ATOMIC_RELEASE)
#define NB_ORDERED(T, S, X, ORDER, A, L)                                                                                             \
    NB_INLINE T nb_add##X##ORDER(T *p, T n)                                                                                          \
    {                                                                                                                                \
        NB_OPAQUE(n); /* an add of a known 0 is made a load by some compilers */                                                     \
        return __atomic_fetch_add(p, n, NB_C11##ORDER);                                                                              \
    }                                                                                                                                \
    NB_INLINE T nb_swap##X##ORDER(T *p, T x)                                                                                         \
    {                                                                                                                                \
        return __atomic_exchange_n(p, x, NB_C11##ORDER);                                                                             \
    }                                                                                                                                \
    NB_INLINE int nb_cas##X##ORDER(T *p, T *seen, T x)                                                                               \
    {                                                                                                                                \
        return __atomic_compare_exchange_n(p, seen, x, 0, NB_C11##ORDER, __ATOMIC_RELAXED);                                          \
    }
#define NB_C11 __ATOMIC_SEQ_CST
#define NB_C11_relaxed __ATOMIC_RELAXED
#define NB_C11_acquire __ATOMIC_ACQUIRE
#define NB_C11_release __ATOMIC_RELEASE
#define NB_LOAD(T, X, ORDER)                                                                                                         \
    NB_INLINE T nb_load##X##ORDER(const T *p)                                                                                        \
    {                                                                                                                                \
        return __atomic_load_n(p, NB_C11##ORDER);                                                                                    \
    }
#define NB_STORE(T, X, ORDER)                                                                                                        \
    NB_INLINE void nb_store##X##ORDER(T *p, T x)                                                                                     \
    {                                                                                                                                \
        __atomic_store_n(p, x, NB_C11##ORDER);                                                                                       \
    }
#define NB_LOAD_STORE(T, S, X)                                                                                                       \
    NB_LOAD(T, X, )                                                                                                                  \
    NB_LOAD(T, X, _acquire)                                                                                                          \
    NB_LOAD(T, X, _relaxed)                                                                                                          \
    NB_STORE(T, X, )                                                                                                                 \
    NB_STORE(T, X, _release)                                                                                                         \
    NB_STORE(T, X, _relaxed)
#endif

#define NB_WORDS(T, S, X)                                                                                                            \
    NB_ORDERED(T, S, X, , "a", "l")                                                                                                  \
    NB_ORDERED(T, S, X, _relaxed, "", "")                                                                                            \
    NB_ORDERED(T, S, X, _acquire, "a", "")                                                                                           \
    NB_ORDERED(T, S, X, _release, "", "l")                                                                                           \
    NB_LOAD_STORE(T, S, X)
NB_WORDS(uint64_t, NB_WIDE, )
NB_WORDS(uint32_t, NB_NARROW, 32)
#undef NB_WORDS
#undef NB_ORDERED
#undef NB_LOAD
#undef NB_STORE
#undef NB_LOAD_STORE
#undef NB_FENCE_OF

/* Of which some locks are made. A compiler may make a loop of compare-and-swaps of the second one. */
NB_INLINE uint16_t nb_swap16(uint16_t *p, uint16_t x)
{
#ifdef NB_ATOMIC_X86
    __asm__ volatile("xchgw %0, %1" : "+r"(x), "+m"(*p) : : "memory");
    return x;
#elif defined(NB_ATOMIC_ARM)
    uint16_t was;
#ifdef NB_LSE
    __asm__ volatile(".arch_extension lse\n\tswpalh %w2, %w0, %1" : "=r"(was), "+Q"(*p) : "r"(x) : "memory");
#else
    uint32_t lost;
    __asm__ volatile("1: ldaxrh %w0, %2\n\tstlxrh %w1, %w3, %2\n\tcbnz %w1, 1b" : "=&r"(was), "=&r"(lost), "+Q"(*p) : "r"(x) : "memory");
#endif
    return was;
#else
    return __atomic_exchange_n(p, x, __ATOMIC_SEQ_CST);
#endif
}

NB_INLINE int nb_set_bit32_acquire(uint32_t *p, uint32_t bit)
{
#ifdef NB_ATOMIC_X86
    int was;
    __asm__ volatile("lock btsl %2, %1" : "=@ccc"(was), "+m"(*p) : "ir"(bit) : "memory");
    return was;
#elif defined(NB_ATOMIC_ARM)
    uint32_t was;
#ifdef NB_LSE
    __asm__ volatile(".arch_extension lse\n\tldseta %w2, %w0, %1" : "=r"(was), "+Q"(*p) : "r"(1u << bit) : "memory");
#else
    uint32_t now, lost;
    __asm__ volatile("1: ldaxr %w0, %3\n\torr %w1, %w0, %w4\n\tstxr %w2, %w1, %3\n\tcbnz %w2, 1b"
                     : "=&r"(was), "=&r"(now), "=&r"(lost), "+Q"(*p)
                     : "r"(1u << bit)
                     : "memory");
#endif
    return was >> bit & 1;
#else
    return __atomic_fetch_or(p, 1u << bit, __ATOMIC_ACQUIRE) >> bit & 1;
#endif
}
#endif
