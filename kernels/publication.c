/* Handing objects to other threads: the first thread writes one after the other and publishes a pointer to each; the others read the pointer, and then
 * the object.
 *
 * An object's words all follow from its number: a reader that sees it before it was wholly written, or an older one after a newer one, notices. Objects lie in a
 * ring. Each reader says which number it has seen, and the writer looks at that once in half a ring: it waits rather than write to an object that somebody may
 * still read (quiescent states, as in userspace RCU; Desnoyers et al. 2012). */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"
#include <pthread.h>

enum { METHOD, SPACING };
enum { RELAXED_FENCE, RELEASE_ACQUIRE, SEQ_CST_EXCHANGE, MUTEX, SEQLOCK };

static const struct nb_parameter parameters[] = {
    [METHOD] = {"method", "relaxed_fence|release_acquire|seq_cst_exchange|mutex|seqlock", "how the pointer is written and read", RELEASE_ACQUIRE, 0, 4},
    [SPACING] = {"spacing", NULL, "dependent multiplies of the writer between two objects", 0, 0, 100000},
};
static const struct nb_metric metrics[] = {
    {"publish_time", "ns", "from one published object to the next, in the writer", NB_LOWER_IS_BETTER},
    {"read_time", "ns", "of one look at the pointer and the object behind it, in one reader", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("publication", 3, "a pointer from one thread to others", parameters, metrics);

#define OBJECTS 256u
#define WORDS 4

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

/* The number up to which a reader needs no object any more. */
static uint64_t *seen(const struct nb_case *c, uint32_t reader)
{
    return (uint64_t *)(c->buffer + 2 * NB_APART + (OBJECTS + 1) * sizeof(struct object) + reader * NB_APART);
}

static inline uint64_t word(uint64_t number, unsigned k) { return number * (2 * k + 1); } /* the first is the number */

#define INLINE static inline __attribute__((always_inline))

INLINE void put(struct shared *s, struct object *o, int method)
{
    const uint64_t next = (uint64_t)(uintptr_t)o;
    if (method == RELAXED_FENCE) {
        nb_release_fence();
        nb_store_relaxed(&s->current, next);
    } else if (method == RELEASE_ACQUIRE) {
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
    } else if (method == RELEASE_ACQUIRE) {
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

INLINE void write_objects(struct nb_thread *t, uint64_t n, int method)
{
    const struct nb_case *c = t->shared;
    struct shared *s = (struct shared *)c->buffer;
    const uint64_t spacing = (uint64_t)c->parameter[SPACING];
    uint64_t number = t->cursor, nothing = 0, x = 0;
    NB_OPAQUE(nothing);
    for (; n; n--) {
        if (++number % (OBJECTS / 2) == 0)
            wait_for_readers(c, number);
        struct object *o = (struct object *)((uint8_t *)object(c, number) + (x & nothing));
        for (unsigned k = 0; k < WORDS; k++)
            nb_store_relaxed(&o->word[k], word(number, k));
        put(s, o, method);
        x = nb_work(number, spacing);
    }
    t->cursor = number;
}

/* `check` counts the objects that were whole and no older than the one before. */
INLINE void read_objects(struct nb_thread *t, uint64_t n, int method)
{
    struct shared *s = (struct shared *)t->shared->buffer;
    uint64_t *told = seen(t->shared, t->index), last = t->cursor, right = t->check;
    for (; n; n--) {
        const struct object *o = get(s, method);
        const uint64_t number = nb_load_relaxed(&o->word[0]);
        uint64_t wrong = number < last;
        for (unsigned k = 1; k < WORDS; k++)
            wrong |= nb_load_relaxed(&o->word[k]) ^ word(number, k);
        right += !wrong;
        last = number;
        nb_store_release(told, number);
    }
    t->cursor = last;
    t->check = right;
}

#define ROLES(NAME, HOW)                                                                                                             \
    static void write_##NAME(struct nb_thread *t, uint64_t n) { write_objects(t, n, HOW); }                                          \
    static void read_##NAME(struct nb_thread *t, uint64_t n) { read_objects(t, n, HOW); }
ROLES(relaxed_fence, RELAXED_FENCE)
ROLES(release_acquire, RELEASE_ACQUIRE)
ROLES(seq_cst_exchange, SEQ_CST_EXCHANGE)
ROLES(mutex, MUTEX)
ROLES(seqlock, SEQLOCK)

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
    static const nb_batch writers[] = {write_relaxed_fence, write_release_acquire, write_seq_cst_exchange, write_mutex, write_seqlock};
    static const nb_batch readers[] = {read_relaxed_fence, read_release_acquire, read_seq_cst_exchange, read_mutex, read_seqlock};
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    if (t->index == 0) {
        nb_window(t, writers[c->parameter[METHOD]]);
        t->check = ((const struct object *)(uintptr_t)((struct shared *)c->buffer)->current)->word[0];
        return NB_OK;
    }
    *seen(c, t->index) = t->cursor;
    nb_window(t, readers[c->parameter[METHOD]]);
    nb_store_release(seen(c, t->index), UINT64_MAX - OBJECTS); /* it reads no more: the writer need not wait */
    return NB_OK;
}
