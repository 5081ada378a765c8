/* What it costs to move bytes from a file or from memory to a socket or a pipe, and out of it again.
 *
 * Alone: one thread sends a chunk and receives it, again and again. It never waits for another CPU, so that its time is the CPU time of both ends. Two threads:
 * one sends, one receives, each counts what it did between two common times, and its own CPU time.
 *
 * The path is proven in each entry, outside of the window: a few pages are sent, the source is changed meanwhile, and only then they are received.
 * What arrives changed was shared with the source, what arrives as it was had been copied. The bytes themselves say nothing of the path: one that secretly
 * reads and writes delivers the same. All ends are non-blocking. What does not fit is sent in parts, and no wait is without an end. */
#include "nb.h"
#include "nb_cpu.h"
#include "nb_each.h"
#include "nb_ways.h"
#include <netinet/in.h>

enum { METHOD, CHUNK, SOURCE, RECEIVER };
enum { WARM, COLD };
enum { READS, DROPS };
enum { OUT, IN, SOURCE_FILE, PIPE_IN = 5, PIPE_OUT }; /* of descriptor[]: ends of the transport, the file, a pipe in between */
/* Of value[]: of the last probe, words that arrived changed and as they were, and words of the source that were seen changed; since the preparation, calls that
 * sent something and waits; of this entry, errno of what failed; then, in its window, CPU time in ns and bytes of a thread that has one end, or in this entry, of a way that is told of
 * its sends, sends, notifications and those that say "copied". */
enum { CHANGED = 6, KEPT, SEEN, PARTS, WAITS, FAILED, CPU_NS, BYTES, SENDS = 13, NOTIFIED, SAID_COPIED };

#define PAGE 4096u
#define PLACES 2u           /* of the source, in turn: what was left from the chunk before is not what this one brings */
#define FACTOR 0x9e3779b97f4a7c15u
#define MOST_CHUNK (1 << 20)
#define PROBE_BYTES 16384u  /* what every socket and pipe takes at once */
#define WAIT_MS 20          /* until an end that neither takes nor gives is tried again */
#define LIMIT_NS 2000000000 /* of a transfer: by far more than a busy machine needs, less than makes a worker look dead */

