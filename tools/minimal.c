/* The least that does what the kernels' loops do, for `make bench-self` to hold them against: the same instruction or lock, a count of turns, and nothing else. It works on
 * the memory that the kernel itself has prepared. Compiled in a copy of kernels/.
 *
 * Not here, since there is no loop to be held against anything: single_operations times 128 single operations between two readings of the clock, whose price it measures and takes off;
 * transfer_unit and memory_ordering look for a distance and for orders, not for a time, and the former against counters of its own that are far apart; first_touch, page_migration and
 * numa_balancing wait for the system, to which a loop around it adds nothing; the sentinels' loops are 64 one-cycle steps a turn and core_to_core's `cas`. tlb_latency, node_latency,
 * node_bandwidth and memory_policy have no loop of their own. */
#include "nb.h"
#include "nb_fence.h"
#include "nb_protected.h"
#include "nb_rseq.h"
#include "nb_stream.h"
#include "nb_window.h"

/* Loops, each with how its window is counted: a thread's own, one that all share, or a count of turns. */
enum { OWN, COMMON, COUNTED };
#define EVERY(DO)                                                                                                                    \
    DO(store, OWN) DO(increment, OWN) DO(atomic_add_64, OWN) DO(spaced, OWN) DO(fence, OWN)                                          \
    DO(atomic_add, COMMON) DO(atomic_cas, COMMON) DO(sharded, COMMON) DO(rseq_sharded, COMMON) DO(biased, COMMON) DO(mutex, COMMON)  \
    DO(spin_ttas, COMMON) DO(spin_backoff, COMMON) DO(ticket, COMMON) DO(mcs, COMMON) DO(clh, COMMON) DO(qspinlock, COMMON)          \
    DO(futex, COMMON) DO(word_lock, COMMON) DO(hbo, COMMON) DO(cohort, COMMON) DO(cna, COMMON) DO(rwlock, COMMON) DO(rw_spin, COMMON) \
    DO(seqlock, COMMON) DO(rcu, COMMON)                                                                                              \
    DO(atomic_add_reads, COMMON) DO(mutex_reads, COMMON) DO(rwlock_reads, COMMON) DO(rw_spin_reads, COMMON) DO(seqlock_reads, COMMON) \
    DO(rcu_reads, COMMON)                                                                                                            \
    DO(cas_ways, COUNTED) DO(load_store_ways, COUNTED) DO(two_lines_ways, COUNTED) DO(atomic_add_ways, COUNTED)                      \
    DO(no_mark, OWN) DO(mark, OWN) DO(look_mark, OWN) DO(no_mark_locked, OWN) DO(mark_locked, OWN) DO(look_mark_locked, OWN)         \
    DO(clean_mark, OWN) DO(clean_look_mark, OWN)                                                                                     \
    DO(relaxed_fence, OWN) DO(release_acquire, OWN) DO(seq_cst_exchange, OWN) DO(mutexed, OWN) DO(versioned, OWN)                    \
    DO(chase, OWN) DO(chases, OWN) DO(chase_beside, OWN)                                                                             \
    DO(read_lines, OWN) DO(write_lines, OWN) DO(copy_lines, OWN) DO(triad_lines, OWN)                                                \
    DO(write_nt_lines, OWN) DO(copy_nt_lines, OWN) DO(triad_nt_lines, OWN)
#define NAMED(NAME, WINDOW) "|" #NAME
#define COUNTS(NAME, WINDOW) +1

enum { LOOP, SPACES, FENCE, BEFORE, CHAINS, VECTOR, RATE = PART + 1, INSIDE, READ_SHARE };
static const struct nb_parameter parameters[] = {
    [LOOP] = {"loop", EVERY(NAMED) + 1, "what is done", 0, 0, EVERY(COUNTS) - 1},
    [SPACES] = {"spacing", NULL, "dependent multiplies between two of them", 0, 0, 100000},
    [FENCE] = {"fence", NB_FENCE_NAMES, "what orders", NB_NO_FENCE, 0, NB_FENCE_COUNT - 1},
    [BEFORE] = {"before", "nothing|store", "what comes before each fence", 0, 0, 1},
    [CHAINS] = {"chains", NULL, "independent chases at the same time", 1, 1, 64},
    [VECTOR] = {"vector", NB_VECTOR_NAMES, "instruction set of the streams", NB_PORTABLE_WORDS, 0, NB_SVE_SET},
    [PART] = {"part", NULL, "as in contention", 4096, 4096, 4096},
    [RATE] = {"rate", NULL, "-1: who streams beside a chase waits instead", 0, -1, 0},
    [INSIDE] = {"section", NULL, "dependent multiplies inside", 0, 0, 100000},
    [READ_SHARE] = {"reads", NULL, "of a hundred that only read: all but one in so many", 0, 0, 99},
};
static const struct nb_metric metrics[] = {{"time", "ns", "of a turn", NB_LOWER_IS_BETTER}};
NB_DESCRIBE("minimal", 3, "loops without anything around", parameters, metrics);

