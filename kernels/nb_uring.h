/* io_uring by its own calls, without a library: sends, one after the other. */
#ifndef NB_URING_H
#define NB_URING_H
#include "nb_told.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#if defined(__has_include)
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#define NB_HAS_URING 1
#endif
#endif

#define NB_URING_LIMIT_NS 100000000u /* of the wait for a completion: what a busy machine takes */

struct nb_ring {
    uint8_t *queues, *entries, *cqes;
    uint64_t queue_bytes, entry_bytes;
    uint32_t *sq_tail, *sq_array, *cq_head, *cq_tail;
    uint32_t mask, sq_mask;
    int32_t file;
};

enum nb_ring_way { NB_RING_SEND, NB_RING_ZEROCOPY, NB_RING_ZEROCOPY_FIXED };

#ifdef NB_HAS_URING
/* By number: headers may be older than the kernel. */
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#define SYS_io_uring_enter 426
#define SYS_io_uring_register 427
#endif
#define NB_OP_SEND 26
#define NB_OP_SEND_ZC 47
#define NB_FIXED_BUFFER (1u << 2)
#define NB_REPORT_USAGE (1u << 3)
#define NB_MORE_COMES (1u << 1) /* a notification, of failed sends too */
#define NB_IS_NOTIFICATION (1u << 3)
#define NB_USAGE_COPIED 0x80000000u

static inline void nb_ring_close(struct nb_ring *r)
{
    if (r->queues)
        munmap(r->queues, r->queue_bytes);
    if (r->entries)
        munmap(r->entries, r->entry_bytes);
    if (r->file >= 0)
        close(r->file);
    *r = (struct nb_ring){.file = -1};
}

/* 0, or errno. */
static inline int nb_ring_open(struct nb_ring *r)
{
    struct io_uring_params p;
    memset(&p, 0, sizeof p);
    *r = (struct nb_ring){.file = (int)syscall(SYS_io_uring_setup, 4, &p)};
    if (r->file < 0)
        return errno;
    if (!(p.features & IORING_FEAT_SINGLE_MMAP))
        return nb_ring_close(r), ENOSYS;
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
        return nb_ring_close(r), ENOMEM;
    r->sq_tail = (uint32_t *)(r->queues + p.sq_off.tail);
    r->sq_array = (uint32_t *)(r->queues + p.sq_off.array);
    r->sq_mask = *(uint32_t *)(r->queues + p.sq_off.ring_mask);
    r->cq_head = (uint32_t *)(r->queues + p.cq_off.head);
    r->cq_tail = (uint32_t *)(r->queues + p.cq_off.tail);
    r->cqes = r->queues + p.cq_off.cqes;
    r->mask = *(uint32_t *)(r->queues + p.cq_off.ring_mask);
    return 0;
}

/* Makes this memory the ring's one registered buffer: its pages are pinned once, and not for each send. 0, or errno. */
static inline int nb_ring_register(const struct nb_ring *r, void *memory, uint64_t bytes)
{
    const struct iovec whole = {memory, bytes};
    return syscall(SYS_io_uring_register, r->file, IORING_REGISTER_BUFFERS, &whole, 1) < 0 ? errno : 0;
}

/* The next completion, for which it waits so many ns at most; whether there was one. Of notifications the ones before it are counted. */
static inline int nb_ring_complete(struct nb_ring *r, struct io_uring_cqe *done, uint64_t limit)
{
    for (uint64_t until = 0;;) {
        const uint32_t head = *r->cq_head;
        if (head != __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE)) {
            memcpy(done, r->cqes + (head & r->mask) * sizeof *done, sizeof *done);
            __atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
            return 1;
        }
        const uint64_t now = nb_now();
        until = until ? until : now + limit;
        if (now >= until)
            return 0;
        nb_wait_for(r->file, POLLIN, 1);
    }
}

/* Sends: how many bytes, or -1 with errno. */
static inline ssize_t nb_ring_send(struct nb_ring *r, enum nb_ring_way way, int to, const void *from, uint64_t n, struct nb_told *told)
{
    const uint32_t tail = *r->sq_tail, at = tail & r->sq_mask;
    const int tells = way != NB_RING_SEND;
    struct io_uring_sqe *e = (struct io_uring_sqe *)r->entries + at;
    struct io_uring_cqe found;
    memset(e, 0, sizeof *e);
    e->opcode = tells ? NB_OP_SEND_ZC : NB_OP_SEND;
    e->ioprio = (uint16_t)((tells ? NB_REPORT_USAGE : 0) | (way == NB_RING_ZEROCOPY_FIXED ? NB_FIXED_BUFFER : 0));
    e->fd = to;
    e->addr = (uint64_t)(uintptr_t)from;
    e->len = (uint32_t)n;
    e->msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    r->sq_array[at] = at;
    __atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, r->file, 1, 0, 0, NULL, 0) < 0)
        return -1;
    while (nb_ring_complete(r, &found, NB_URING_LIMIT_NS)) {
        if (found.flags & NB_IS_NOTIFICATION) { /* of a send before */
            nb_tell(told, 1, ((uint32_t)found.res & NB_USAGE_COPIED) != 0);
            continue;
        }
        told->sends += (found.flags & NB_MORE_COMES) != 0;
        return found.res < 0 ? (errno = -found.res, -1) : found.res;
    }
    return errno = ETIMEDOUT, -1;
}

static inline void nb_ring_reap(struct nb_ring *r, struct nb_told *told, uint64_t limit)
{
    struct io_uring_cqe found;
    while (told->notified < told->sends && nb_ring_complete(r, &found, limit))
        if (found.flags & NB_IS_NOTIFICATION)
            nb_tell(told, 1, ((uint32_t)found.res & NB_USAGE_COPIED) != 0);
}
#else
static inline void nb_ring_close(struct nb_ring *r) { *r = (struct nb_ring){.file = -1}; }
static inline int nb_ring_open(struct nb_ring *r) { return nb_ring_close(r), ENOSYS; }
static inline int nb_ring_register(const struct nb_ring *r, void *memory, uint64_t bytes) { return (void)r, (void)memory, (void)bytes, ENOSYS; }
static inline ssize_t nb_ring_send(struct nb_ring *r, enum nb_ring_way way, int to, const void *from, uint64_t n, struct nb_told *told)
{
    return (void)r, (void)way, (void)to, (void)from, (void)n, (void)told, errno = ENOSYS, -1;
}
static inline void nb_ring_reap(struct nb_ring *r, struct nb_told *told, uint64_t limit) { (void)r, (void)told, (void)limit; }
#endif
#endif
