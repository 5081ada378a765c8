/* Is it zero copy, and when may a buffer be used again? Bytes are transferred, then the source is changed, then the receiver reads: what arrives changed was shared, what arrives as it was had been copied. No
 * privilege and no counter is needed, and no clock: the answer is in the bytes.
 *
 * An event is one transfer by one thread: fill the source, transfer, wait until it has arrived, change the source, read the change back, receive, compare. Every byte has a value of its
 * own in every state of the source, so that what is received is old, changed or wrong. A refusal of the kernel is a result too. Nothing waits without an end: all ends are
 * non-blocking, and each wait has a limit. */
#include "nb.h"
#include "nb_each.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#if defined(__has_include)
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#define HAS_URING 1
#endif
#endif

enum { METHOD, TARGET, SOURCE, ALIGNMENT, CHANGE };
enum { READ_WRITE, WRITE, WRITEV, MMAP_WRITE, SENDFILE, SPLICE, VMSPLICE, COPY_FILE_RANGE, ZEROCOPY, ZEROCOPY_UNSET, URING_SEND, URING_ZC };
enum { TCP, UNIX, PIPE, FILE_, FILE_APPEND };
enum { MEMORY, MEMFD, SHM, DISK, DIRECT, PROC };
enum { ALIGNED, UNALIGNED };
enum { OVERWRITE, REMAP, DONTNEED, FORK_WRITE, TRUNCATE };
/* Of descriptor[]: the ends of the target; the source, a pipe on the way, and the source as it is changed and read back. */
enum { TO, FROM, INPUT, PIPE_IN, PIPE_OUT, CHANGED_BY };
/* Of value[], all of this entry, with the warm-up (as many events as `cursor` says): refusals and the last one's errno; bytes that arrived changed, old, and neither; changes that
 * were not seen, transfers that did not arrive; sends that are to be notified of, notifications, and those that say "copied". */
enum { REFUSED = 6, ERROR, SHARED, COPIED, WRONG, UNSEEN, INCOMPLETE, SENDS, NOTIFIED, SAID_COPIED };

#define LIMIT_NS 100000000u /* of each wait: what a busy machine takes, and sixteen of them in far less than a worker may be silent */
#define LAST_LOOK_MS 10     /* for a notification that is not to come */
#define MOST_BYTES (64u << 10)
#define OFFSET 1234 /* of an unaligned transfer, and by how much its length is short of whole pages */
#define SHORT_OF 777
#define NAME_BYTES 16 /* of /proc/PID/comm, with its line's end */

#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif
#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif
#ifndef SO_EE_ORIGIN_ZEROCOPY
#define SO_EE_ORIGIN_ZEROCOPY 5
#endif
#ifndef SO_EE_CODE_ZEROCOPY_COPIED
#define SO_EE_CODE_ZEROCOPY_COPIED 1
#endif

