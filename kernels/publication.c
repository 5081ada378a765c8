/* Handing objects to other threads: the first thread writes one after the other and publishes a pointer to each; the others read the pointer, and then
 * the object.
 *
 * An object's words all follow from its number: a reader that sees it before it was wholly written, or an older one after a newer one, notices. Objects lie in a
 * ring. Each reader says which number it has seen, and the writer looks at that once in half a ring: it waits rather than write to an object that somebody may
 * still read (quiescent states, as in userspace RCU; Desnoyers et al. 2012).
 *
 * One way is wrong, and there so that the check can be seen to find it: the object lies on a stack (in measured memory, as goroutines have theirs), in the frame of a call that
 * publishes it and returns. What the next call has on that stack is written over it. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"
#include <pthread.h>

enum { METHOD, SPACING };
enum { RELAXED_FENCE, RELEASE_ACQUIRE, SEQ_CST_EXCHANGE, MUTEX, SEQLOCK, DEAD_FRAME };

static const struct nb_parameter parameters[] = {
    [METHOD] = {"method", "relaxed_fence|release_acquire|seq_cst_exchange|mutex|seqlock|dead_frame", "how the pointer is written and read", RELEASE_ACQUIRE, 0, DEAD_FRAME},
    [SPACING] = {"spacing", NULL, "dependent multiplies of the writer between two objects", 0, 0, 100000},
};
static const struct nb_metric metrics[] = {
    {"publish_time", "ns", "from one published object to the next, in the writer", NB_LOWER_IS_BETTER},
    {"read_time", "ns", "of one look at the pointer and the object behind it, in one reader", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("publication", 4, "a pointer from one thread to others", parameters, metrics);

#define OBJECTS 256u
#define WORDS 4 /* look() knows them */

struct object { /* on a line that none comes along with: a writer that runs ahead would have those of the next objects taken away by who reads this one */
    uint64_t word[WORDS];
    uint8_t pad[NB_APART_ODD - WORDS * 8];
};

struct shared {
    uint64_t current; /* the address of an object */
    uint8_t pad0[NB_APART - sizeof(uint64_t)];
    union {
        pthread_mutex_t mutex;
        uint64_t sequence;
        uint8_t pad1[NB_APART];
    } lock;
};

/* In front of them lies the one that is there before anything is published. */
static struct object *object(const struct nb_case *c, uint64_t number)
{
    return (struct object *)(c->buffer + 2 * NB_APART) + 1 + number % OBJECTS;
}

/* The number up to which a reader needs no object any more: behind where objects have their words, so that no load of one has the lowest twelve address bits of its store. */
static uint64_t *seen(const struct nb_case *c, uint32_t reader)
{
    return (uint64_t *)(c->buffer + 2 * NB_APART + (OBJECTS + 1) * sizeof(struct object) + reader * NB_APART) + WORDS;
}

static inline uint64_t word(uint64_t number, unsigned k) { return number * (2 * k + 1); } /* the first is the number */

#define INLINE static inline __attribute__((always_inline))

INLINE void put(struct shared *s, struct object *o, int method)
{
    const uint64_t next = (uint64_t)(uintptr_t)o;
    if (method == RELAXED_FENCE) {
        nb_release_fence();
        nb_store_relaxed(&s->current, next);
    } else if (method == RELEASE_ACQUIRE || method == DEAD_FRAME) {
        nb_store_release(&s->current, next);
    } else if (method == SEQ_CST_EXCHANGE) {
        (void)nb_swap(&s->current, next);
    } else if (method == MUTEX) {
        pthread_mutex_lock(&s->lock.mutex);
        nb_store_relaxed(&s->current, next);
        pthread_mutex_unlock(&s->lock.mutex);
    } else { /* odd while it writes (Boehm 2012, "Can seqlocks get along with programming language memory models?") */
        const uint64_t before = nb_load_relaxed(&s->lock.sequence);
        nb_store_relaxed(&s->lock.sequence, before + 1);
        nb_release_fence();
        nb_store_relaxed(&s->current, next);
        nb_store_release(&s->lock.sequence, before + 2);
    }
}

INLINE const struct object *get(struct shared *s, int method)
{
    uint64_t found;
    if (method == RELAXED_FENCE) {
        found = nb_load_relaxed(&s->current);
        nb_acquire_fence();
    } else if (method == RELEASE_ACQUIRE || method == DEAD_FRAME) {
        found = nb_load_acquire(&s->current);
    } else if (method == SEQ_CST_EXCHANGE) {
        found = nb_load(&s->current);
    } else if (method == MUTEX) {
        pthread_mutex_lock(&s->lock.mutex);
        found = nb_load_relaxed(&s->current);
        pthread_mutex_unlock(&s->lock.mutex);
    } else {
        uint64_t before, after;
        do {
            before = nb_load_acquire(&s->lock.sequence);
            found = nb_load_relaxed(&s->current);
            nb_acquire_fence();
            after = nb_load_relaxed(&s->lock.sequence);
        } while (before != after || before & 1);
    }
    return (const struct object *)(uintptr_t)found;
}

/* Waits until no reader needs an object of the half of the ring that is written next. */
static void wait_for_readers(const struct nb_case *c, uint64_t number)
{
    for (uint32_t i = 1; i < c->threads; i++)
        while (nb_load_acquire(seen(c, i)) + OBJECTS / 2 < number)
            nb_relax();
}

