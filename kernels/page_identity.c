/* Is it zero copy, and when may a buffer be used again? Bytes are transferred, then the source is changed, then the receiver reads: what arrives changed was shared, what arrives as it was had been copied. No
 * privilege and no counter is needed, and no clock: the answer is in the bytes.
 *
 * An event is one transfer by one thread: fill the source, transfer, wait until it has arrived, change the source, read the change back, receive, compare. A refusal of the kernel is a
 * result too. Where nobody receives (a veth pair that drops), what the kernel tells of each send is the result. Nothing waits without an end: all ends are non-blocking, and each wait
 * has a limit. */
#include "nb.h"
#include "nb_each.h"
#include "nb_source.h"
#include "nb_ways.h"
#include <netinet/in.h>
#include <sys/ioctl.h>

enum { METHOD, TARGET, SOURCE, ALIGNMENT, CHANGE };
enum { TCP, UNIX, PIPE, FILE_, FILE_APPEND, UDP, VETH };
enum { MEMORY, FILE_SOURCE, DIRECT, PROC };
enum { ALIGNED, UNALIGNED };
/* Of descriptor[]: the ends of the target; the source, a pipe on the way, and the source as it is changed and read back, where that is another one. */
enum { TO, FROM, INPUT, PIPE_IN = 5, PIPE_OUT, CHANGED_BY };
/* Of value[], all of this entry, with the warm-up (as many events as `cursor` says): refusals and the last one's errno; bytes that arrived changed, old, and neither; changes that
 * were not seen, transfers that did not arrive; sends that are to be notified of, notifications, and those that say "copied". */
enum { REFUSED = 6, ERROR, SHARED, COPIED, WRONG, UNSEEN, INCOMPLETE, SENDS, NOTIFIED, SAID_COPIED };

#define LIMIT_NS 100000000u /* of each wait: what a busy machine takes, and sixteen of them in far less than a worker may be silent */
#define LAST_LOOK_NS 10000000u /* for a notification that is not to come */
#define MOST_BYTES (64u << 10)
#define MOST_DATAGRAM (32u << 10) /* a datagram has 65,507 bytes at most */
#define OFFSET 1234 /* of an unaligned transfer, and by how much its length is short of whole pages */
#define SHORT_OF 777

static const struct nb_parameter parameters[] = {
    [METHOD] = {"method", NB_WAYS, "how bytes are transferred", NB_READ_WRITE, 0, NB_URING_ZC_FIXED},
    [TARGET] = {"target", "tcp|unix|pipe|file|file_append|udp|veth", "to where", UNIX, 0, VETH},
    [SOURCE] = {"source", "memory|file|direct|proc", "from where", FILE_SOURCE, 0, PROC},
    [ALIGNMENT] = {"alignment", "aligned|unaligned", "of offset and length to pages", ALIGNED, 0, UNALIGNED},
    [CHANGE] = {"change", NB_SOURCE_CHANGES, "how the source is changed after the transfer", NB_OVERWRITE, 0, NB_TRUNCATE},
};
/* Words for the outcomes: a refusal's is its errno, whose number is another one on some processors. */
#define TEXT(number) #number
#define ERROR_WORD(name, number) "|" TEXT(number) " refused (" name ")"
#define REFUSAL(name) ERROR_WORD(#name, name)
#define ERRORS                                                                                                                       \
    REFUSAL(EINVAL) REFUSAL(EBADF) REFUSAL(EXDEV) REFUSAL(EOPNOTSUPP) REFUSAL(EPERM) REFUSAL(EACCES) REFUSAL(ENOSYS)                  \
    REFUSAL(ENODEV) REFUSAL(EIO) REFUSAL(ENODATA) REFUSAL(ENOBUFS) REFUSAL(ENOMEM) REFUSAL(ESPIPE) REFUSAL(ETIMEDOUT)