/* -- one line or lock: padded_counters, contention ------------------------------------------------------------------------------- */

#define MINIMAL(NAME, TURN)                                                                                                          \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        struct lines *at = (struct lines *)t->shared->buffer;                                                                        \
        struct part *own = part(at, t->index, 4096);                                                                                 \
        uint64_t *word = (uint64_t *)at;                                                                                             \
        (void)own, (void)word;                                                                                                       \
        for (; n; n--) {                                                                                                             \
            TURN;                                                                                                                    \
        }                                                                                                                            \
    }
#define MINIMAL_64(NAME, TURN)                                                                                                       \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        volatile uint64_t *word = (volatile uint64_t *)t->shared->buffer;                                                            \
        for (; n; n -= 64) {                                                                                                         \
            NB_TIMES_64(TURN;)                                                                                                       \
        }                                                                                                                            \
    }
#define MINIMAL_LOCK(NAME, ENTER, LEAVE) MINIMAL(NAME, ENTER; plain(&at->data); LEAVE)

MINIMAL_64(store, *word = n)
MINIMAL_64(increment, *word = *word + 1)
MINIMAL_64(atomic_add_64, nb_add_relaxed((uint64_t *)word, 1))
MINIMAL(atomic_add, nb_add_relaxed(&at->data.counter, 1))
MINIMAL(atomic_cas, cas(&at->data.counter))
MINIMAL(sharded, nb_add_relaxed(&own->counter, 1))
#if NB_HAS_RSEQ
MINIMAL(rseq_sharded, nb_rseq_increment((uint8_t *)part(at, 0, 4096), 12))
#else
MINIMAL(rseq_sharded, (void)0)
#endif
MINIMAL(biased, own_increment(&own->counter))
MINIMAL_LOCK(mutex, pthread_mutex_lock(&at->lock.mutex), pthread_mutex_unlock(&at->lock.mutex))
MINIMAL_LOCK(spin_ttas, ttas_enter(&at->lock), ttas_leave(&at->lock))
MINIMAL_LOCK(spin_backoff, backoff_enter(&at->lock, 50), ttas_leave(&at->lock))
MINIMAL_LOCK(ticket, ticket_enter(&at->lock, 50), ticket_leave(&at->lock))
MINIMAL_LOCK(mcs, mcs_enter(&at->lock, &own->queue), mcs_leave(&at->lock, &own->queue))
MINIMAL_LOCK(clh, clh_enter(&at->lock, &own->clh), clh_leave(&own->clh))
MINIMAL_LOCK(qspinlock, queued_enter(&at->lock, t->index + 1, (uint8_t *)&part(at, 0, 4096)->queue - 4096, 4096), queued_leave(&at->lock))
MINIMAL_LOCK(futex, futex_enter(&at->lock), futex_leave(&at->lock))
MINIMAL_LOCK(word_lock, word_enter(&at->lock, &own->word), word_leave(&at->lock))
MINIMAL_LOCK(hbo, hbo_enter(&at->lock, 0, &own->stopped, (uint8_t *)&own->stopped, 4096, 50), hbo_leave(&at->lock))
MINIMAL_LOCK(cohort, cohort_enter(&at->lock, &own->cohort, 50), cohort_leave(&at->lock, &own->cohort))
MINIMAL_LOCK(cna, cna_enter(&at->lock, &own->cna, 0), cna_leave(&at->lock, &own->cna))
MINIMAL_LOCK(rwlock, pthread_rwlock_wrlock(&at->lock.rwlock), pthread_rwlock_unlock(&at->lock.rwlock))
MINIMAL_LOCK(rw_spin, rw_write_enter(&at->lock), rw_write_leave(&at->lock))
MINIMAL(seqlock, ttas_enter(&at->lock); seq_write_begin(&at->sequence); plain(&at->data); seq_write_end(&at->sequence); ttas_leave(&at->lock))
MINIMAL(rcu, rcu_away(&own->seen); ttas_enter(&at->lock); publish(t->shared, at); ttas_leave(&at->lock); rcu_back(&own->seen, &at->latest))