/* A call that has other things where the one before it had the object: no words of one. */
INLINE void call_another(struct object *frame, uint64_t number)
{
    for (unsigned k = 0; k < WORDS; k++)
        nb_store_relaxed(&frame->word[k], ~number + k * k);
}

/* A loop of its own where there is no work between two objects: what it takes to make the next one wait for it is a tenth of the cheapest methods. */
INLINE void write_objects(struct nb_thread *t, uint64_t n, int method, int spaced)
{
    const struct nb_case *c = t->shared;
    struct shared *s = (struct shared *)c->buffer;
    struct object *const ring = object(c, 0); /* read once: an object may be anywhere, for all that the compiler knows */
    const uint64_t spacing = spaced ? (uint64_t)c->parameter[SPACING] : 0, end = t->cursor + n;
    uint64_t number = t->cursor, nothing = 0, x = 0;
    NB_OPAQUE(nothing);
    while (number != end) {
        if (++number % (OBJECTS / 2) == 0 && method != DEAD_FRAME)
            wait_for_readers(c, number);
        struct object *o = (struct object *)((uint8_t *)(ring + (method == DEAD_FRAME ? 0 : number % OBJECTS)) + (spaced ? x & nothing : 0));
        for (unsigned k = 0; k < WORDS; k++)
            nb_store_relaxed(&o->word[k], word(number, k));
        put(s, o, method);
        if (method == DEAD_FRAME)
            call_another(o, number);
        x = nb_work(number, spacing);
    }
    t->cursor = number;
}

/* One look, after one that found `last`: what it found. Whole is an object whose outer words add up to what the inner ones do: words of two numbers never do so (no part of 1, -3, -5 and 7
 * adds up to 0), and each by itself would take longer to check than to read. Of the one that was there before the writer has been told. */
INLINE uint64_t look(struct shared *s, uint64_t *told, uint64_t last, uint64_t *wrong, int method)
{
    const struct object *o = get(s, method);
    const uint64_t number = nb_load_relaxed(&o->word[0]), inner = nb_load_relaxed(&o->word[1]) + nb_load_relaxed(&o->word[2]);
    const uint64_t whole = inner - nb_load_relaxed(&o->word[3]);
    if (__builtin_expect(number != last, 0) || __builtin_expect(whole != last, 0)) {
        *wrong += number < last || whole != number;
        nb_store_release(told, number);
    }
    return number;
}

/* `check` counts the objects that were whole and no older than the one before. */
INLINE void read_objects(struct nb_thread *t, uint64_t n, int method)
{
    struct shared *s = (struct shared *)t->shared->buffer;
    uint64_t *told = seen(t->shared, t->index), last = t->cursor, wrong = 0;
    t->check += n;
    for (; n; n -= 2) /* by twos, so that what was seen last need not change its place */
        last = look(s, told, look(s, told, last, &wrong, method), &wrong, method);
    t->cursor = last;
    t->check -= wrong;
}

#define ROLES(NAME, HOW)                                                                                                             \
    static void write_##NAME(struct nb_thread *t, uint64_t n) { write_objects(t, n, HOW, 0); }                                       \
    static void write_##NAME##_spaced(struct nb_thread *t, uint64_t n) { write_objects(t, n, HOW, 1); }                              \
    static void read_##NAME(struct nb_thread *t, uint64_t n) { read_objects(t, n, HOW); }
ROLES(relaxed_fence, RELAXED_FENCE)
ROLES(release_acquire, RELEASE_ACQUIRE)
ROLES(seq_cst_exchange, SEQ_CST_EXCHANGE)
ROLES(mutex, MUTEX)
ROLES(seqlock, SEQLOCK)
ROLES(dead_frame, DEAD_FRAME)

static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->buffer_bytes < 2 * NB_APART + (OBJECTS + 1) * sizeof(struct object) + c->threads * NB_APART)
        return NB_UNSUPPORTED;
    t->check = t->cursor = 0;
    if (t->index == 0) {
        struct shared *s = (struct shared *)c->buffer;
        memset(c->buffer, 0, c->buffer_bytes); /* all of the ring: what was never touched is on no node, and cannot be proven */
        s->current = (uint64_t)(uintptr_t)(object(c, 0) - 1);
        if (c->parameter[METHOD] == MUTEX)
            pthread_mutex_init(&s->lock.mutex, NULL);
    }
    return NB_OK;
}

int nb_run(struct nb_thread *t)
{
#define WRITERS(NAME) {write_##NAME, write_##NAME##_spaced}
    static const nb_batch writers[][2] = {WRITERS(relaxed_fence), WRITERS(release_acquire), WRITERS(seq_cst_exchange), WRITERS(mutex), WRITERS(seqlock),
                                           WRITERS(dead_frame)};
    static const nb_batch readers[] = {read_relaxed_fence, read_release_acquire, read_seq_cst_exchange, read_mutex, read_seqlock, read_dead_frame};
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    if (t->index == 0) {
        nb_window(t, writers[c->parameter[METHOD]][c->parameter[SPACING] > 0]);
        const struct object *last = (const struct object *)(uintptr_t)((struct shared *)c->buffer)->current;
        t->check = c->parameter[METHOD] == DEAD_FRAME ? t->cursor : last->word[0]; /* that it is gone is for readers to find */
        return NB_OK;
    }
    *seen(c, t->index) = t->cursor;
    nb_window(t, readers[c->parameter[METHOD]]);
    nb_store_release(seen(c, t->index), UINT64_MAX - OBJECTS); /* it reads no more: the writer need not wait */
    return NB_OK;
}
