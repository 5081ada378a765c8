/* Every way to order memory accesses, by the name of its instruction; where this project has none, C11's. Those of another processor are missing:
 * nb_fence_here says which are there. What C11's names are made of elsewhere: nb_atomic.h.
 *
 * `lock_or`: a locked operation on the stack, which no other thread touches. `xchg`, `mov_mfence`, `stlr`, `swp` write themselves, `ldar` and `ldapr` read a
 * word next to it; behind `stlr`, ldar waits for it and ldapr does not. `swp` is an instruction with LSE and a pair of ldaxr and stlxr without. */
#ifndef NB_FENCE_H
#define NB_FENCE_H
#include "nb_atomic.h"
#ifdef NB_ATOMIC_ARM
#include <sys/auxv.h>
#define NB_HWCAP_LRCPC (1ul << 15) /* of AT_HWCAP: ldapr of Armv8.3 */
#endif

enum { NB_NO_FENCE, NB_ACQUIRE, NB_RELEASE, NB_SEQ_CST, NB_SEQ_CST_STORE, NB_EXCHANGE, NB_MFENCE, NB_SFENCE, NB_LFENCE, NB_LOCK_OR, NB_XCHG, NB_MOV_MFENCE,
       NB_DMB_ISH, NB_DMB_ISHLD, NB_DMB_ISHST, NB_DSB_ISH, NB_ISB, NB_SWP, NB_STLR, NB_LDAR, NB_STLR_LDAR, NB_LDAPR, NB_STLR_LDAPR, NB_FENCE_COUNT };
#define NB_FENCE_NAMES                                                                                                               \
    "none|acquire|release|seq_cst|seq_cst_store|exchange|mfence|sfence|lfence|lock_or|xchg|mov_mfence|"                              \
    "dmb_ish|dmb_ishld|dmb_ishst|dsb_ish|isb|swp|stlr|ldar|stlr_ldar|ldapr|stlr_ldapr"

static inline int nb_fence_here(int64_t fence)
{
#if defined(NB_ATOMIC_X86)
    return fence == NB_NO_FENCE || (fence >= NB_MFENCE && fence <= NB_MOV_MFENCE);
#elif defined(NB_ATOMIC_ARM)
    return fence == NB_NO_FENCE || (fence >= NB_DMB_ISH && (fence < NB_LDAPR || getauxval(AT_HWCAP) & NB_HWCAP_LRCPC));
#else
    return fence <= NB_EXCHANGE;
#endif
}

/* Whether it writes itself. */
static inline int nb_fence_stores(int64_t fence)
{
    return fence == NB_SEQ_CST_STORE || fence == NB_EXCHANGE || fence == NB_XCHG || fence == NB_MOV_MFENCE || fence == NB_SWP || fence == NB_STLR ||
           fence == NB_STLR_LDAR || fence == NB_STLR_LDAPR;
}

#ifdef NB_ATOMIC_ARM
NB_INLINE uint64_t nb_load_acquire_pc(const uint64_t *p)
{
    uint64_t x;
    __asm__ volatile(".arch_extension rcpc\n\tldapr %0, %1" : "=r"(x) : "Q"(*p) : "memory");
    return x;
}
#endif

/* The fence alone; `fence` is a constant. Where it stores, `value` to `word`; where it loads, the word behind. */
NB_INLINE void nb_fence(int fence, uint64_t *word, uint64_t value)
{
    (void)word, (void)value;
#define NB_IS(FENCE, INSTRUCTION)                                                                                                    \
    if (fence == FENCE)                                                                                                              \
    __asm__ volatile(INSTRUCTION : : : "memory", "cc")
#if defined(NB_ATOMIC_X86)
    NB_IS(NB_MFENCE, "mfence");
    NB_IS(NB_SFENCE, "sfence");
    NB_IS(NB_LFENCE, "lfence");
    NB_IS(NB_LOCK_OR, "lock orq $0, (%%rsp)");
    if (fence == NB_XCHG)
        nb_store(word, value);
    if (fence == NB_MOV_MFENCE)
        __asm__ volatile("movq %1, %0\n\tmfence" : "=m"(*word) : "r"(value) : "memory");
#elif defined(NB_ATOMIC_ARM)
    NB_IS(NB_DMB_ISH, "dmb ish");
    NB_IS(NB_DMB_ISHLD, "dmb ishld");
    NB_IS(NB_DMB_ISHST, "dmb ishst");
    NB_IS(NB_DSB_ISH, "dsb ish");
    NB_IS(NB_ISB, "isb");
    if (fence == NB_SWP)
        (void)nb_swap(word, value);
    if (fence == NB_STLR || fence == NB_STLR_LDAR || fence == NB_STLR_LDAPR)
        nb_store(word, value);
    if (fence == NB_LDAR || fence == NB_STLR_LDAR)
        (void)nb_load(word + 1);
    if (fence == NB_LDAPR || fence == NB_STLR_LDAPR)
        (void)nb_load_acquire_pc(word + 1);
#else
    if (fence == NB_ACQUIRE)
        nb_acquire_fence();
    if (fence == NB_RELEASE)
        nb_release_fence();
    if (fence == NB_SEQ_CST)
        nb_full_fence();
    if (fence == NB_SEQ_CST_STORE)
        nb_store(word, value);
    if (fence == NB_EXCHANGE)
        (void)nb_swap(word, value);
#endif
    NB_IS(NB_NO_FENCE, "");
#undef NB_IS
}
#endif
