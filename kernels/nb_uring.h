/* io_uring by its own calls, without a library: entries that are handed in and completions that are taken, by the thread that opened the ring. */
#ifndef NB_URING_H
#define NB_URING_H
#include "nb.h"
#include <errno.h>
#include <string.h>
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

#define NB_URING_ENTRIES 4 /* one is in flight, and of sends without a copy the notifications before it */

struct nb_uring {
    uint8_t *queues, *entries, *cqes;
    uint64_t queue_bytes, entry_bytes;
    uint32_t *sq_tail, *sq_array, *cq_head, *cq_tail;
    uint32_t mask, sq_mask;
    int32_t file;
};

/* A completion. */
struct nb_done {
    int32_t result;
    uint32_t flags;
};

#ifdef NB_HAS_URING
#ifndef SYS_io_uring_setup /* by number: headers may be older than the kernel */
#define SYS_io_uring_setup 425
#define SYS_io_uring_enter 426
#define SYS_io_uring_register 427
#endif
#define NB_URING_READ 22 /* IORING_OP_READ (Linux 5.6) */

static inline void nb_uring_close(struct nb_uring *r)
{
    if (r->queues)
        munmap(r->queues, r->queue_bytes);
    if (r->entries)
        munmap(r->entries, r->entry_bytes);
    if (r->file >= 0)
        close(r->file);
    *r = (struct nb_uring){.file = -1};
}

static inline uint8_t *nb_uring_map(int32_t file, uint64_t bytes, off_t what)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, what);
    return at == MAP_FAILED ? NULL : at;
}

/* 0, or errno. */
static inline int nb_uring_open(struct nb_uring *r)
{
    struct io_uring_params p;
    memset(&p, 0, sizeof p);
    *r = (struct nb_uring){.file = (int32_t)syscall(SYS_io_uring_setup, NB_URING_ENTRIES, &p)};
    if (r->file < 0)
        return errno;
    if (!(p.features & IORING_FEAT_SINGLE_MMAP))
        return nb_uring_close(r), ENOSYS;
    const uint64_t sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t), cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    r->queue_bytes = sq > cq ? sq : cq;
    r->entry_bytes = p.sq_entries * sizeof(struct io_uring_sqe);
    r->queues = nb_uring_map(r->file, r->queue_bytes, IORING_OFF_SQ_RING);
    r->entries = nb_uring_map(r->file, r->entry_bytes, IORING_OFF_SQES);
    if (!r->queues || !r->entries)
        return nb_uring_close(r), ENOMEM;
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
static inline int nb_uring_register(const struct nb_uring *r, void *memory, uint64_t bytes)
{
    const struct iovec whole = {memory, bytes};
    return syscall(SYS_io_uring_register, r->file, IORING_REGISTER_BUFFERS, &whole, 1) < 0 ? errno : 0;
}

/* Asks for what `entry` says, which the next nb_uring_enter hands in. */
static inline void nb_uring_ask(struct nb_uring *r, const struct io_uring_sqe *entry)
{
    const uint32_t tail = *r->sq_tail, at = tail & r->sq_mask;
    memcpy(r->entries + at * sizeof *entry, entry, sizeof *entry);
    r->sq_array[at] = at;
    nb_store32_release(r->sq_tail, tail + 1);
}

/* A read of `bytes` from `file` to `to`. */
static inline void nb_uring_read(struct nb_uring *r, int32_t file, void *to, uint32_t bytes)
{
    struct io_uring_sqe entry;
    memset(&entry, 0, sizeof entry);
    entry.opcode = NB_URING_READ;
    entry.fd = file;
    entry.addr = (uint64_t)(uintptr_t)to;
    entry.len = bytes;
    entry.off = UINT64_MAX; /* of a file that has no places: as read does */
    nb_uring_ask(r, &entry);
}

/* Hands in so many entries and waits for so many completions; below zero where it did neither, with errno. */
static inline long nb_uring_enter(const struct nb_uring *r, uint32_t entries, uint32_t waits)
{
    return syscall(SYS_io_uring_enter, r->file, entries, waits, waits ? IORING_ENTER_GETEVENTS : 0u, NULL, 0);
}

/* The next completion, or 0 where there is none yet. */
static inline int nb_uring_take(struct nb_uring *r, struct nb_done *done)
{
    const uint32_t head = *r->cq_head;
    if (head == nb_load32_acquire(r->cq_tail))
        return 0;
    const struct io_uring_cqe *const found = (const struct io_uring_cqe *)(void *)r->cqes + (head & r->mask);
    *done = (struct nb_done){found->res, found->flags};
    nb_store32_release(r->cq_head, head + 1);
    return 1;
}
#else
static inline void nb_uring_close(struct nb_uring *r) { *r = (struct nb_uring){.file = -1}; }
static inline int nb_uring_open(struct nb_uring *r) { return nb_uring_close(r), ENOSYS; }
static inline int nb_uring_register(const struct nb_uring *r, void *memory, uint64_t bytes) { return (void)r, (void)memory, (void)bytes, ENOSYS; }
static inline void nb_uring_read(struct nb_uring *r, int32_t file, void *to, uint32_t bytes) { (void)r, (void)file, (void)to, (void)bytes; }
static inline long nb_uring_enter(const struct nb_uring *r, uint32_t entries, uint32_t waits) { return (void)r, (void)entries, (void)waits, errno = ENOSYS, -1; }
static inline int nb_uring_take(struct nb_uring *r, struct nb_done *done) { return (void)r, (void)done, 0; }
#endif
#endif
