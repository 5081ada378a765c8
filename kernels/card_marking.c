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
NB_DESCRIBE("card_marking", 4, "write barriers that mark cards", parameters, metrics);

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

/* Half a page from the thread's card, in address bits that a load and a store before it are compared by: where the lowest twelve were the same, the load of a conditional mark waited for
 * the reference's store, in some windows and not in others (0.22 to 1.04 ns for 0.19). */
static struct object *object(const struct nb_thread *t)
{
    uint64_t cards = t->shared->threads * (uint64_t)t->shared->parameter[STRIDE];
    uint64_t across = (t->index * (uint64_t)t->shared->parameter[STRIDE] + PAGE / 2) % PAGE / OBJECT * OBJECT;
    return (struct object *)(t->shared->buffer + (cards + PAGE - 1) / PAGE * PAGE + t->index * PAGE + across);
}

/* What a loop has around its marks: nothing, where none is cleaned and there is no work; cleanings; work, and what it takes to make the next store wait for it. A loop of each
 * kind, eight marks a turn: what is not asked for took up to three quarters of what was measured, and a loop of one mark one cycle or two, as its code lay. */
enum { BARE, CLEANING, WORKING, KINDS };

/* `check` counts the stores into the card table, `cursor` the references stored. Where nothing cleans, a card is dirty. */
#define MARK *mark = 1, stores++
#define LOOP(NAME, KIND, DRAIN)                                                                                                      \
    static inline __attribute__((always_inline)) void NAME##_loop(struct nb_thread *t, uint64_t n, const int around)                 \
    {                                                                                                                                \
        const uint64_t cleaned = (uint64_t)t->shared->parameter[CLEANED], every = cleaned ? TURNS / cleaned - 1 : 0;                 \
        const uint64_t spacing = around == WORKING ? (uint64_t)t->shared->parameter[SPACING] : 0;                                    \
        volatile uint8_t *const mark = card(t);                                                                                      \
        struct object *const own = object(t);                                                                                        \
        uint64_t stores = KIND == UNCONDITIONAL ? t->check + n : t->check, number = t->cursor, nothing = 0, x = 0;                   \
        NB_OPAQUE(nothing);                                                                                                          \
        for (; n; n -= 8)                                                                                                            \
            _Pragma("GCC unroll 8") for (int turn = 0; turn < 8; turn++) {                                                           \
                if ((around == CLEANING || (around == WORKING && cleaned)) && !(number & every))                                     \
                    *mark = 0;                                                                                                       \
                number++;                                                                                                            \
                ((volatile struct object *)((uint8_t *)own + (around == WORKING ? x & nothing : 0)))->reference = number;            \
                if (KIND == UNCONDITIONAL) {                                                                                         \
                    *mark = 1;                                                                                                       \
                } else if (around != CLEANING && __builtin_expect(KIND == CONDITIONAL && !*mark, 0)) {                               \
                    MARK;                                                                                                            \
                } else if (around == CLEANING && KIND == CONDITIONAL && !*mark) {                                                    \
                    MARK;                                                                                                            \
                }                                                                                                                    \
                if (DRAIN)                                                                                                           \
                    x = nb_add(&own->locked, 1);                                                                                     \
                x = nb_work(x + number, spacing);                                                                                    \
            }                                                                                                                        \
        t->check = stores;                                                                                                           \
        t->cursor = number;                                                                                                          \
    }                                                                                                                                \
    static void NAME##_bare(struct nb_thread *t, uint64_t n) { NAME##_loop(t, n, BARE); }                                            \
    static void NAME##_cleaning(struct nb_thread *t, uint64_t n) { NAME##_loop(t, n, CLEANING); }                                    \
    static void NAME##_working(struct nb_thread *t, uint64_t n) { NAME##_loop(t, n, WORKING); }
LOOP(none, NONE, 0)
LOOP(unconditional, UNCONDITIONAL, 0)
LOOP(conditional, CONDITIONAL, 0)
LOOP(none_locked, NONE, 1)
LOOP(unconditional_locked, UNCONDITIONAL, 1)
LOOP(conditional_locked, CONDITIONAL, 1)
#define ALL(NAME) {NAME##_bare, NAME##_cleaning, NAME##_working}
static const nb_batch loops[][2][KINDS] = {{ALL(none), ALL(none_locked)}, {ALL(unconditional), ALL(unconditional_locked)}, {ALL(conditional), ALL(conditional_locked)}};

int nb_run(struct nb_thread *t)
{
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
    nb_window(t, loops[c->parameter[BARRIER]][c->parameter[AFTER]][c->parameter[SPACING] ? WORKING : cleaned ? CLEANING : BARE]);
    const int marked = c->parameter[BARRIER] != NONE;
    if (own->reference != t->cursor || *card(t) != marked || own->locked != (c->parameter[AFTER] == LOCKED ? t->cursor : 0))
        t->check = UINT64_MAX; /* a reference, a mark or a locked operation is missing */
    return NB_OK;
}