/* Reads, and one write in so many. Where there is work inside, the next one waits for it. */
#define MINIMAL_READS(NAME, READ, WRITE)                                                                                             \
    static inline __attribute__((always_inline)) void NAME##_loop(struct nb_thread *t, uint64_t n, const uint64_t inside)            \
    {                                                                                                                                \
        const uint64_t turn = 100 / (100 - (uint64_t)t->shared->parameter[READ_SHARE]);                                              \
        uint8_t *const base = t->shared->buffer;                                                                                     \
        const uint32_t index = t->index;                                                                                             \
        uint64_t nothing = 0, x = 0, torn = 0, left = 0;                                                                             \
        NB_OPAQUE(nothing);                                                                                                          \
        for (; n; n--) {                                                                                                             \
            struct lines *at = (struct lines *)(base + (inside ? x & nothing : 0));                                                  \
            struct part *own = part(at, index, 4096);                                                                                \
            (void)own;                                                                                                               \
            if (left) {                                                                                                              \
                READ;                                                                                                                \
                left--;                                                                                                              \
            } else {                                                                                                                 \
                WRITE;                                                                                                               \
                left = turn - 1;                                                                                                     \
            }                                                                                                                        \
        }                                                                                                                            \
        NB_OPAQUE(torn);                                                                                                             \
    }                                                                                                                                \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        const uint64_t inside = (uint64_t)t->shared->parameter[INSIDE];                                                              \
        if (inside)                                                                                                                  \
            NAME##_loop(t, n, inside);                                                                                               \
        else                                                                                                                         \
            NAME##_loop(t, n, 0);                                                                                                    \
    }
#define READ_WRITE(NAME, ENTER_READ, LEAVE_READ, ENTER, LEAVE)                                                                       \
    MINIMAL_READS(NAME, ENTER_READ; x = look(&at->data, inside, &torn); LEAVE_READ, ENTER; x = nb_work(plain(&at->data), inside); LEAVE)
#define MUTEX(DO) pthread_mutex_##DO(&at->lock.mutex)
#define RWLOCK(DO) pthread_rwlock_##DO(&at->lock.rwlock)
MINIMAL_READS(atomic_add_reads, x = nb_work(nb_peek(&at->data.counter), inside), x = nb_work(nb_add_relaxed(&at->data.counter, 1), inside))
READ_WRITE(mutex_reads, MUTEX(lock), MUTEX(unlock), MUTEX(lock), MUTEX(unlock))
READ_WRITE(rwlock_reads, RWLOCK(rdlock), RWLOCK(unlock), RWLOCK(wrlock), RWLOCK(unlock))
READ_WRITE(rw_spin_reads, rw_read_enter(&at->lock), rw_read_leave(&at->lock), rw_write_enter(&at->lock), rw_write_leave(&at->lock))
MINIMAL_READS(
    seqlock_reads, uint64_t seen; do {
        seen = seq_read_begin(&at->sequence);
        x = look(&at->data, inside, &torn);
    } while (seq_read_again(&at->sequence, seen)),
    ttas_enter(&at->lock); seq_write_begin(&at->sequence); x = nb_work(plain(&at->data), inside); seq_write_end(&at->sequence); ttas_leave(&at->lock))
MINIMAL_READS(rcu_reads, uint64_t latest = nb_load_acquire(&at->latest); x = look(__atomic_load_n(&at->current, __ATOMIC_ACQUIRE), inside, &torn);
              nb_store_release(&own->seen, latest),
              rcu_away(&own->seen); ttas_enter(&at->lock); x = nb_work(publish(t->shared, at), inside); ttas_leave(&at->lock); rcu_back(&own->seen, &at->latest))

static void spaced(struct nb_thread *t, uint64_t n)
{
    uint64_t *word = (uint64_t *)t->shared->buffer, x = 0, nothing = 0;
    const uint64_t spacing = (uint64_t)t->shared->parameter[SPACES];
    NB_OPAQUE(nothing);
    for (; n; n--)
        x = nb_work(nb_add_relaxed((uint64_t *)((uintptr_t)word + (x & nothing)), 1), spacing);
}