static const struct nb_parameter parameters[] = {
    [METHOD] = {"method", "read_write|write|writev|mmap_write|sendfile|splice|vmsplice|copy_file_range|zerocopy|zerocopy_unset|uring_send|uring_zc",
                "how bytes are transferred", READ_WRITE, 0, URING_ZC},
    [TARGET] = {"target", "tcp|unix|pipe|file|file_append", "to where", UNIX, 0, FILE_APPEND},
    [SOURCE] = {"source", "memory|memfd|shm|file|direct|proc", "from where", MEMFD, 0, PROC},
    [ALIGNMENT] = {"alignment", "aligned|unaligned", "of offset and length to pages", ALIGNED, 0, UNALIGNED},
    [CHANGE] = {"change", "overwrite|remap|dontneed|fork_write|truncate", "how the source is changed after the transfer", OVERWRITE, 0, TRUNCATE},
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
     "1000 copied|1001 shared|1002 copied, and the kernel says so|1003 copied without a word" ERRORS, NB_NEITHER_IS_BETTER}, /* or the errno of a refusal */
    {"shared", "1", "bytes that arrive as the source was changed after the transfer", NB_NEITHER_IS_BETTER},
    {"refused", "1", "transfers that the kernel refuses", NB_LOWER_IS_BETTER},
    {"notified", "1", "sends that are to be notified of, of which the kernel tells when the memory may be used again", NB_HIGHER_IS_BETTER},
    {"said_copied", "1", "notifications that say that the bytes were copied after all", NB_LOWER_IS_BETTER},
    {"received", "1", "1000 the bytes that were sent|1001 what was written since" ERRORS, NB_NEITHER_IS_BETTER},
    {"deviates", "1", "0 as documented|1 not as Linux documents it", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("page_identity", 1, "whether what is transferred is shared or copied", parameters, metrics);

struct ring { /* an io_uring of one entry */
    uint8_t *queues, *entries;
    uint64_t queue_bytes, entry_bytes;
    uint32_t *sq_tail, *sq_array, *cq_head, *cq_tail;
    uint8_t *cqes;
    uint32_t mask, sq_mask;
    int32_t file;
};

struct state { /* in the scratch memory */
    const struct nb_case *c;
    uint64_t *value;
    uint8_t *memory, *bounce, *arrived; /* the source in memory, what is read from another one, what was received */
    uint8_t *mapping;                   /* of the source's file, while it is transferred */
    uint64_t span, offset, bytes, state; /* `state` of the source: another one after each change */
    int method, target, source, change, to, from, input, changed_by, unasked; /* unasked: errno of SO_ZEROCOPY */
    struct ring ring;
};

static uint64_t page_bytes(void) { return (uint64_t)sysconf(_SC_PAGESIZE); }
/* Four pages, or as many as find room in a socket where pages are large; one more where they are not met. */
static uint64_t whole_bytes(void)
{
    const uint64_t page = page_bytes();
    return 4 * page <= MOST_BYTES ? 4 * page : 2 * page;
}

/* -- the source ---------------------------------------------------------------------------------------------------------------------- */

/* Byte `k` of the source in one of its states: another one in the state that follows. A name has letters alone. */
static uint8_t byte(const struct state *s, uint64_t k, uint64_t state)
{
    if (s->source == PROC)
        return k == NAME_BYTES - 1 ? '\n' : (uint8_t)('a' + (k * 7 + state * 11) % 26);
    return (uint8_t)(k * 7 + (k >> 8) * 3 + state * 101);
}

static int is_file(const struct state *s) { return s->target == FILE_ || s->target == FILE_APPEND; }
/* Bytes that differ between two states. */
static uint64_t telling(const struct state *s) { return s->source == PROC ? NAME_BYTES - 1 : s->bytes; }

/* A name is written as a whole, at no place. */
static ssize_t put(const struct state *s, const void *from, uint64_t n)
{
    return s->source == PROC ? write(s->changed_by, from, n) : pwrite(s->changed_by, from, n, (off_t)s->offset);
}

/* Brings the source into its next state; whether it was seen there. */
static int change(struct state *s)
{
    const uint64_t n = telling(s);
    uint8_t *to = s->source == MEMORY ? s->memory + s->offset : s->bounce;
    s->state++;
    for (uint64_t k = 0; k < n; k++)
        to[k] = byte(s, k, s->state);
    if (s->source != MEMORY) {
        const ssize_t wrote = put(s, s->bounce, n);
        memset(s->bounce, 0, n);
        if (wrote != (ssize_t)n || pread(s->changed_by, s->bounce, n, (off_t)s->offset) != (ssize_t)n)
            return 0;
    }
    for (uint64_t k = 0; k < n; k++)
        if (((volatile uint8_t *)to)[k] != byte(s, k, s->state))
            return 0;
    return 1;
}

/* A child that shares all pages of memory until one of the two writes; 0 where there is none. */
static pid_t share(void)
{
    const pid_t parent = getpid(), child = fork();
    if (child)
        return child > 0 ? child : 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == parent)
        pause();
    _exit(0);
}