static const struct nb_metric metrics[] = {
    {"outcome", "1",
     "1000 copied|1001 shared|1002 copied, and the kernel says so|1003 copied without a word|1004 not copied, as the kernel says" ERRORS, NB_NEITHER_IS_BETTER}, /* or the errno of a refusal */
    {"claim", "1", "0 refuted here|1 true here", NB_NEITHER_IS_BETTER},
    {"shared", "1", "bytes that arrive as the source was changed after the transfer", NB_NEITHER_IS_BETTER},
    {"refused", "1", "transfers that the kernel refuses", NB_LOWER_IS_BETTER},
    {"notified", "1", "sends that are to be notified of, of which the kernel tells when the memory may be used again", NB_HIGHER_IS_BETTER},
    {"said_copied", "1", "notifications that say that the bytes were copied after all", NB_LOWER_IS_BETTER},
    {"received", "1", "1000 the bytes that were sent|1001 what was written since" ERRORS, NB_NEITHER_IS_BETTER},
    {"deviates", "1", "0 as documented|1 not as Linux documents it", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("page_identity", 2, "whether what is transferred is shared or copied", parameters, metrics);

struct state { /* in the scratch memory */
    const struct nb_case *c;
    struct nb_source source;
    struct nb_way way;
    uint8_t *arrived; /* what was received */
    int target, from;
};

static uint64_t page_bytes(void) { return (uint64_t)sysconf(_SC_PAGESIZE); }
/* Four pages, or as many as find room in a socket where pages are large; one more where they are not met. */
static uint64_t whole_bytes(void)
{
    const uint64_t page = page_bytes();
    return 4 * page <= MOST_BYTES ? 4 * page : 2 * page;
}

static int is_file(const struct state *s) { return s->target == FILE_ || s->target == FILE_APPEND; }

/* All of it, by as many calls as it takes: bytes, or minus the errno of a refusal. Zero from a call is none that it names: ENODATA. */
static int64_t move(struct state *s)
{
    const uint64_t until = nb_now() + LIMIT_NS, bytes = s->source.bytes, offset = s->source.offset;
    uint64_t done = 0;
    while (done < bytes) {
        const ssize_t moved = nb_way_send(&s->way, offset + done, bytes - done);
        if (moved > 0)
            done += (uint64_t)moved;
        else if (moved < 0 && errno == EAGAIN && nb_now() < until)
            nb_wait_for(s->way.to, POLLOUT, 1);
        else if (moved < 0 && errno == EINTR)
            continue;
        else
            return done || (moved < 0 && errno == EAGAIN) ? (int64_t)done : moved ? -errno : -ENODATA;
    }
    return (int64_t)done;
}

/* A file that is not read is sent from a mapping. */
static int64_t transfer(struct state *s)
{
    const int maps = s->source.kind != NB_MEMORY && (s->way.name == NB_MMAP_WRITE || !nb_way_reads(&s->way));
    void *at = maps ? mmap(NULL, s->source.span, PROT_READ, MAP_SHARED, s->way.file, 0) : s->source.memory;
    if (at == MAP_FAILED)
        return -errno;
    s->way.memory = at;
    const int64_t moved = move(s);
    if (maps)
        munmap(at, s->source.span);
    return moved;
}

/* Whether all of it is where the receiver finds it: what is on its way may still be copied. */
static int has_arrived(const struct state *s)
{
    const int bytes = (int)s->source.bytes;
    int there = 0;
    if (is_file(s))
        return 1;
    for (const uint64_t until = nb_now() + LIMIT_NS; ioctl(s->from, FIONREAD, &there) == 0 && there < bytes; nb_wait_for(s->from, POLLIN, 1))
        if (nb_now() >= until)
            return 0;
    return there == bytes;
}

static uint64_t receive(struct state *s)
{
    const uint64_t until = nb_now() + LIMIT_NS, bytes = s->source.bytes;
    uint64_t got = 0;
    memset(s->arrived, 0, bytes);
    while (got < bytes) {
        const ssize_t n = is_file(s) ? pread(s->from, s->arrived + got, bytes - got, (off_t)got) : read(s->from, s->arrived + got, bytes - got);
        if (n > 0)
            got += (uint64_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR) || nb_now() >= until)
            break;
        else
            nb_wait_for(s->from, POLLIN, 1);
    }
    return got;
}

static void empty(int file, uint8_t *room, uint64_t bytes)
{
    while (file >= 0 && read(file, room, bytes) > 0)
        ;
}

/* What an event that failed has left behind. */
static void clear(struct state *s)
{
    s->way.held = 0;
    if (is_file(s)) {
        if (ftruncate(s->way.to, 0) || lseek(s->way.to, 0, SEEK_SET))
            return; /* more than was sent arrives then, or nothing */
    } else {
        empty(s->from, s->arrived, s->source.bytes);
    }
    empty(s->way.pipe_out, s->arrived, s->source.bytes);
}

/* What arrived, byte by byte; whether all of it is old or changed. */
static int compare(struct nb_thread *t, const struct state *s, uint64_t old)
{
    const uint64_t n = nb_source_telling(&s->source);
    uint64_t changed = 0, same = 0;
    for (uint64_t k = 0; k < n; k++) {
        changed += s->arrived[k] == nb_source_byte(&s->source, k, old + 1);
        same += s->arrived[k] == nb_source_byte(&s->source, k, old);
    }
    const uint64_t wrong = n - changed - same + (n < s->source.bytes && s->arrived[n] != nb_source_byte(&s->source, n, old));
    t->value[SHARED] += changed;
    t->value[COPIED] += same;
    t->value[WRONG] += wrong;
    return !wrong;
}

/* `check` counts the events of which all is known: the change was seen, and every byte is old or changed; or the kernel refused. */
static uint64_t event(struct nb_thread *t)
{
    struct state *s = (struct state *)t->shared->scratch;
    clear(s);
    const int filled = nb_source_overwrite(&s->source), received = s->target != VETH;
    const uint64_t begin = nb_now();
    const int64_t moved = transfer(s);
    const uint64_t took = nb_now() - begin, old = s->source.state;
    t->cursor++;
    if (moved < 0) {
        t->value[REFUSED]++;
        t->value[ERROR] = (uint64_t)-moved;
        t->check++;
        return took;
    }
    const int there = moved == (int64_t)s->source.bytes && (!received || has_arrived(s)), seen = nb_source_change(&s->source) && filled;
    const int whole = there && (!received || receive(s) == s->source.bytes);
    nb_way_reap(&s->way, nb_way_tells(&s->way) ? LIMIT_NS : 0);
    const int right = !received || compare(t, s, old);
    t->value[UNSEEN] += !seen;
    t->value[INCOMPLETE] += !whole;
    t->check += seen && whole && right;
    return took;
}

/* Files are emptied, and what is none is waited for: the two must not be taken for each other; and what nobody receives would fill anything but a network. */
static int suits(int to, int from, int target)
{
    const int file = target == FILE_ || target == FILE_APPEND, datagrams = target == UDP || target == VETH;
    const int ends[] = {to, target == VETH ? to : from};
    struct stat found;
    for (int k = 0; k < 2; k++)
        if (fstat(ends[k], &found) || S_ISREG(found.st_mode) != file || (datagrams && !nb_socket_is(ends[k], AF_INET, SOCK_DGRAM)))
            return 0;
    return 1;
}

/* Whether the case can be; the parts of the memory. */
static int prepare(struct nb_thread *t)
{
    static const enum nb_source_kind kinds[] = {NB_MEMORY, NB_FILE, NB_FILE, NB_NAME};
    const struct nb_case *c = t->shared;
    const int target = (int)c->parameter[TARGET];
    const enum nb_source_kind kind = kinds[c->parameter[SOURCE]];
    const uint64_t whole = whole_bytes(), span = whole + page_bytes();
    if (c->threads != 1 || c->buffer_bytes < 3 * span || c->scratch_bytes < sizeof(struct state) || !suits(c->descriptor[TO], c->descriptor[FROM], target))
        return NB_UNSUPPORTED;
    struct state *s = (struct state *)c->scratch;
    memset(c->buffer, 0, c->buffer_bytes);
    *s = (struct state){.c = c, .arrived = c->buffer + 2 * span, .target = target, .from = c->descriptor[FROM]};
    s->way = (struct nb_way){.name = (int)c->parameter[METHOD], .to = c->descriptor[TO], .file = c->descriptor[INPUT]};
    s->way.pipe_in = c->descriptor[PIPE_IN], s->way.pipe_out = c->descriptor[PIPE_OUT], s->way.is_pipe = target == PIPE;
    s->way.bounce = c->buffer + span;
    s->source = (struct nb_source){.kind = kind, .how = (enum nb_source_change)c->parameter[CHANGE], .memory = c->buffer, .bounce = c->buffer + span, .span = span};
    s->source.changed_by = c->descriptor[CHANGED_BY] >= 0 ? c->descriptor[CHANGED_BY] : s->way.file;
    if ((kind == NB_MEMORY ? nb_way_reads(&s->way) : s->way.file < 0) || !nb_source_can(kind, s->source.how))
        return NB_UNSUPPORTED;
    const int unaligned = c->parameter[ALIGNMENT] == UNALIGNED;
    const uint64_t bytes = (target == UDP || target == VETH) && whole > MOST_DATAGRAM ? MOST_DATAGRAM : whole;
    s->source.offset = unaligned && kind != NB_NAME ? OFFSET : 0;
    s->source.bytes = kind == NB_NAME ? NB_NAME_BYTES : unaligned ? bytes - SHORT_OF : bytes;
    const int ends[] = {s->way.to, s->from, s->way.pipe_in, s->way.pipe_out};
    for (uint32_t k = 0; k < NB_COUNT(ends); k++)
        if (ends[k] >= 0 && !nb_never_blocks(ends[k]))
            return NB_UNSUPPORTED;
    t->check = 0;
    return NB_OK;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    struct state *s = (struct state *)c->scratch;
    struct nb_source *source = &s->source;
    char name[NB_NAME_BYTES + 1] = "";
    for (int each = REFUSED; each < NB_VALUES; each++)
        t->value[each] = 0;
    t->cursor = 0;
    if (nb_way_open(&s->way, source->memory, source->span)) {
        nb_way_close(&s->way);
        return NB_UNSUPPORTED;
    }
    const ssize_t had = source->kind == NB_NAME ? pread(source->changed_by, name, NB_NAME_BYTES, 0) : 0;
    nb_each(t, event);
    nb_way_reap(&s->way, LAST_LOOK_NS);
    if (had > 0 && nb_source_put(source, name, (uint64_t)had - 1) < 0)
        t->value[UNSEEN]++; /* the name stays a wrong one */
    nb_way_close(&s->way);
    t->value[SENDS] = s->way.told.sends, t->value[NOTIFIED] = s->way.told.notified, t->value[SAID_COPIED] = s->way.told.copied;
    return NB_OK;
}