/* -- fences ------------------------------------------------------------------------------------------------------------------------ */

#define FENCE_LOOP(KIND)                                                                                                             \
    case KIND:                                                                                                                       \
        if (t->shared->parameter[BEFORE])                                                                                            \
            for (; n; n--) {                                                                                                         \
                nb_store_relaxed(word, n);                                                                                           \
                nb_fence(KIND, word + 1, n);                                                                                         \
            }                                                                                                                        \
        else                                                                                                                         \
            for (; n; n--) {                                                                                                         \
                NB_OPAQUE(n);                                                                                                        \
                nb_fence(KIND, word + 1, n);                                                                                         \
            }                                                                                                                        \
        break;

static void fence(struct nb_thread *t, uint64_t n)
{
    uint64_t *const word = (uint64_t *)t->shared->buffer;
    switch (t->shared->parameter[FENCE]) {
        FENCE_LOOP(NB_NO_FENCE) FENCE_LOOP(NB_ACQUIRE) FENCE_LOOP(NB_RELEASE) FENCE_LOOP(NB_SEQ_CST) FENCE_LOOP(NB_SEQ_CST_STORE) FENCE_LOOP(NB_EXCHANGE)
        FENCE_LOOP(NB_MFENCE) FENCE_LOOP(NB_SFENCE) FENCE_LOOP(NB_LFENCE) FENCE_LOOP(NB_LOCK_OR) FENCE_LOOP(NB_XCHG) FENCE_LOOP(NB_MOV_MFENCE)
        FENCE_LOOP(NB_DMB_ISH) FENCE_LOOP(NB_DMB_ISHLD) FENCE_LOOP(NB_DMB_ISHST) FENCE_LOOP(NB_DSB_ISH) FENCE_LOOP(NB_ISB) FENCE_LOOP(NB_SWP)
        FENCE_LOOP(NB_STLR) FENCE_LOOP(NB_LDAR) FENCE_LOOP(NB_STLR_LDAR) FENCE_LOOP(NB_LDAPR) FENCE_LOOP(NB_STLR_LDAPR)
    }
}

/* -- a line to and fro: core_to_core ----------------------------------------------------------------------------------------------- */

#define LINES (4096 / NB_APART)
#define ROUND_TRIPS 200
#define PASSES 5 /* as many as the kernel makes in a window of a ms */

/* On words beside the kernel's own, which counts on in them. The cursor counts what earlier windows sent on each line. */
#define WAYS(NAME, ...)                                                                                                              \
    static void NAME(struct nb_thread *t, uint64_t trips)                                                                            \
    {                                                                                                                                \
        for (uint64_t pass = 0; pass < PASSES; pass++, t->cursor += 2 * trips)                                                       \
            for (uint64_t line = 0; line < LINES; line++) {                                                                          \
                uint64_t *word = (uint64_t *)(t->shared->buffer + line * NB_APART) + 1, next = t->cursor + t->index;                 \
                __VA_ARGS__                                                                                                          \
            }                                                                                                                        \
    }
#define TRIPS for (uint64_t i = trips; i; i--, next += 2)
WAYS(
    cas_ways, uint64_t seen; TRIPS {
        do
            seen = next;
        while (!nb_cas(word, &seen, next + 1));
    })
WAYS(
    load_store_ways, TRIPS {
        while (nb_load_acquire(word) != next)
            ;
        nb_store_release(word, next + 1);
    })
WAYS(
    atomic_add_ways, TRIPS {
        while (nb_add(word, 0) != next)
            ;
        nb_add(word, 1);
    })
WAYS(
    two_lines_ways, uint64_t *back = word + NB_APART / 16; if (t->index) TRIPS {
        while (nb_load_acquire(word) != next)
            ;
        nb_store_release(back, next);
    } else TRIPS {
        nb_store_release(word, next + 1);
        while (nb_load_acquire(back) != next + 1)
            ;
    })

/* -- marks: card_marking ----------------------------------------------------------------------------------------------------------- */

/* Cards are bytes next to each other, objects lie behind their page, each in the middle of its own. */
#define MARKS(NAME, ...)                                                                                                             \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        volatile uint8_t *card = t->shared->buffer + t->index;                                                                       \
        volatile uint64_t *object = (volatile uint64_t *)(t->shared->buffer + 4096 * (1 + t->index) + 2048);             \
        (void)card;                                                                                                                  \
        while (n) {                                                                                                                  \
            NB_TIMES_8(*object = n--; __VA_ARGS__;)                                                                                    \
        }                                                                                                                            \
    }
