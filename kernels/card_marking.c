/* The write barrier of a generational garbage collector: after each store of a reference, the card of the object is marked in a table of bytes.
 *
 * Every thread stores into an object of its own and marks a card of its own; what threads share is the line that their cards lie on. An
 * unconditional mark stores; a conditional one loads first, and stores where the card was clean. `cleaned` of 1,024 marks come after a cleaning,
 * which is the thread's own as well, so that it is known beforehand how many stores a conditional barrier makes. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_window.h"

enum { BARRIER, AFTER, STRIDE, CLEANED, SPACING };
enum { NONE, UNCONDITIONAL, CONDITIONAL };
enum { NOTHING, LOCKED };

static const struct nb_parameter parameters[] = {
    [BARRIER] = {"barrier", "none|unconditional|conditional", "no mark; store; load, and store where the card is clean", UNCONDITIONAL, 0, 2},
    [AFTER] = {"after", "nothing|locked", "what follows: nothing, or an atomic add on a line of the thread's own", NOTHING, 0, 1},
    [STRIDE] = {"stride", NULL, "bytes between the cards of two threads", 1, 1, 4096},
    [CLEANED] = {"cleaned", NULL, "marks of 1,024 before which the card is cleaned, a power of two or none", 0, 0, 1024},
    [SPACING] = {"spacing", NULL, "dependent multiplies between two stores of references", 0, 0, 100000},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one store of a reference with its barrier, in one thread", NB_LOWER_IS_BETTER},
    {"throughput", "operation/s", "stores of references by all threads", NB_HIGHER_IS_BETTER},
};
NB_DESCRIBE("card_marking", 2, "write barriers that mark cards", parameters, metrics);

#define PAGE 4096u
#define OBJECT NB_APART /* apart */
#define TURNS 1024u

struct object {
    uint64_t reference, locked;
};

static uint8_t *card(const struct nb_thread *t)
{
    return t->shared->buffer + t->index * (uint64_t)t->shared->parameter[STRIDE];
}

static struct object *object(const struct nb_thread *t)
{
    uint64_t cards = t->shared->threads * (uint64_t)t->shared->parameter[STRIDE];
    return (struct object *)(t->shared->buffer + (cards + PAGE - 1) / PAGE * PAGE + t->index * OBJECT);
}

/* `check` counts the stores into the card table, `cursor` the references stored. */
#define LOOP(NAME, KIND, DRAIN)                                                                                                      \
    static void NAME(struct nb_thread *t, uint64_t n)                                                                                \
    {                                                                                                                                \
        const uint64_t spacing = (uint64_t)t->shared->parameter[SPACING], cleaned = (uint64_t)t->shared->parameter[CLEANED];         \
        const uint64_t every = cleaned ? TURNS / cleaned - 1 : 0;                                                                    \
        volatile uint8_t *const mark = card(t);                                                                                      \
        struct object *const own = object(t);                                                                                        \
        uint64_t stores = t->check, number = t->cursor, nothing = 0, x = 0;                                                          \
        NB_OPAQUE(nothing);                                                                                                          \
        for (; n; n--) {                                                                                                             \
            if (cleaned && !(number & every))                                                                                        \
                *mark = 0;                                                                                                           \
            number++;                                                                                                                \
            ((volatile struct object *)((uint8_t *)own + (x & nothing)))->reference = number;                                        \
            if (KIND == UNCONDITIONAL) {                                                                                             \
                *mark = 1;                                                                                                           \
                stores++;                                                                                                            \
            } else if (KIND == CONDITIONAL && !*mark) {                                                                              \
                *mark = 1;                                                                                                           \
                stores++;                                                                                                            \
            }                                                                                                                        \
            if (DRAIN)                                                                                                               \
                x = nb_add(&own->locked, 1);                                                                                         \
            x = nb_work(x + number, spacing);                                                                                        \
        }                                                                                                                            \
        t->check = stores;                                                                                                           \
        t->cursor = number;                                                                                                          \
    }
LOOP(none, NONE, 0)
LOOP(unconditional, UNCONDITIONAL, 0)
LOOP(conditional, CONDITIONAL, 0)
LOOP(none_locked, NONE, 1)
LOOP(unconditional_locked, UNCONDITIONAL, 1)
LOOP(conditional_locked, CONDITIONAL, 1)

int nb_run(struct nb_thread *t)
{
    static const nb_batch loops[][2] = {{none, none_locked}, {unconditional, unconditional_locked}, {conditional, conditional_locked}};
    const struct nb_case *c = t->shared;
    const uint64_t cleaned = (uint64_t)c->parameter[CLEANED];
    struct object *own = object(t);
    if (cleaned & (cleaned - 1) || (uint8_t *)(own + 1) > c->buffer + c->buffer_bytes)
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        *card(t) = 0;
        memset(own, 0, OBJECT);
        t->check = t->cursor = 0;
        return NB_OK;
    }
    nb_window(t, loops[c->parameter[BARRIER]][c->parameter[AFTER]]);
    const int marked = c->parameter[BARRIER] != NONE;
    if (own->reference != t->cursor || *card(t) != marked || own->locked != (c->parameter[AFTER] == LOCKED ? t->cursor : 0))
        t->check = UINT64_MAX; /* a reference, a mark or a locked operation is missing */
    return NB_OK;
}