static const struct nb_parameter parameters[] = {
    [METHOD] = {"method", NB_WAYS, "how bytes are sent", NB_SENDFILE, 0, NB_URING_ZC_FIXED},
    [CHUNK] = {"chunk", NULL, "bytes of one transfer", 4096, 64, MOST_CHUNK},
    [SOURCE] = {"source", "warm|cold", "whether the caches have what is sent", WARM, 0, COLD},
    [RECEIVER] = {"receiver", "reads|drops", "what becomes of it: copied into memory, or thrown away by the kernel (TCP, and what leaves by a device)", READS, 0, DROPS},
};
static const struct nb_metric metrics[] = {
    {"time_per_chunk", "ns", "from the first call that sends to the last that receives; of two threads, from one chunk to the next", NB_LOWER_IS_BETTER},
    {"cpu_per_gib", "s", "CPU time of both ends for one GiB", NB_LOWER_IS_BETTER},
    {"rate", "B/s", "bytes that arrive", NB_HIGHER_IS_BETTER},
    {"sender_cpu_per_gib", "s", "CPU time of the thread that sends, for one GiB", NB_LOWER_IS_BETTER},
    {"receiver_cpu_per_gib", "s", "CPU time of the thread that receives, for one GiB", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("transfer", 2, "the price of moving bytes to a socket or a pipe", parameters, metrics);

/* At the begin of the buffer; behind it memory with the source's bytes, a bounce buffer and what was received, whole pages each. */
struct state {
    struct nb_way way;
    int in, receiver;     /* the end to receive from; -1: nobody does */
    uint64_t chunk, room; /* room: a chunk in whole pages */
    uint64_t *memory, *received;
    uint8_t *mapped;      /* the file, during an entry */
    uint8_t pad[NB_APART];
    uint64_t total;       /* bytes that the sender sent in all, once it has ended */
    uint8_t pad1[NB_APART];
};
_Static_assert(sizeof(struct state) <= PAGE, "it has one page");

static struct state *state_of(const struct nb_case *c) { return (struct state *)c->buffer; }
static uint64_t room_of(const struct nb_case *c) { return ((uint64_t)c->parameter[CHUNK] + PAGE - 1) / PAGE * PAGE; }
static inline uint64_t word(uint64_t index) { return (index + 1) * FACTOR; } /* of the source */

/* -- one call ----------------------------------------------------------------------------------------------------------------------------- */

static inline int64_t receive_some(struct state *s, uint64_t at, uint64_t n, int receiver)
{
    if (receiver == DROPS)
        return recv(s->in, NULL, n, MSG_TRUNC | MSG_DONTWAIT);
    return read(s->in, (uint8_t *)s->received + at, n);
}

/* 0 where the call moved something or may be made again, else errno: of a file that ends too early, or of an end that was closed, EPIPE. */
static int wrong(int64_t moved)
{
    return moved > 0 || (moved < 0 && (errno == EAGAIN || errno == EINTR)) ? 0 : moved ? errno : EPIPE;
}

/* -- one chunk by one thread -------------------------------------------------------------------------------------------------------------- */

/* Sends `n` bytes at `at` and, with `receives`, receives them: all of them, in parts where they do not fit. Returns 0 or errno. */
static int move(struct nb_thread *t, struct state *s, uint64_t at, uint64_t n, int receives)
{
    uint64_t sent = 0, got = receives && s->in >= 0 ? 0 : n, limit = 0;
    int error;
    while (sent < n || got < n) {
        int64_t moved = 1;
        while (sent < n && (moved = nb_way_send(&s->way, at + sent, n - sent)) > 0) {
            sent += (uint64_t)moved;
            t->value[PARTS]++;
        }
        if (sent < n && (error = wrong(moved)))
            return error;
        const uint64_t before = got;
        moved = 0;
        while (got < sent && (moved = receive_some(s, got, n - got, s->receiver)) > 0)
            got += (uint64_t)moved;
        if (got < sent && (error = wrong(moved)))
            return error;
        if (got > before || (sent == n && got == n)) /* something has room now */
            continue;
        struct pollfd wait[] = {{s->in, (short)(receives ? POLLIN : 0), 0}, {s->way.to, (short)(sent < n ? POLLOUT : 0), 0}};
        const uint64_t now = nb_now();
        if (!limit)
            limit = now + LIMIT_NS;
        else if (now > limit)
            return ETIMEDOUT;
        t->value[WAITS]++;
        poll(wait, NB_COUNT(wait), WAIT_MS);
    }
    return 0;
}

/* Takes the lines of a chunk out of every cache. */
static void cool(const uint8_t *from, uint64_t n)
{
    for (uint64_t i = 0; i < n; i += NB_LINE)
        nb_flush((uint8_t *)(uintptr_t)from + i);
    nb_flushed();
}

/* What was received, word by word, or the bytes that were dropped. Not in the time that counts. */
static uint64_t sum_of(const struct state *s)
{
    uint64_t sum = 0;
    if (s->receiver == DROPS)
        return s->chunk;
    for (uint64_t i = 0; i < s->chunk / 8; i++)
        sum += s->received[i];
    return sum;
}

static uint64_t event(struct nb_thread *t)
{
    struct state *s = state_of(t->shared);
    const uint64_t at = t->cursor++ % PLACES * s->room;
    if (t->value[FAILED]) /* the window ends by the clock, and the check tells */
        return 1;
    if (t->shared->parameter[SOURCE] == COLD)
        cool((nb_way_reads(&s->way) ? s->mapped : (uint8_t *)s->memory) + at, s->chunk);
    const uint64_t before = nb_now();
    t->value[FAILED] = (uint64_t)move(t, s, at, s->chunk, 1);
    nb_way_reap(&s->way, nb_way_tells(&s->way) ? LIMIT_NS : 0); /* the memory may be used again from here on */
    const uint64_t after = nb_now();
    t->check += sum_of(s);
    return after - before;
}

/* -- the proof of the path ---------------------------------------------------------------------------------------------------------------- */

/* Inverts the first words of the source, in memory and in the file. */
static int change(struct state *s, uint64_t words)
{
    for (uint64_t i = 0; i < words; i++)
        s->memory[i] = ~s->memory[i];
    return pwrite(s->way.file, s->memory, words * 8, 0) != (ssize_t)(words * 8);
}

/* Returns 0 or errno. The receiver reads, whatever it does with chunks. */
static int probe(struct nb_thread *t, struct state *s)
{
    const uint64_t n = s->chunk < PROBE_BYTES ? s->chunk : PROBE_BYTES, words = n / 8;
    const int receiver = s->receiver;
    t->value[CHANGED] = t->value[KEPT] = t->value[SEEN] = 0;
    int error = move(t, s, 0, n, 0);
    if (error || s->in < 0) { /* where nobody receives, what the kernel tells of each send is all that there is */
        nb_way_reap(&s->way, LIMIT_NS);
        return error;
    }
    if (change(s, words))
        return EIO;
    for (uint64_t i = 0; i < words; i++) { /* a change that did not happen would look like a copy */
        uint64_t there;
        memcpy(&there, s->mapped + i * 8, 8);
        t->value[SEEN] += there == ~word(i) && s->memory[i] == ~word(i);
    }
    memset(s->received, 0, n);
    s->receiver = READS;
    const uint64_t limit = nb_now() + LIMIT_NS;
    for (uint64_t got = 0; got < n && !error;) {
        const int64_t moved = receive_some(s, got, n - got, READS);
        struct pollfd wait = {s->in, POLLIN, 0};
        if (moved > 0)
            got += (uint64_t)moved;
        else if (!(error = nb_now() > limit ? ETIMEDOUT : wrong(moved)))
            poll(&wait, 1, WAIT_MS);
    }
    s->receiver = receiver;
    nb_way_reap(&s->way, LIMIT_NS);
    for (uint64_t i = 0; i < words; i++) {
        t->value[CHANGED] += s->received[i] == ~word(i);
        t->value[KEPT] += s->received[i] == word(i);
    }
    return error ? error : change(s, words) ? EIO : 0;
}

/* -- two threads -------------------------------------------------------------------------------------------------------------------------- */

static uint64_t cpu_time(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * 1000000000u + (uint64_t)spent.tv_nsec;
}

/* The window lies between two common times; each thread notes what it had done when it first saw that they were over. */
struct span {
    uint64_t begin, end;
    int state; /* 0 before it, 1 inside, 2 behind */
};

static void look(struct nb_thread *t, struct span *w, uint64_t now, uint64_t bytes)
{
    if (w->state == 0 && now >= w->begin) {
        w->state = 1;
        t->cpu_begin = sched_getcpu();
        t->run_delay_ns = nb_run_delay(t);
        t->value[BYTES] = bytes;
        t->value[CPU_NS] = cpu_time();
        t->begin_ns = nb_now();
    } else if (w->state == 1 && now >= w->end) {
        w->state = 2;
        t->end_ns = now;
        t->value[CPU_NS] = cpu_time() - t->value[CPU_NS];
        t->value[BYTES] = bytes - t->value[BYTES];
        t->run_delay_ns = nb_run_delay(t) - t->run_delay_ns;
        t->cpu_end = sched_getcpu();
    }
}

static void send_all(struct nb_thread *t, struct state *s, struct span w)
{
    const uint64_t limit = w.end + LIMIT_NS;
    uint64_t done = 0, at = 0, now;
    while (w.state < 2) { /* whole chunks alone: the receiver knows what the last one ends with */
        uint64_t sent = 0;
        while (sent < s->chunk && !t->value[FAILED]) {
            const int64_t moved = nb_way_send(&s->way, at + sent, s->chunk - sent);
            struct pollfd wait = {s->way.to, POLLOUT, 0};
            if (moved > 0) {
                sent += (uint64_t)moved;
                t->value[PARTS]++;
            } else if (!(t->value[FAILED] = (uint64_t)(nb_now() > limit ? ETIMEDOUT : wrong(moved)))) {
                t->value[WAITS]++;
                poll(&wait, 1, WAIT_MS);
            }
        }
        done += sent;
        t->executed += !t->value[FAILED];
        at = at ? 0 : s->room;
        now = nb_now();
        look(t, &w, now, done);
    }
    t->operations = t->value[BYTES] / s->chunk;
    nb_store_release(&s->total, done);
}

/* Words of what was just read that are not those of the source: of the first and the last whole one, a cache line each. `from`: bytes that arrived before. */
static uint64_t unlike(const struct state *s, uint64_t from, uint64_t n)
{
    const uint64_t first = (from + 7) / 8 * 8, last = (from + n) / 8 * 8;
    uint64_t found, bad = 0;
    if (first + 8 > from + n)
        return 0;
    for (int k = 0; k < 2; k++) {
        const uint64_t at = k ? last - 8 : first, within = at % (PLACES * s->chunk);
        memcpy(&found, (const uint8_t *)s->received + (at - from), 8);
        bad += found != word((within / s->chunk * s->room + within % s->chunk) / 8);
    }
    return bad;
}

static void receive_all(struct nb_thread *t, struct state *s, struct span w)
{
    const uint64_t limit = w.end + 2ull * LIMIT_NS;
    uint64_t got = 0;
    while (w.state < 2 || got < nb_load_acquire(&s->total)) {
        const int64_t moved = t->value[FAILED] ? 0 : receive_some(s, 0, s->chunk, s->receiver);
        const uint64_t now = nb_now();
        struct pollfd wait = {s->in, POLLIN, 0};
        if (moved > 0) {
            t->check += s->receiver == READS ? unlike(s, got, (uint64_t)moved) : 0;
            got += (uint64_t)moved;
        } else if (!t->value[FAILED] && !(t->value[FAILED] = (uint64_t)(now > limit ? ETIMEDOUT : wrong(moved)))) {
            t->value[WAITS]++;
            poll(&wait, 1, WAIT_MS);
        }
        look(t, &w, now, got);
        if (t->value[FAILED] && w.state == 2)
            break;
    }
    t->executed += got / s->chunk;
    t->operations = t->value[BYTES] / s->chunk;
}

/* -- entries ------------------------------------------------------------------------------------------------------------------------------ */

static int map(struct state *s)
{
    void *at = mmap(NULL, PLACES * s->room, PROT_READ, MAP_SHARED | MAP_POPULATE, s->way.file, 0);
    s->mapped = at == MAP_FAILED ? NULL : at;
    s->way.memory = s->way.name == NB_MMAP_WRITE ? s->mapped : (uint8_t *)s->memory;
    return s->mapped != NULL;
}

static void unmap(struct state *s)
{
    munmap(s->mapped, PLACES * s->room);
    s->mapped = NULL;
}

/* Whether bytes that are thrown away get there: elsewhere the kernel would write to where nothing is. */
static int drops(const struct state *s)
{
    if (s->in < 0)
        return nb_socket_is(s->way.to, AF_INET, SOCK_DGRAM);
    return nb_socket_is(s->in, AF_INET, SOCK_STREAM);
}

/* The source, and one transfer by which it shows whether this machine can do it. */
static int prepare(struct nb_thread *t, struct state *s)
{
    const struct nb_case *c = t->shared;
    struct nb_way *w = &s->way;
    struct stat kind;
    uint8_t *at = c->buffer + PAGE;
    memset(s, 0, sizeof *s);
    *w = (struct nb_way){.name = (int)c->parameter[METHOD], .to = c->descriptor[OUT], .file = c->descriptor[SOURCE_FILE]};
    w->pipe_in = c->descriptor[PIPE_IN], w->pipe_out = c->descriptor[PIPE_OUT];
    s->in = c->descriptor[IN], s->receiver = (int)c->parameter[RECEIVER];
    s->chunk = (uint64_t)c->parameter[CHUNK], s->room = room_of(c);
    s->memory = (uint64_t *)at;
    w->bounce = at += PLACES * s->room;
    s->received = (uint64_t *)(at + s->room);
    if (fstat(w->to, &kind) || !nb_never_blocks(w->to) || (s->in >= 0 && !nb_never_blocks(s->in)))
        return NB_UNSUPPORTED;
    w->is_pipe = S_ISFIFO(kind.st_mode);
    if (!w->is_pipe && (w->name == NB_SPLICE || w->name == NB_VMSPLICE) && (w->pipe_in < 0 || w->pipe_out < 0))
        return NB_UNSUPPORTED;
    if ((s->receiver == DROPS || s->in < 0) && !(s->receiver == DROPS && drops(s)))
        return NB_UNSUPPORTED;
    for (uint64_t i = 0; i < PLACES * s->room / 8; i++)
        s->memory[i] = word(i);
    memset(w->bounce, 0, 2 * s->room);
    if (pwrite(w->file, s->memory, PLACES * s->room, 0) != (ssize_t)(PLACES * s->room) || !map(s))
        return NB_UNSUPPORTED;
    int error = nb_way_open(w, s->memory, PLACES * s->room);
    if (!error)
        error = move(t, s, 0, s->chunk, 1);
    nb_way_reap(w, 0);
    nb_way_close(w);
    unmap(s);
    return error ? NB_UNSUPPORTED : NB_OK;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    struct state *s = state_of(c);
    if (c->threads > 2 || c->buffer_bytes < PAGE + (PLACES + 2) * room_of(c) || c->parameter[CHUNK] % 8 || c->descriptor[OUT] < 0 || c->descriptor[SOURCE_FILE] < 0 ||
        (c->parameter[SOURCE] == COLD && (!NB_CAN_FLUSH || c->threads > 1)))
        return NB_UNSUPPORTED;
    if (c->phase == NB_PREPARE) {
        const int status = t->index ? NB_OK : prepare(t, s);
        t->check = t->cursor = 0;
        t->value[PARTS] = t->value[WAITS] = 0;
        return status;
    }
    if (c->threads > 1 && (nb_way_tells(&s->way) || s->in < 0)) /* what it is told of has no room beside what two threads note */
        return NB_UNSUPPORTED;
    t->value[FAILED] = 0;
    if (t->index == 0) {
        const uint64_t parts = t->value[PARTS], waits = t->value[WAITS];
        s->total = UINT64_MAX;
        t->value[FAILED] = map(s) ? (uint64_t)nb_way_open(&s->way, s->memory, PLACES * s->room) : ENOMEM;
        if (!t->value[FAILED])
            t->value[FAILED] = (uint64_t)probe(t, s);
        t->value[PARTS] = parts, t->value[WAITS] = waits;
    }
    if (c->threads == 1) {
        nb_each(t, event);
        t->value[SENDS] = s->way.told.sends, t->value[NOTIFIED] = s->way.told.notified, t->value[SAID_COPIED] = s->way.told.copied;
    } else {
        t->gaps = 0;
        t->gap_ns = 0;
        const uint64_t begin = nb_gate(t) + nb_count_warmup(c);
        (t->index ? receive_all : send_all)(t, s, (struct span){begin, begin + c->window_ns, 0});
    }
    if (t->index == 0) {
        nb_way_close(&s->way);
        if (s->mapped)
            unmap(s);
    }
    return NB_OK;
}