#define LOOK(CLEAN)                                                                                                                  \
    if (__builtin_expect(!*card, CLEAN))                                                                                             \
    *card = 1
#define LOCKED nb_add((uint64_t *)object + 1, 1)
MARKS(no_mark)
MARKS(mark, *card = 1)
MARKS(look_mark, LOOK(0))
MARKS(no_mark_locked, LOCKED)
MARKS(mark_locked, *card = 1; LOCKED)
MARKS(look_mark_locked, LOOK(0); LOCKED)
MARKS(clean_mark, *card = 0; *card = 1)
MARKS(clean_look_mark, *card = 0; LOOK(1))

/* -- objects: publication ---------------------------------------------------------------------------------------------------------- */

#define OBJECTS 256u
#define OBJECT NB_APART_ODD

struct published {
    uint64_t current;
    uint8_t pad[NB_APART - 8];
    union {
        pthread_mutex_t mutex;
        uint64_t sequence;
    };
};

/* The first thread writes, the other reads and says when it has seen another, which the writer looks at once in half a ring, as in the kernel; it waits for nobody: no reader checks what
 * it sees. */
#define PUBLISHED(NAME, PUT, GET)                                                                                                    \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        struct published *s = (struct published *)t->shared->buffer;                                                                 \
        uint8_t *objects = t->shared->buffer + 2 * NB_APART + OBJECT;                                                                \
        uint64_t *seen = (uint64_t *)(objects + OBJECTS * OBJECT + NB_APART) + 4, found, sequence, number = t->cursor, nothing = 0, x = 0; \
        const uint64_t spacing = (uint64_t)t->shared->parameter[SPACES];                                                             \
        (void)sequence;                                                                                                              \
        if (t->index) {                                                                                                              \
            for (; n; n--) {                                                                                                         \
                GET;                                                                                                                 \
                const volatile uint64_t *o = (const volatile uint64_t *)(uintptr_t)found;                                            \
                (void)o[1], (void)o[2], (void)o[3];                                                                                  \
                if (__builtin_expect(o[0] != number, 0))                                                                             \
                    nb_store_release(seen, number = o[0]);                                                                           \
            }                                                                                                                        \
            return;                                                                                                                  \
        }                                                                                                                            \
        t->cursor += n;                                                                                                              \
        if (!spacing)                                                                                                                \
            for (; n; n--) {                                                                                                         \
                PUBLISH(objects);                                                                                                    \
                PUT;                                                                                                                 \
            }                                                                                                                        \
        NB_OPAQUE(nothing);                                                                                                          \
        for (; n; n--) {                                                                                                             \
            PUBLISH(objects + (x & nothing));                                                                                        \
            PUT;                                                                                                                     \
            x = nb_work(number, spacing);                                                                                            \
        }                                                                                                                            \
    }
#define PUBLISH(FROM)                                                                                                                \
    if (++number % (OBJECTS / 2) == 0)                                                                                               \
        nb_load_acquire(seen);                                                                                                       \
    volatile uint64_t *o = (volatile uint64_t *)(FROM + number % OBJECTS * OBJECT);                                                  \
    o[0] = number, o[1] = 3 * number, o[2] = 5 * number, o[3] = 7 * number;                                                          \
    found = (uint64_t)(uintptr_t)o
PUBLISHED(relaxed_fence, nb_release_fence(); nb_store_relaxed(&s->current, found), found = nb_load_relaxed(&s->current); nb_acquire_fence())
PUBLISHED(release_acquire, nb_store_release(&s->current, found), found = nb_load_acquire(&s->current))
PUBLISHED(seq_cst_exchange, nb_swap(&s->current, found), found = nb_load(&s->current))
PUBLISHED(mutexed, pthread_mutex_lock(&s->mutex); nb_store_relaxed(&s->current, found); pthread_mutex_unlock(&s->mutex), pthread_mutex_lock(&s->mutex);
          found = nb_load_relaxed(&s->current); pthread_mutex_unlock(&s->mutex))
PUBLISHED(
    versioned, sequence = nb_load_relaxed(&s->sequence); nb_store_relaxed(&s->sequence, sequence + 1); nb_release_fence(); nb_store_relaxed(&s->current, found);
    nb_store_release(&s->sequence, sequence + 2), do {
        sequence = nb_load_acquire(&s->sequence);
        found = nb_load_relaxed(&s->current);
        nb_acquire_fence();
    } while (nb_load_relaxed(&s->sequence) != sequence || sequence & 1))