/* The source's new bytes, in the same pages or in new ones; whether it has them. */
static int change_by(struct state *s)
{
    const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    pid_t child = 0;
    if (s->change == REMAP && mmap(s->memory, s->span, protection, flags, -1, 0) != (void *)s->memory) /* which unmaps what was there */
        return 0;
    if (s->change == DONTNEED && madvise(s->memory, s->span, MADV_DONTNEED))
        return 0;
    if (s->change == REMAP || s->change == DONTNEED)
        memset(s->memory, 0, s->span); /* all of it: where each page is has to be known */
    if (s->change == TRUNCATE && (ftruncate(s->changed_by, 0) || ftruncate(s->changed_by, (off_t)s->span)))
        return 0;
    if (s->change == FORK_WRITE && !(child = share()))
        return 0;
    const int seen = change(s);
    if (child) {
        kill(child, SIGKILL);
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    return seen;
}

/* -- transfers: each call moves what it can of what is left, and returns how much, or -1 with errno --------------------------------------- */

typedef ssize_t (*step)(struct state *s, uint64_t done);

static ssize_t step_read_write(struct state *s, uint64_t done)
{
    const ssize_t got = pread(s->input, s->bounce, s->bytes - done, (off_t)(s->offset + done));
    return got <= 0 ? got : write(s->to, s->bounce, (size_t)got);
}

static uint8_t *from_memory(const struct state *s) { return (s->source == MEMORY ? s->memory : s->mapping) + s->offset; }
static ssize_t step_write(struct state *s, uint64_t done) { return write(s->to, from_memory(s) + done, s->bytes - done); }

static ssize_t step_writev(struct state *s, uint64_t done)
{
    uint8_t *at = from_memory(s) + done;
    const uint64_t left = s->bytes - done, half = left / 2;
    const struct iovec parts[2] = {{at, half}, {at + half, left - half}};
    return writev(s->to, parts, 2);
}

static ssize_t step_sendfile(struct state *s, uint64_t done)
{
    off_t at = (off_t)(s->offset + done);
    return sendfile(s->to, s->input, &at, s->bytes - done);
}

static int first_pipe(const struct state *s) { return s->target == PIPE ? s->to : s->c->descriptor[PIPE_IN]; }

static ssize_t step_splice(struct state *s, uint64_t done)
{
    loff_t at = (loff_t)(s->offset + done);
    return splice(s->input, &at, first_pipe(s), NULL, s->bytes - done, SPLICE_F_NONBLOCK);
}

static ssize_t step_vmsplice(struct state *s, uint64_t done)
{
    const struct iovec part = {from_memory(s) + done, s->bytes - done};
    return vmsplice(first_pipe(s), &part, 1, SPLICE_F_NONBLOCK);
}

static ssize_t step_from_pipe(struct state *s, uint64_t done)
{
    return splice(s->c->descriptor[PIPE_OUT], NULL, s->to, NULL, s->bytes - done, SPLICE_F_NONBLOCK);
}

static ssize_t step_copy_file_range(struct state *s, uint64_t done)
{
    loff_t at = (loff_t)(s->offset + done);
    return syscall(SYS_copy_file_range, s->input, &at, s->to, NULL, s->bytes - done, 0);
}

static ssize_t step_zerocopy(struct state *s, uint64_t done)
{
    errno = s->unasked;
    const ssize_t sent = s->unasked ? -1 : send(s->to, from_memory(s) + done, s->bytes - done, MSG_ZEROCOPY | MSG_DONTWAIT | MSG_NOSIGNAL);
    s->value[SENDS] += sent > 0;
    return sent;
}

/* -- io_uring by its own calls, without a library ------------------------------------------------------------------------------------------- */

#ifdef HAS_URING
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#define SYS_io_uring_enter 426
#endif
/* By number: headers may be older than the kernel. */
#define OP_SEND 26
#define OP_SEND_ZC 47
#define REPORT_USAGE (1u << 3)
#define IS_NOTIFICATION (1u << 3)
#define USAGE_COPIED 0x80000000u

static void close_ring(struct ring *r)
{
    if (r->queues)
        munmap(r->queues, r->queue_bytes);
    if (r->entries)
        munmap(r->entries, r->entry_bytes);
    if (r->file >= 0)
        close(r->file);
    *r = (struct ring){.file = -1};
}

static int open_ring(struct ring *r)
{
    struct io_uring_params p;
    memset(&p, 0, sizeof p);
    *r = (struct ring){.file = (int)syscall(SYS_io_uring_setup, 4, &p)};
    if (r->file < 0 || !(p.features & IORING_FEAT_SINGLE_MMAP))
        return close_ring(r), 1;
    const uint64_t sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t), cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    r->queue_bytes = sq > cq ? sq : cq;
    r->entry_bytes = p.sq_entries * sizeof(struct io_uring_sqe);
    r->queues = mmap(NULL, r->queue_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->file, IORING_OFF_SQ_RING);
    r->entries = mmap(NULL, r->entry_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->file, IORING_OFF_SQES);
    if (r->queues == MAP_FAILED)
        r->queues = NULL;
    if (r->entries == MAP_FAILED)
        r->entries = NULL;
    if (!r->queues || !r->entries)
        return close_ring(r), 1;
    r->sq_tail = (uint32_t *)(r->queues + p.sq_off.tail);
    r->sq_array = (uint32_t *)(r->queues + p.sq_off.array);
    r->sq_mask = *(uint32_t *)(r->queues + p.sq_off.ring_mask);
    r->cq_head = (uint32_t *)(r->queues + p.cq_off.head);
    r->cq_tail = (uint32_t *)(r->queues + p.cq_off.tail);
    r->cqes = r->queues + p.cq_off.cqes;
    r->mask = *(uint32_t *)(r->queues + p.cq_off.ring_mask);
    return 0;
}

