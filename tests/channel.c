/* Channels whose two ends take turns in one thread: who sleeps leaves it to the other, and nobody else interrupts. How often somebody sleeps is exact then, whatever else the machine does. */
#include <errno.h>
#include <stdint.h>
#define NB_SLEEP(WORD, VALUE) sleep_in_turn(WORD, VALUE)
#define NB_WAKE(WORD, COUNT) wake_in_turn()
static long sleep_in_turn(uint32_t *word, uint32_t value);
static void wake_in_turn(void);
#include "nb_hchan.h"
#include "nb_ring.h"
#include <stdlib.h>
#include <ucontext.h>

enum { HCHAN, SPSC, SPSC_CACHED, MPSC, MPMC };
#define STACK (256u << 10)
#define MOST_BYTES (1u << 20)
#define MOST_WORDS (8 * NB_APART)

static ucontext_t side[2], back;
static int self, left[2], preempts;
static uint64_t sleeps[2], wrong, messages, spoken[2], held;
static int kind;
static struct nb_hchan hchan;
static struct nb_ring ring;
static struct nb_end end[2];

static void turn(void)
{
    const int from = self;
    if (left[!from])
        return;
    self = !from;
    swapcontext(&side[from], &side[!from]);
}

static long sleep_in_turn(uint32_t *word, uint32_t value)
{
    if (*word != value)
        return errno = EAGAIN, -1;
    sleeps[self]++;
    for (uint64_t turns = 0; *(volatile uint32_t *)word == value; turn())
        if (++turns > 2) /* nobody else is left who could wake it */
            return end[self].lost = 1, 0;
    return 0;
}

static void wake_in_turn(void)
{
    if (preempts)
        turn();
}

static int move(enum nb_side side, uint64_t *message)
{
    struct nb_end *const e = &end[side == NB_RECEIVES];
    uint8_t *const bytes = (uint8_t *)message;
    if (kind == HCHAN)
        return nb_hchan_move(&hchan, e, bytes, side);
    if (kind == MPSC || kind == MPMC)
        return nb_numbered(&ring, e, bytes, side, kind == MPSC && side == NB_RECEIVES);
    return nb_spsc(&ring, e, bytes, side, kind == SPSC_CACHED);
}

static void run(int receives)
{
    uint64_t message;
    for (uint64_t i = 0; i < messages; i++) {
        message = i;
        if (!move(receives ? NB_RECEIVES : NB_SENDS, &message))
            break;
        spoken[receives]++;
        wrong += receives && message != i;
        if (receives)
            held += kind == HCHAN ? *hchan.held : *ring.index[NB_SENDS] - *ring.index[NB_RECEIVES];
    }
    left[receives] = 1;
    if (left[!receives])
        setcontext(&back);
    self = !receives;
    setcontext(&side[!receives]);
}

/* Sleeps of the producer and of the consumer, messages that went through, those that were not the next, and what the consumer
 * found in the channel after each, all together. `preempting`: who is woken runs at once; `apart`:
 * words and places have lines of their own. */
void take_turns(int which, uint64_t capacity, uint64_t count, int preempting, int apart, uint64_t *found)
{
    uint8_t *memory = calloc(1, MOST_BYTES + MOST_WORDS), *stacks = malloc(2 * STACK);
    struct nb_layout words = {memory + MOST_BYTES, (uint32_t)apart};
    kind = which, preempts = preempting, messages = count;
    self = left[0] = left[1] = 0;
    sleeps[0] = sleeps[1] = spoken[0] = spoken[1] = wrong = held = 0;
    memset(end, 0, sizeof end);
    hchan.places = ring.places = (struct nb_places){memory, capacity, 8, apart ? NB_APART : 16};
    if (kind == HCHAN)
        nb_hchan_lay(&hchan, &words);
    else
        nb_ring_lay(&ring, &words);
    if (kind == MPSC || kind == MPMC)
        nb_number_places(&ring.places);
    for (int i = 0; i < 2; i++) {
        end[i].deadline = UINT64_MAX, end[i].alone = 1;
        getcontext(&side[i]);
        side[i].uc_stack.ss_sp = stacks + i * STACK;
        side[i].uc_stack.ss_size = STACK;
        makecontext(&side[i], (void (*)(void))run, 1, i);
    }
    swapcontext(&back, &side[0]);
    found[0] = sleeps[0], found[1] = sleeps[1], found[2] = spoken[1], found[3] = wrong, found[4] = held;
    free(memory);
    free(stacks);
}