/* -- streams: memory_bandwidth, loaded_latency ------------------------------------------------------------------------------------- */

/* Eight vectors a turn, round and round through arrays whose bytes are a power of two: from the end to the begin by a mask, without any end of a loop. From where the last
 * batch ended. `lines`: all those of the thread in this case so far. */
struct stream {
    uint8_t *a, *b, *c;
    uint64_t mask, lines;
};
#ifdef NB_X86
#define PAST_16(p, v) __asm__ volatile("movntdq %1, %0" : "=m"(*(p)) : "x"(v))
#define PAST_32(p, v) __asm__ volatile("vmovntdq %1, %0" : "=m"(*(p)) : "x"(v))
#define PAST_64(p, v) __asm__ volatile("vmovntdq %1, %0" : "=m"(*(p)) : "v"(v))
#else
#define PAST_16 INTO
#endif
#define INTO(p, v) (*(p) = (v))
#define EIGHT(DO, W, PUT) DO(0, W, PUT) DO(1, W, PUT) DO(2, W, PUT) DO(3, W, PUT) DO(4, W, PUT) DO(5, W, PUT) DO(6, W, PUT) DO(7, W, PUT)
#define AT(ARRAY, KIND, k, W) ((volatile KIND##W *)(ARRAY + k * W))
#define READ(k, W, PUT) (void)*AT(a, words_, k, W);
#define WRITE(k, W, PUT) PUT(AT(a, words_, k, W), w);
#define LOAD_8(k, W, PUT) const words_##W v##k = *AT(b, words_, k, W);
#define STORE_8(k, W, PUT) PUT(AT(a, words_, k, W), v##k);
#define TRIAD(k, W, PUT) PUT(AT(a, doubles_, k, W), *AT(b, doubles_, k, W) + f * *AT(c, doubles_, k, W));
#define STREAM_LOOP(NAME, W, TARGET, BODY)                                                                                           \
    TARGET static void NAME(const struct stream *s, uint64_t n)                                                                      \
    {                                                                                                                                \
        uint64_t at = s->lines * 64 & s->mask;                                                                                       \
        const struct stream all = *s; /* read once: stores may go anywhere, for all that the compiler knows */                       \
        const words_##W w = (words_##W){} + (s->lines | 1);                                                                          \
        const doubles_##W f = (doubles_##W){} + 3.0;                                                                                 \
        (void)w, (void)f;                                                                                                            \
        for (; n; n -= W / 8, at = (at + 8 * W) & all.mask) {                                                                        \
            uint8_t *const a = all.a + at, *const b = all.b + at, *const c = all.c + at;                                             \
            (void)a, (void)b, (void)c;                                                                                               \
            BODY                                                                                                                     \
        }                                                                                                                            \
    }