/* The next completion, for which it waits so long at most; whether there was one. */
static int complete(struct ring *r, struct io_uring_cqe *done, uint64_t limit)
{
    for (const uint64_t until = nb_now() + limit;;) {
        const uint32_t head = *r->cq_head;
        if (head != __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE)) {
            *done = *(struct io_uring_cqe *)(r->cqes + (head & r->mask) * sizeof *done);
            __atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
            return 1;
        }
        if (nb_now() >= until)
            return 0;
        struct pollfd wait = {r->file, POLLIN, 0};
        poll(&wait, 1, 1);
    }
}

static void count_notification(struct state *s, const struct io_uring_cqe *done)
{
    s->value[NOTIFIED]++;
    s->value[SAID_COPIED] += ((uint32_t)done->res & USAGE_COPIED) != 0;
}

static ssize_t step_uring(struct state *s, uint64_t done)
{
    struct ring *r = &s->ring;
    const uint32_t tail = *r->sq_tail, at = tail & r->sq_mask;
    struct io_uring_sqe *e = (struct io_uring_sqe *)r->entries + at;
    struct io_uring_cqe found;
    memset(e, 0, sizeof *e);
    e->opcode = s->method == URING_ZC ? OP_SEND_ZC : OP_SEND;
    e->ioprio = s->method == URING_ZC ? REPORT_USAGE : 0;
    e->fd = s->to;
    e->addr = (uint64_t)(uintptr_t)(from_memory(s) + done);
    e->len = (uint32_t)(s->bytes - done);
    e->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    r->sq_array[at] = at;
    __atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, r->file, 1, 0, 0, NULL, 0) < 0)
        return -1;
    while (complete(r, &found, LIMIT_NS)) {
        if (found.flags & IS_NOTIFICATION) { /* of a transfer before */
            count_notification(s, &found);
            continue;
        }
        if (found.res < 0)
            return errno = -found.res, -1;
        s->value[SENDS] += s->method == URING_ZC;
        return found.res;
    }
    return errno = ETIMEDOUT, -1;
}

static void reap_ring(struct state *s)
{
    struct io_uring_cqe found;
    while (s->value[NOTIFIED] < s->value[SENDS] && complete(&s->ring, &found, LIMIT_NS))
        if (found.flags & IS_NOTIFICATION)
            count_notification(s, &found);
}
#else
static void close_ring(struct ring *r) { (void)r; }
static int open_ring(struct ring *r) { (void)r; return 1; }
static ssize_t step_uring(struct state *s, uint64_t done) { (void)s, (void)done; return errno = ENOSYS, -1; }
static void reap_ring(struct state *s) { (void)s; }
#endif

/* -- the event ------------------------------------------------------------------------------------------------------------------------- */

static void wait_for(int file, short events)
{
    struct pollfd wait = {file, events, 0};
    poll(&wait, 1, 1);
}

/* All of it, by as many calls as it takes: bytes, or minus the errno of a refusal. Zero from a call is none that it names: ENODATA. */
static int64_t move(struct state *s, step next)
{
    const uint64_t until = nb_now() + LIMIT_NS;
    uint64_t done = 0;
    while (done < s->bytes) {
        const ssize_t moved = next(s, done);
        if (moved > 0)
            done += (uint64_t)moved;
        else if (moved < 0 && errno == EAGAIN && nb_now() < until)
            wait_for(s->to, POLLOUT);
        else if (moved < 0 && errno == EINTR)
            continue;
        else
            return done || (moved < 0 && errno == EAGAIN) ? (int64_t)done : moved ? -errno : -ENODATA;
    }
    return (int64_t)done;
}

