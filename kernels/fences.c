/* What a fence costs: alone, or after a store that it has to wait for. One thread, one line that nobody else touches. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_fence.h"
#include "nb_window.h"

enum { FENCE, BEFORE };
enum { NOTHING, STORE };

static const struct nb_parameter parameters[] = {
    [FENCE] = {"fence", NB_FENCE_NAMES, "what orders", NB_NO_FENCE, 0, NB_FENCE_COUNT - 1},
    [BEFORE] = {"before", "nothing|store", "what comes before each of them: nothing, or a store into the first cache", NOTHING, 0, 1},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one fence with what comes before it", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("fences", 2, "the price of ordering", parameters, metrics);

/* Numbers go through an opaque register: the loop can be neither counted beforehand nor dropped. */
#define LOOP(NAME, KIND)                                                                                                             \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        uint64_t *const word = (uint64_t *)t->shared->buffer, number = t->check;                                                     \
        if (t->shared->parameter[BEFORE] == STORE)                                                                                   \
            for (; n; n--) {                                                                                                         \
                number++;                                                                                                            \
                nb_store_relaxed(word, number);                                                                                      \
                nb_fence(KIND, word + 1, number);                                                                                    \
            }                                                                                                                        \
        else                                                                                                                         \
            for (; n; n--) {                                                                                                         \
                number++;                                                                                                            \
                NB_OPAQUE(number);                                                                                                   \
                nb_fence(KIND, word + 1, number);                                                                                    \
            }                                                                                                                        \
        t->check = number;                                                                                                           \
    }
#define EVERY(DO)                                                                                                                    \
    DO(no_fence, NB_NO_FENCE)                                                                                                        \
    DO(acquire, NB_ACQUIRE)                                                                                                          \
    DO(release, NB_RELEASE)                                                                                                          \
    DO(seq_cst, NB_SEQ_CST)                                                                                                          \
    DO(seq_cst_store, NB_SEQ_CST_STORE)                                                                                              \
    DO(exchange, NB_EXCHANGE)                                                                                                        \
    DO(mfence, NB_MFENCE)                                                                                                            \
    DO(sfence, NB_SFENCE)                                                                                                            \
    DO(lfence, NB_LFENCE)                                                                                                            \
    DO(lock_or, NB_LOCK_OR)                                                                                                          \
    DO(xchg, NB_XCHG)                                                                                                                \
    DO(mov_mfence, NB_MOV_MFENCE)                                                                                                    \
    DO(dmb_ish, NB_DMB_ISH)                                                                                                          \
    DO(dmb_ishld, NB_DMB_ISHLD)                                                                                                      \
    DO(dmb_ishst, NB_DMB_ISHST)                                                                                                      \
    DO(dsb_ish, NB_DSB_ISH)                                                                                                          \
    DO(isb, NB_ISB)                                                                                                                  \
    DO(swp, NB_SWP)                                                                                                                  \
    DO(stlr, NB_STLR)                                                                                                                \
    DO(ldar, NB_LDAR)                                                                                                                \
    DO(stlr_ldar, NB_STLR_LDAR)                                                                                                      \
    DO(ldapr, NB_LDAPR)                                                                                                              \
    DO(stlr_ldapr, NB_STLR_LDAPR)
EVERY(LOOP)
#define ENTRY(NAME, KIND) [KIND] = NAME,
static const nb_batch loops[] = {EVERY(ENTRY)};

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t fence = c->parameter[FENCE];
    if (c->threads != 1 || !nb_fence_here(fence))
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        memset(c->buffer, 0, 64);
        t->check = 0;
        return NB_OK;
    }
    nb_window(t, loops[fence]);
    const uint64_t *word = (const uint64_t *)c->buffer;
    if (c->parameter[BEFORE] == STORE && word[0] != t->check)
        t->check = 0; /* the last store is not what was counted */
    if (nb_fence_stores(fence) && word[1] != t->check)
        t->check = 0;
    return NB_OK;
}