#define STREAMS(W, TARGET)                                                                                                           \
    typedef uint64_t words_##W __attribute__((vector_size(W), may_alias));                                                           \
    typedef double doubles_##W __attribute__((vector_size(W), may_alias));                                                           \
    STREAM_LOOP(read_##W, W, TARGET, EIGHT(READ, W, INTO))                                                                           \
    STREAM_LOOP(write_##W, W, TARGET, EIGHT(WRITE, W, INTO))                                                                         \
    STREAM_LOOP(copy_##W, W, TARGET, EIGHT(LOAD_8, W, INTO) EIGHT(STORE_8, W, INTO))                                                 \
    STREAM_LOOP(triad_##W, W, TARGET, EIGHT(TRIAD, W, INTO))                                                                         \
    STREAM_LOOP(write_nt_##W, W, TARGET, EIGHT(WRITE, W, PAST_##W))                                                                  \
    STREAM_LOOP(copy_nt_##W, W, TARGET, EIGHT(LOAD_8, W, INTO) EIGHT(STORE_8, W, PAST_##W))                                          \
    STREAM_LOOP(triad_nt_##W, W, TARGET, EIGHT(TRIAD, W, PAST_##W))
STREAMS(16, )
#ifdef NB_X86
STREAMS(32, __attribute__((target("avx2,fma"))))
STREAMS(64, __attribute__((target("avx512f"))))
#define BY_WIDTH(NAME) t->shared->parameter[VECTOR] == NB_AVX512 ? NAME##_64 : t->shared->parameter[VECTOR] == NB_AVX2 ? NAME##_32 : NAME##_16
#else
#define BY_WIDTH(NAME) NAME##_16
#endif
#define STREAM_OF(NAME, ARRAYS)                                                                                                      \
    static void NAME##_lines(struct nb_thread *t, uint64_t n)                                                                        \
    {                                                                                                                                \
        const uint64_t bytes = t->shared->buffer_bytes / t->shared->threads / ARRAYS;                                                \
        uint8_t *a = t->shared->buffer + t->index * ARRAYS * bytes;                                                                  \
        const struct stream s = {a, a + bytes, a + 2 * bytes, bytes - 1, t->executed};                                               \
        (BY_WIDTH(NAME))(&s, n);                                                                                                     \
    }
STREAM_OF(read, 1)
STREAM_OF(write, 1)
STREAM_OF(copy, 2)
STREAM_OF(triad, 3)
STREAM_OF(write_nt, 1)
STREAM_OF(copy_nt, 2)
STREAM_OF(triad_nt, 3)

/* -- chases: memory_latency, loaded_latency ---------------------------------------------------------------------------------------- */

#define NEXT(p) p = (uint64_t *)(uintptr_t) * (volatile uint64_t *)p

static void chase(struct nb_thread *t, uint64_t n) /* where the kernel's first chase stands is the first word of the scratch memory */
{
    uint64_t *at = *(uint64_t **)t->shared->scratch;
    for (; n; n -= 64) {
        NB_TIMES_64(NEXT(at);)
    }
    *(uint64_t **)t->shared->scratch = at;
}

/* Several, each in a register or, where there are too few of them, on the stack. */
#define CHASES(COUNT)                                                                                                                \
    case COUNT: {                                                                                                                    \
        uint64_t *p[COUNT];                                                                                                          \
        memcpy(p, t->shared->scratch, sizeof p);                                                                                     \
        for (; n; n -= 8) {                                                                                                          \
            _Pragma("GCC unroll 8") for (int step = 0; step < 8; step++) _Pragma("GCC unroll 64") for (int k = 0; k < COUNT; k++) NEXT(p[k]); \
        }                                                                                                                            \
        memcpy(t->shared->scratch, p, sizeof p);                                                                                     \
        break;                                                                                                                       \
    }

static void chases(struct nb_thread *t, uint64_t n)
{
    switch (t->shared->parameter[CHAINS]) {
        CHASES(2) CHASES(4) CHASES(8) CHASES(12) CHASES(16) CHASES(32)
    }
}

/* The first thread chases where its cursor stands, in the first half of the memory; the other streams through the second half, or waits. */
static void chase_beside(struct nb_thread *t, uint64_t n)
{
    if (t->index && t->shared->parameter[RATE] < 0) {
        for (uint64_t end = nb_now() + n * 5; nb_now() < end;)
            nb_relax();
    } else if (t->index) {
        const struct stream s = {.a = t->shared->buffer + t->shared->buffer_bytes / 2, .mask = t->shared->buffer_bytes / 2 - 1, .lines = t->executed};
        (BY_WIDTH(read))(&s, n);
    } else {
        uint64_t *at = (uint64_t *)(uintptr_t)t->cursor;
        for (; n; n -= 64) {
            NB_TIMES_64(NEXT(at);)
        }
        t->cursor = (uint64_t)(uintptr_t)at;
    }
}

/* -- one entry --------------------------------------------------------------------------------------------------------------------- */

#define LOOP_OF(NAME, WINDOW) {NAME, WINDOW},
static const struct {
    nb_batch run;
    int window;
} loops[] = {EVERY(LOOP_OF)};

int nb_run(struct nb_thread *t)
{
    const nb_batch run = loops[t->shared->parameter[LOOP]].run;
    switch (t->shared->phase == NB_MEASURE ? loops[t->shared->parameter[LOOP]].window : -1) {
    case OWN:
        nb_window(t, run);
        break;
    case COMMON:
        nb_count_window(t, run);
        break;
    case COUNTED:
        nb_gate(t);
        t->begin_ns = nb_now();
        run(t, ROUND_TRIPS);
        t->end_ns = nb_now();
        t->operations = PASSES * LINES * 2 * ROUND_TRIPS;
    }
    return NB_OK;
}
