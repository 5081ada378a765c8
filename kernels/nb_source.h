/* A source of bytes that is changed: every byte has a value of its own in every state of the source, so that one that is received is old, changed or wrong. */
#ifndef NB_SOURCE_H
#define NB_SOURCE_H
#include "nb.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum nb_source_kind { NB_MEMORY, NB_FILE, NB_NAME }; /* NB_NAME: /proc/PID/comm, which is written as a whole and has letters alone */
enum nb_source_change { NB_OVERWRITE, NB_REMAP, NB_DONTNEED, NB_FORK_WRITE, NB_TRUNCATE };
#define NB_SOURCE_CHANGES "overwrite|remap|dontneed|fork_write|truncate"
#define NB_NAME_BYTES 16 /* with its line's end */

struct nb_source {
    enum nb_source_kind kind;
    enum nb_source_change how;
    uint8_t *memory, *bounce;            /* the source where it is memory; room for what is written to a file and read back */
    uint64_t span, offset, bytes, state; /* of the memory or file; what of it is transferred; `state`: another one after each change */
    int changed_by;                      /* what writes to the file and reads it */
};

/* Byte `k` in a state. */
static inline uint8_t nb_source_byte(const struct nb_source *s, uint64_t k, uint64_t state)
{
    if (s->kind == NB_NAME)
        return k == NB_NAME_BYTES - 1 ? '\n' : (uint8_t)('a' + (k * 7 + state * 11) % 26);
    return (uint8_t)(k * 7 + (k >> 8) * 3 + state * 101);
}

/* Bytes that differ between two states. */
static inline uint64_t nb_source_telling(const struct nb_source *s) { return s->kind == NB_NAME ? NB_NAME_BYTES - 1 : s->bytes; }

static inline ssize_t nb_source_put(const struct nb_source *s, const void *from, uint64_t n)
{
    return s->kind == NB_NAME ? write(s->changed_by, from, n) : pwrite(s->changed_by, from, n, (off_t)s->offset);
}

/* Writes the bytes of the next state in place; whether they were seen there. */
static inline int nb_source_overwrite(struct nb_source *s)
{
    const uint64_t n = nb_source_telling(s);
    uint8_t *to = s->kind == NB_MEMORY ? s->memory + s->offset : s->bounce;
    s->state++;
    for (uint64_t k = 0; k < n; k++)
        to[k] = nb_source_byte(s, k, s->state);
    if (s->kind != NB_MEMORY) {
        const ssize_t wrote = nb_source_put(s, s->bounce, n);
        memset(s->bounce, 0, n);
        if (wrote != (ssize_t)n || pread(s->changed_by, s->bounce, n, (off_t)s->offset) != (ssize_t)n)
            return 0;
    }
    for (uint64_t k = 0; k < n; k++)
        if (((volatile uint8_t *)to)[k] != nb_source_byte(s, k, s->state))
            return 0;
    return 1;
}

/* A child that shares all pages of memory until one of the two writes; 0 where there is none. */
static inline pid_t nb_source_share(void)
{
    const pid_t parent = getpid(), child = fork();
    if (child)
        return child > 0 ? child : 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (getppid() == parent)
        pause();
    _exit(0);
}

/* The bytes of the next state, in the same pages or in new ones; whether they were seen there. */
static inline int nb_source_change(struct nb_source *s)
{
    const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    pid_t child = 0;
    if (s->how == NB_REMAP && mmap(s->memory, s->span, protection, flags, -1, 0) != (void *)s->memory) /* which unmaps what was there */
        return 0;
    if (s->how == NB_DONTNEED && madvise(s->memory, s->span, MADV_DONTNEED))
        return 0;
    if (s->how == NB_REMAP || s->how == NB_DONTNEED)
        memset(s->memory, 0, s->span); /* all of it: where each page is has to be known */
    if (s->how == NB_TRUNCATE && (ftruncate(s->changed_by, 0) || ftruncate(s->changed_by, (off_t)s->span)))
        return 0;
    if (s->how == NB_FORK_WRITE && !(child = nb_source_share()))
        return 0;
    const int seen = nb_source_overwrite(s);
    if (child) {
        kill(child, SIGKILL);
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    return seen;
}

/* Whether this kind of source can be changed so. */
static inline int nb_source_can(enum nb_source_kind kind, enum nb_source_change how)
{
#ifdef NB_SANITIZED /* it knows no children of one thread among several */
    if (how == NB_FORK_WRITE)
        return 0;
#endif
    return how == NB_OVERWRITE || (how == NB_TRUNCATE ? kind == NB_FILE : kind == NB_MEMORY);
}
#endif