static int64_t transfer(struct state *s)
{
    static const step steps[] = {step_read_write, step_write,    step_writev,          step_write,    step_sendfile, step_splice,
                                 step_vmsplice,   step_copy_file_range, step_zerocopy, step_zerocopy, step_uring,    step_uring};
    const int maps = s->source != MEMORY && s->method != READ_WRITE && s->method != SENDFILE && s->method != SPLICE && s->method != COPY_FILE_RANGE;
    if (maps && (s->mapping = mmap(NULL, s->span, PROT_READ, MAP_SHARED, s->input, 0)) == MAP_FAILED)
        return s->mapping = NULL, -errno;
    int64_t moved = move(s, steps[s->method]);
    if (moved == (int64_t)s->bytes && (s->method == SPLICE || s->method == VMSPLICE) && s->target != PIPE)
        moved = move(s, step_from_pipe);
    if (s->mapping)
        munmap(s->mapping, s->span);
    s->mapping = NULL;
    return moved;
}

/* Whether all of it is where the receiver finds it: what is on its way may still be copied. */
static int has_arrived(const struct state *s)
{
    int there = 0;
    if (is_file(s))
        return 1;
    for (const uint64_t until = nb_now() + LIMIT_NS; ioctl(s->from, FIONREAD, &there) == 0 && there < (int)s->bytes; wait_for(s->from, POLLIN))
        if (nb_now() >= until)
            return 0;
    return there == (int)s->bytes;
}

static uint64_t receive(struct state *s)
{
    const uint64_t until = nb_now() + LIMIT_NS;
    uint64_t got = 0;
    memset(s->arrived, 0, s->bytes);
    while (got < s->bytes) {
        const ssize_t n = is_file(s) ? pread(s->from, s->arrived + got, s->bytes - got, (off_t)got) : read(s->from, s->arrived + got, s->bytes - got);
        if (n > 0)
            got += (uint64_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR) || nb_now() >= until)
            break;
        else
            wait_for(s->from, POLLIN);
    }
    return got;
}

static void empty(int file, uint8_t *room, uint64_t bytes)
{
    while (file >= 0 && read(file, room, bytes) > 0)
        ;
}

/* What an event that failed has left behind. */
static void clear(const struct state *s)
{
    if (is_file(s)) {
        if (ftruncate(s->to, 0) || lseek(s->to, 0, SEEK_SET))
            return; /* more than was sent arrives then, or nothing */
    } else {
        empty(s->from, s->arrived, s->bytes);
    }
    empty(s->c->descriptor[PIPE_OUT], s->arrived, s->bytes);
}

/* Notifications of MSG_ZEROCOPY, each of a range of sends; waits for those that are to come. */
static void reap(struct state *s, uint64_t limit)
{
    if (s->method == URING_ZC)
        reap_ring(s);
    if (s->method != ZEROCOPY && s->method != ZEROCOPY_UNSET)
        return;
    for (const uint64_t until = nb_now() + limit; s->value[NOTIFIED] < s->value[SENDS];) {
        union {
            struct cmsghdr align;
            uint8_t room[CMSG_SPACE(sizeof(struct sock_extended_err) + sizeof(struct sockaddr_storage))];
        } control;
        struct msghdr message = {.msg_control = &control, .msg_controllen = sizeof control};
        if (recvmsg(s->to, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
            if (nb_now() >= until)
                return;
            wait_for(s->to, 0);
            continue;
        }
        for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
            struct sock_extended_err said;
            if (each->cmsg_len < CMSG_LEN(sizeof said))
                continue;
            memcpy(&said, CMSG_DATA(each), sizeof said);
            if (said.ee_origin != SO_EE_ORIGIN_ZEROCOPY)
                continue;
            const uint64_t sends = said.ee_data - said.ee_info + 1;
            s->value[NOTIFIED] += sends;
            s->value[SAID_COPIED] += said.ee_code & SO_EE_CODE_ZEROCOPY_COPIED ? sends : 0;
        }
    }
}

/* `check` counts the events of which all is known: the change was seen, and every byte is old or changed; or the kernel refused. */
static uint64_t event(struct nb_thread *t)
{
    struct state *s = (struct state *)t->shared->scratch;
    clear(s);
    const int filled = change(s);
    const uint64_t begin = nb_now();
    const int64_t moved = transfer(s);
    const uint64_t took = nb_now() - begin, old = s->state, n = telling(s);
    t->cursor++;
    if (moved < 0) {
        t->value[REFUSED]++;
        t->value[ERROR] = (uint64_t)-moved;
        t->check++;
        return took;
    }
    const int there = moved == (int64_t)s->bytes && has_arrived(s), seen = change_by(s) && filled;
    const int whole = receive(s) == s->bytes && there;
    uint64_t changed = 0, same = 0;
    reap(s, s->method == ZEROCOPY ? LIMIT_NS : 0);
    for (uint64_t k = 0; k < n; k++) {
        changed += s->arrived[k] == byte(s, k, old + 1);
        same += s->arrived[k] == byte(s, k, old);
    }
    const uint64_t wrong = n - changed - same + (n < s->bytes && s->arrived[n] != byte(s, n, old));
    t->value[SHARED] += changed;
    t->value[COPIED] += same;
    t->value[WRONG] += wrong;
    t->value[UNSEEN] += !seen;
    t->value[INCOMPLETE] += !whole;
    t->check += seen && whole && !wrong;
    return took;
}

