/* io_uring by its own calls, without a library: reads that are waited for, one at a time, by the thread that opened the ring. */
#ifndef NB_URING_READ_H
#define NB_URING_READ_H
#include "nb.h"
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__has_include)
#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#define NB_HAS_URING 1
#endif
#endif

struct nb_ring {
    uint8_t *queues, *entries, *cqes;
    uint64_t queue_bytes, entry_bytes;
    uint32_t *sq_tail, *sq_array, *cq_head, *cq_tail;
    uint32_t mask, sq_mask;
    int32_t file;
};

#ifdef NB_HAS_URING
#ifndef SYS_io_uring_setup /* by number: headers may be older than the kernel */
#define SYS_io_uring_setup 425
#define SYS_io_uring_enter 426
#endif
#define NB_URING_READ 22 /* IORING_OP_READ (Linux 5.6) */

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

static inline uint8_t *nb_ring_map(int32_t file, uint64_t bytes, off_t what)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, what);
    return at == MAP_FAILED ? NULL : at;
}

/* 0, or there is none. */
static inline int nb_ring_open(struct nb_ring *r)
{
    struct io_uring_params p;
    memset(&p, 0, sizeof p);
    *r = (struct nb_ring){.file = (int32_t)syscall(SYS_io_uring_setup, 1, &p)};
    if (r->file < 0 || !(p.features & IORING_FEAT_SINGLE_MMAP)) {
        nb_ring_close(r);
        return 1;
    }
    const uint64_t sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t), cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    r->queue_bytes = sq > cq ? sq : cq;
    r->entry_bytes = p.sq_entries * sizeof(struct io_uring_sqe);
    r->queues = nb_ring_map(r->file, r->queue_bytes, IORING_OFF_SQ_RING);
    r->entries = nb_ring_map(r->file, r->entry_bytes, IORING_OFF_SQES);
    if (!r->queues || !r->entries) {
        nb_ring_close(r);
        return 1;
    }
    r->sq_tail = (uint32_t *)(r->queues + p.sq_off.tail);
    r->sq_array = (uint32_t *)(r->queues + p.sq_off.array);
    r->sq_mask = *(uint32_t *)(r->queues + p.sq_off.ring_mask);
    r->cq_head = (uint32_t *)(r->queues + p.cq_off.head);
    r->cq_tail = (uint32_t *)(r->queues + p.cq_off.tail);
    r->cqes = r->queues + p.cq_off.cqes;
    r->mask = *(uint32_t *)(r->queues + p.cq_off.ring_mask);
    return 0;
}

/* Asks for a read of `bytes` from `file` to `to`, which the next nb_ring_enter hands in. */
static inline void nb_ring_read(struct nb_ring *r, int32_t file, void *to, uint32_t bytes)
{
    const uint32_t tail = *r->sq_tail, at = tail & r->sq_mask;
    struct io_uring_sqe *e = (struct io_uring_sqe *)r->entries + at;
    memset(e, 0, sizeof *e);
    e->opcode = NB_URING_READ;
    e->fd = file;
    e->addr = (uint64_t)(uintptr_t)to;
    e->len = bytes;
    e->off = UINT64_MAX; /* of a file that has no places: as read does */
    r->sq_array[at] = at;
    nb_store32_release(r->sq_tail, tail + 1);
}

/* Hands in so many entries and waits for so many completions; below zero where it did neither. */
static inline long nb_ring_enter(struct nb_ring *r, uint32_t entries, uint32_t waits)
{
    return syscall(SYS_io_uring_enter, r->file, entries, waits, waits ? IORING_ENTER_GETEVENTS : 0u, NULL, 0);
}

/* The next completion's result in *result, or 0 where there is none yet. */
static inline int nb_ring_take(struct nb_ring *r, int32_t *result)
{
    const uint32_t head = *r->cq_head;
    if (head == nb_load32_acquire(r->cq_tail))
        return 0;
    *result = ((const struct io_uring_cqe *)(void *)r->cqes)[head & r->mask].res;
    nb_store32_release(r->cq_head, head + 1);
    return 1;
}
#else
static inline int nb_ring_open(struct nb_ring *r) { return (void)r, 1; }
static inline void nb_ring_close(struct nb_ring *r) { (void)r; }
static inline void nb_ring_read(struct nb_ring *r, int32_t file, void *to, uint32_t bytes) { (void)r, (void)file, (void)to, (void)bytes; }
static inline long nb_ring_enter(struct nb_ring *r, uint32_t entries, uint32_t waits) { return (void)r, (void)entries, (void)waits, -1; }
static inline int nb_ring_take(struct nb_ring *r, int32_t *result) { return (void)r, (void)result, 0; }
#endif
#endif
