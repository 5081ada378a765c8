/* Every way to order memory accesses, behind one name. Those of another processor are missing: NB_FENCE_HERE says which are there. */
#ifndef NB_FENCE_H
#define NB_FENCE_H
#include <stdint.h>

enum { NB_NO_FENCE, NB_ACQUIRE, NB_RELEASE, NB_SEQ_CST, NB_SEQ_CST_STORE, NB_EXCHANGE, NB_MFENCE, NB_SFENCE, NB_LFENCE, NB_LOCKED, NB_DMB_ISH,
       NB_DMB_ISHLD, NB_DMB_ISHST, NB_ISB, NB_FENCE_COUNT };
#define NB_FENCE_NAMES "none|acquire|release|seq_cst|seq_cst_store|exchange|mfence|sfence|lfence|locked_add|dmb_ish|dmb_ishld|dmb_ishst|isb"

#if defined(__x86_64__) && !defined(NB_PORTABLE)
#define NB_FENCE_HERE(fence) ((fence) <= NB_LOCKED)
#elif defined(__aarch64__) && !defined(NB_PORTABLE)
#define NB_FENCE_HERE(fence) ((fence) <= NB_EXCHANGE || (fence) >= NB_DMB_ISH)
#else
#define NB_FENCE_HERE(fence) ((fence) <= NB_EXCHANGE)
#endif

/* The fence alone; `fence` is a constant. The sequentially consistent store and the exchange write `value` to `word` themselves. */
static inline __attribute__((always_inline)) void nb_fence(int fence, uint64_t *word, uint64_t value)
{
    if (fence == NB_ACQUIRE)
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    else if (fence == NB_RELEASE)
        __atomic_thread_fence(__ATOMIC_RELEASE);
    else if (fence == NB_SEQ_CST)
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    else if (fence == NB_SEQ_CST_STORE)
        __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    else if (fence == NB_EXCHANGE)
        (void)__atomic_exchange_n(word, value, __ATOMIC_SEQ_CST);
#if defined(__x86_64__) && !defined(NB_PORTABLE)
    else if (fence == NB_MFENCE)
        __asm__ volatile("mfence" : : : "memory");
    else if (fence == NB_SFENCE)
        __asm__ volatile("sfence" : : : "memory");
    else if (fence == NB_LFENCE)
        __asm__ volatile("lfence" : : : "memory");
    else if (fence == NB_LOCKED) /* on the stack, which no other thread touches: what compilers make of a full fence */
        __asm__ volatile("lock; addl $0, (%%rsp)" : : : "memory", "cc");
#elif defined(__aarch64__) && !defined(NB_PORTABLE)
    else if (fence == NB_DMB_ISH)
        __asm__ volatile("dmb ish" : : : "memory");
    else if (fence == NB_DMB_ISHLD)
        __asm__ volatile("dmb ishld" : : : "memory");
    else if (fence == NB_DMB_ISHST)
        __asm__ volatile("dmb ishst" : : : "memory");
    else if (fence == NB_ISB)
        __asm__ volatile("isb" : : : "memory");
#endif
    else
        __asm__ volatile("" : : : "memory");
}

/* The value of `word` once all earlier stores of this thread are visible, and not before: what depends on it cannot begin while they wait. A load after a fence
 * would not do, since a processor may look up what it has stored itself and go on. */
static inline uint64_t nb_drained(uint64_t *word)
{
#if !defined(__x86_64__) || defined(NB_PORTABLE) /* there a locked operation waits for the store buffer, and its result for itself */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
    return __atomic_fetch_add(word, 0, __ATOMIC_SEQ_CST);
}
#endif