/* Files are emptied, and what is none is waited for: the two must not be taken for each other. */
static int suits(int file, int target)
{
    struct stat found;
    return file >= 0 && !fstat(file, &found) && S_ISREG(found.st_mode) == (target == FILE_ || target == FILE_APPEND);
}

static void never_block(int file)
{
    const int flags = file < 0 ? -1 : fcntl(file, F_GETFL);
    if (flags >= 0)
        fcntl(file, F_SETFL, flags | O_NONBLOCK);
}

/* Whether the case can be; the parts of the memory. */
static int prepare(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int target = (int)c->parameter[TARGET], source = (int)c->parameter[SOURCE], method = (int)c->parameter[METHOD];
    const uint64_t whole = whole_bytes(), span = whole + page_bytes();
    const int reads = method == READ_WRITE || method == SENDFILE || method == SPLICE || method == COPY_FILE_RANGE || method == MMAP_WRITE;
    if (c->threads != 1 || c->buffer_bytes < 3 * span || c->scratch_bytes < sizeof(struct state))
        return NB_UNSUPPORTED;
    if (!suits(c->descriptor[TO], target) || !suits(c->descriptor[FROM], target))
        return NB_UNSUPPORTED;
    if (source == MEMORY ? reads : c->descriptor[INPUT] < 0)
        return NB_UNSUPPORTED;
    const int how = (int)c->parameter[CHANGE];
    if ((how == TRUNCATE && (source == MEMORY || source == PROC)) || (source != MEMORY && (how == REMAP || how == DONTNEED || how == FORK_WRITE)))
        return NB_UNSUPPORTED;
#ifdef NB_SANITIZED /* it knows no children of one thread among several */
    if (how == FORK_WRITE)
        return NB_UNSUPPORTED;
#endif
    memset(c->buffer, 0, c->buffer_bytes);
    struct state *s = (struct state *)c->scratch;
    *s = (struct state){.c = c, .value = t->value, .memory = c->buffer, .bounce = c->buffer + span, .arrived = c->buffer + 2 * span, .span = span};
    s->method = method, s->target = target, s->source = source, s->change = how;
    s->to = c->descriptor[TO], s->from = c->descriptor[FROM], s->input = c->descriptor[INPUT];
    s->changed_by = c->descriptor[CHANGED_BY] >= 0 ? c->descriptor[CHANGED_BY] : s->input;
    s->offset = c->parameter[ALIGNMENT] == UNALIGNED && source != PROC ? OFFSET : 0;
    s->bytes = source == PROC ? NAME_BYTES : c->parameter[ALIGNMENT] == UNALIGNED ? whole - SHORT_OF : whole;
    s->ring.file = -1;
    for (int each = TO; each <= PIPE_OUT; each++)
        if (each != INPUT)
            never_block(c->descriptor[each]);
    t->check = 0;
    return NB_OK;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    if (c->phase == NB_PREPARE)
        return prepare(t);
    struct state *s = (struct state *)c->scratch;
    const int on = 1, uring = s->method == URING_SEND || s->method == URING_ZC;
    char name[NAME_BYTES + 1] = "";
    s->value = t->value; /* the block may be another one */
    for (int each = REFUSED; each < NB_VALUES; each++)
        t->value[each] = 0;
    t->cursor = 0;
    if (uring && open_ring(&s->ring))
        return NB_UNSUPPORTED;
    s->unasked = s->method == ZEROCOPY && setsockopt(s->to, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) ? errno : 0;
    const ssize_t had = s->source == PROC ? pread(s->changed_by, name, NAME_BYTES, 0) : 0;
    nb_each(t, event);
    reap(s, LAST_LOOK_MS * 1000000u);
    if (had > 0 && put(s, name, (uint64_t)had - 1) < 0)
        t->value[UNSEEN]++; /* the name stays a wrong one */
    if (uring)
        close_ring(&s->ring);
    return NB_OK;
}
