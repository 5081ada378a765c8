/* The ways in which bytes get from a file or from memory to a socket, a pipe or a file: what one of them shares (page_identity) and what it costs (transfer) is asked of
 * the same calls. */
#ifndef NB_WAYS_H
#define NB_WAYS_H
#include "nb_told.h"
#include "nb_uring_send.h"
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

enum nb_way_name {
    NB_READ_WRITE, NB_WRITE, NB_WRITEV, NB_MMAP_WRITE, NB_SENDFILE, NB_SPLICE, NB_VMSPLICE, NB_COPY_FILE_RANGE, NB_ZEROCOPY, NB_ZEROCOPY_UNSET,
    NB_URING_SEND, NB_URING_ZC, NB_URING_ZC_FIXED,
};
#define NB_WAYS "read_write|write|writev|mmap_write|sendfile|splice|vmsplice|copy_file_range|zerocopy|zerocopy_unset|uring_send|uring_zc|uring_zc_fixed"

struct nb_way {
    int name, to, file, pipe_in, pipe_out; /* the target, the source's file, and the ends of a pipe on the way to what is no pipe */
    int is_pipe, asked;                    /* of the target; errno of asking for MSG_ZEROCOPY */
    const uint8_t *memory;                 /* the source in memory, or its file's mapping */
    uint8_t *bounce;                       /* room for all that is sent at once, where it is read first */
    uint64_t held, held_at;                /* bytes taken from the source and not yet sent, and where they begin in the bounce buffer */
    struct nb_told told;
    struct nb_uring ring;
};

static inline int nb_way_uses_ring(const struct nb_way *w) { return w->name >= NB_URING_SEND; }
static inline int nb_way_tells(const struct nb_way *w) { return w->name == NB_ZEROCOPY || w->name == NB_URING_ZC || w->name == NB_URING_ZC_FIXED; }
/* Whether the source has to be a file that can be read. */
static inline int nb_way_reads(const struct nb_way *w)
{
    return w->name == NB_READ_WRITE || w->name == NB_SENDFILE || w->name == NB_SPLICE || w->name == NB_COPY_FILE_RANGE || w->name == NB_MMAP_WRITE;
}

/* What the way needs before the first call, `bytes` at `memory` being all that is ever sent; 0, or errno where it cannot be at all. That a socket refuses MSG_ZEROCOPY is found at
 * the first send. */
static inline int nb_way_open(struct nb_way *w, void *memory, uint64_t bytes)
{
    const int on = 1;
    w->ring.file = -1;
    w->held = 0;
    w->told = (struct nb_told){0, 0, 0};
    w->asked = w->name == NB_ZEROCOPY && setsockopt(w->to, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on) ? errno : 0;
    const int error = nb_way_uses_ring(w) ? nb_uring_open(&w->ring) : 0;
    return error || w->name != NB_URING_ZC_FIXED ? error : nb_uring_register(&w->ring, memory, bytes);
}

static inline void nb_way_close(struct nb_way *w)
{
    if (nb_way_uses_ring(w))
        nb_uring_close(&w->ring);
}

/* Takes note of what the kernel tells, and waits so many ns for what is to come. */
static inline void nb_way_reap(struct nb_way *w, uint64_t limit)
{
    if (w->name == NB_ZEROCOPY || w->name == NB_ZEROCOPY_UNSET)
        nb_zerocopy_reap(w->to, &w->told, limit);
    else if (nb_way_uses_ring(w))
        nb_uring_reap(&w->ring, &w->told, limit);
}

static inline int nb_way_first(const struct nb_way *w) { return w->is_pipe ? w->to : w->pipe_in; }

/* What was taken goes on: out of the bounce buffer, or of the pipe on the way. */
static inline ssize_t nb_way_go_on(struct nb_way *w)
{
    const ssize_t sent = w->name == NB_READ_WRITE ? write(w->to, w->bounce + w->held_at, w->held)
                                                  : splice(w->pipe_out, NULL, w->to, NULL, w->held, SPLICE_F_NONBLOCK);
    if (sent > 0) {
        w->held -= (uint64_t)sent;
        w->held_at += (uint64_t)sent;
    }
    return sent;
}

/* The same, where something was taken. */
static inline ssize_t nb_way_took(struct nb_way *w, ssize_t taken)
{
    if (taken <= 0)
        return taken;
    w->held = (uint64_t)taken;
    w->held_at = 0;
    return nb_way_go_on(w);
}

/* Sends some of the `n` bytes at `at` of the source: how many, or -1 with errno, EAGAIN where the target takes none now; 0 where the source has ended. */
static inline ssize_t nb_way_send(struct nb_way *w, uint64_t at, uint64_t n)
{
    const uint8_t *from = w->memory + at;
    const struct iovec halves[2] = {{(void *)(uintptr_t)from, n / 2}, {(void *)(uintptr_t)(from + n / 2), n - n / 2}};
    const struct iovec whole = {(void *)(uintptr_t)from, n};
    off_t offset = (off_t)at;
    ssize_t taken;
    if (w->held)
        return nb_way_go_on(w);
    switch (w->name) {
    case NB_READ_WRITE:
        return nb_way_took(w, pread(w->file, w->bounce, n, offset));
    case NB_WRITEV:
        return writev(w->to, halves, 2);
    case NB_SENDFILE:
        return sendfile(w->to, w->file, &offset, n);
    case NB_SPLICE:
        taken = splice(w->file, &offset, nb_way_first(w), NULL, n, SPLICE_F_NONBLOCK);
        return w->is_pipe ? taken : nb_way_took(w, taken);
    case NB_VMSPLICE:
        taken = vmsplice(nb_way_first(w), &whole, 1, SPLICE_F_NONBLOCK);
        return w->is_pipe ? taken : nb_way_took(w, taken);
    case NB_COPY_FILE_RANGE:
        return syscall(SYS_copy_file_range, w->file, &offset, w->to, NULL, n, 0);
    case NB_ZEROCOPY:
        if (w->asked)
            return errno = w->asked, -1;
        return nb_zerocopy_send(w->to, from, n, &w->told);
    case NB_ZEROCOPY_UNSET:
        return nb_zerocopy_send(w->to, from, n, &w->told);
    case NB_URING_SEND:
        return nb_uring_send(&w->ring, NB_BY_SEND, w->to, from, n, &w->told);
    case NB_URING_ZC:
        return nb_uring_send(&w->ring, NB_BY_SEND_ZC, w->to, from, n, &w->told);
    case NB_URING_ZC_FIXED:
        return nb_uring_send(&w->ring, NB_BY_SEND_ZC_FIXED, w->to, from, n, &w->told);
    default: /* NB_WRITE and NB_MMAP_WRITE */
        return write(w->to, from, n);
    }
}

/* Ends never block: what they do not take is tried again. Whether it is so. */
static inline int nb_never_blocks(int file)
{
    const int flags = fcntl(file, F_GETFL);
    return flags >= 0 && !fcntl(file, F_SETFL, flags | O_NONBLOCK);
}

static inline int nb_socket_is(int file, int domain, int type)
{
    int found = 0, of = 0;
    socklen_t size = sizeof found;
    return !getsockopt(file, SOL_SOCKET, SO_TYPE, &found, &size) && !getsockopt(file, SOL_SOCKET, SO_DOMAIN, &of, &size) && found == type && of == domain;
}
#endif
