/* Sends by io_uring, one after the other, and what the kernel tells of those that are to copy nothing. */
#ifndef NB_URING_SEND_H
#define NB_URING_SEND_H
#include "nb_told.h"
#include "nb_uring.h"

enum nb_uring_way { NB_BY_SEND, NB_BY_SEND_ZC, NB_BY_SEND_ZC_FIXED };

#ifdef NB_HAS_URING
#define NB_URING_LIMIT_NS 100000000u /* of the wait for a completion: what a busy machine takes */
/* By number: headers may be older than the kernel. */
#define NB_OP_SEND 26
#define NB_OP_SEND_ZC 47
#define NB_FIXED_BUFFER (1u << 2)
#define NB_REPORT_USAGE (1u << 3)
#define NB_MORE_COMES (1u << 1) /* a notification, of failed sends too */
#define NB_IS_NOTIFICATION (1u << 3)
#define NB_USAGE_COPIED 0x80000000u

/* The next completion, for which it waits so many ns at most; whether there was one. */
static inline int nb_uring_complete(struct nb_uring *r, struct nb_done *done, uint64_t limit)
{
    for (uint64_t until = 0; !nb_uring_take(r, done);) {
        const uint64_t now = nb_now();
        until = until ? until : now + limit;
        if (now >= until)
            return 0;
        nb_wait_for(r->file, POLLIN, 1);
    }
    return 1;
}

/* Whether it tells of a send before, and what. */
static inline int nb_uring_tells(const struct nb_done *done, struct nb_told *told)
{
    const int is = (done->flags & NB_IS_NOTIFICATION) != 0;
    if (is)
        nb_tell(told, 1, ((uint32_t)done->result & NB_USAGE_COPIED) != 0);
    return is;
}

/* Sends: how many bytes, or -1 with errno. */
static inline ssize_t nb_uring_send(struct nb_uring *r, enum nb_uring_way way, int to, const void *from, uint64_t n, struct nb_told *told)
{
    const int tells = way != NB_BY_SEND;
    struct io_uring_sqe entry;
    struct nb_done done;
    memset(&entry, 0, sizeof entry);
    entry.opcode = tells ? NB_OP_SEND_ZC : NB_OP_SEND;
    entry.ioprio = (uint16_t)((tells ? NB_REPORT_USAGE : 0) | (way == NB_BY_SEND_ZC_FIXED ? NB_FIXED_BUFFER : 0));
    entry.fd = to;
    entry.addr = (uint64_t)(uintptr_t)from;
    entry.len = (uint32_t)n;
    entry.msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    nb_uring_ask(r, &entry);
    if (nb_uring_enter(r, 1, 0) < 0)
        return -1;
    while (nb_uring_complete(r, &done, NB_URING_LIMIT_NS))
        if (!nb_uring_tells(&done, told)) {
            told->sends += (done.flags & NB_MORE_COMES) != 0;
            return done.result < 0 ? (errno = -done.result, -1) : done.result;
        }
    return errno = ETIMEDOUT, -1;
}

/* Notifications: those that are there, and for so many ns those that are to come. */
static inline void nb_uring_reap(struct nb_uring *r, struct nb_told *told, uint64_t limit)
{
    struct nb_done done;
    while (told->notified < told->sends && nb_uring_complete(r, &done, limit))
        nb_uring_tells(&done, told);
}
#else
static inline ssize_t nb_uring_send(struct nb_uring *r, enum nb_uring_way way, int to, const void *from, uint64_t n, struct nb_told *told)
{
    return (void)r, (void)way, (void)to, (void)from, (void)n, (void)told, errno = ENOSYS, -1;
}
static inline void nb_uring_reap(struct nb_uring *r, struct nb_told *told, uint64_t limit) { (void)r, (void)told, (void)limit; }
#endif
#endif
