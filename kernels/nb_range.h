/* What address_space.c does to mapped memory: each operation, the proof that it was done, and everything back as it was before.
 *
 * Pages are small or transparent huge ones. Whether a range is in huge ones is the kernel's own word, in /proc/self/smaps: it gives small ones instead
 * without a word where it has no others. */
#ifndef NB_RANGE_H
#define NB_RANGE_H
#include "nb_usage.h"
#include "nb_window.h"
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum { MMAP, FAULT, MPROTECT, DONTNEED, FREE, COLD, MUNMAP, MREMAP, COPY, COLLAPSE, SPLIT };
#define MOST_PAGES 512
#define MOST_HUGE 64                       /* of 2 MiB: each call touches 128 MiB anew */
#define HUGE (2u << 20)                    /* of x86-64, and of aarch64 with base pages of 4 KiB: larger ones are not asked for */
#define LEAST_BASE 4096u
#define MOST_WORDS (MOST_HUGE * (HUGE / LEAST_BASE)) /* small pages of one range */

struct range {
    uint8_t *at, *elsewhere; /* for what moves or copies */
    uint64_t pages, unit;    /* of one call, and the bytes of each */
    uint64_t words, step;    /* pairs of words that are looked at, and how far apart they are: one in each page, or in each small one where huge ones come and go */
    uint64_t bytes, base;
    int huge, file; /* file: /proc/self/smaps */
};

static inline volatile uint64_t *page_of(const struct range *r, uint8_t *at, uint64_t i) { return (volatile uint64_t *)(at + i * r->step); }
static inline uint64_t content(uint64_t call, uint64_t i) { return call * MOST_WORDS + i + 1; }

static void touch(const struct range *r, uint64_t call)
{
    for (uint64_t i = 0; i < r->words; i++)
        *page_of(r, r->at, i) = content(call, i);
}

/* How many are new: the second word is zero, which is not so again. */
static uint64_t new_pages(const struct range *r)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < r->words; i++) {
        volatile uint64_t *word = page_of(r, r->at, i);
        found += !word[1];
        word[1] = 1;
    }
    return found;
}

/* How many hold what the call before left there; `zero`: counts those that hold nothing. */
static uint64_t old_pages(const struct range *r, uint8_t *at, uint64_t call, uint64_t *zero)
{
    uint64_t found = 0;
    for (uint64_t i = 0; i < r->words; i++) {
        const volatile uint64_t *word = page_of(r, at, i);
        const uint64_t first = word[0], second = word[1];
        found += first == content(call, i) && second == 1;
        *zero += !first && !second;
    }
    return found;
}

/* What the kernel says of the range: how many of its small pages are there. -1: something of it is not mapped. */
static int64_t resident(const struct range *r)
{
    static uint8_t there[MOST_WORDS];
    int64_t found = 0;
    if (mincore(r->at, r->bytes, there))
        return -1;
    for (uint64_t i = 0; i < r->bytes / r->base; i++)
        found += there[i] & 1;
    return found;
}

static int mapped(const struct range *r, uint64_t i)
{
    uint8_t there;
    return !mincore(r->at + i * r->unit, r->base, &there) || errno != ENOMEM;
}

/* The kernel writes the time there, or says that it may not: no signal. */
static int writable(const struct range *r, uint64_t i)
{
    return !syscall(SYS_clock_gettime, CLOCK_MONOTONIC, r->at + i * r->unit + 4 * sizeof(uint64_t));
}

/* Bytes of the range that are in transparent huge pages; -1 where that is not told. The range is a mapping of its own, and the file has a line for where each begins. */
static int64_t huge_bytes(const struct range *r)
{
    static const char name[] = "AnonHugePages:";
    char text[4096], line[64], *end;
    size_t length = 0;
    ssize_t got;
    int own = 0;
    if (r->file < 0)
        return -1;
    for (off_t from = 0; (got = pread(r->file, text, sizeof text, from)) > 0; from += got)
        for (ssize_t i = 0; i < got; i++) {
            if (text[i] != '\n') {
                if (length < sizeof line - 1)
                    line[length++] = text[i];
                continue;
            }
            line[length] = 0;
            length = 0;
            const uint64_t begin = strtoull(line, &end, 16);
            if (end > line && *end == '-')
                own = begin == (uint64_t)r->at;
            else if (own && !strncmp(line, name, sizeof name - 1))
                return (int64_t)strtoull(line + sizeof name - 1, NULL, 10) << 10;
        }
    return -1;
}

/* Whether the pages are of the size that is asked for before the call, where there are any: those that are to become a huge one are small. */
static int right_size(const struct range *r, int64_t operation)
{
    return !r->huge || operation == MMAP || operation == FAULT || huge_bytes(r) == (operation == COLLAPSE ? 0 : (int64_t)r->bytes);
}

static int map(const struct range *r, uint8_t *at)
{
    return mmap(at, r->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (void *)at;
}

/* A new mapping as the old one was: in pages of its own size, unlike its neighbours in what is copied when a process forks, so that they do not become one. */
static void advise(const struct range *r, uint8_t *at)
{
    madvise(at, r->bytes, r->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE); /* refused where there are none */
    madvise(at, r->bytes, MADV_DONTFORK);
}

/* What is timed. Nonzero: it was refused. */
static int perform(const struct range *r, int64_t operation, uint64_t call)
{
    int refused = 0;
    switch (operation) {
    case MMAP:
        return map(r, r->at);
    case FAULT:
        touch(r, call);
        return 0;
    case MPROTECT:
        return mprotect(r->at, r->bytes, PROT_READ);
    case DONTNEED:
        return madvise(r->at, r->bytes, MADV_DONTNEED);
    case FREE:
        return madvise(r->at, r->bytes, MADV_FREE);
    case COLD:
        return madvise(r->at, r->bytes, MADV_COLD);
    case MUNMAP:
        return munmap(r->at, r->bytes);
    case MREMAP:
        return mremap(r->at, r->bytes, r->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, r->elsewhere) != (void *)r->elsewhere;
    case COPY:
        memcpy(r->elsewhere, r->at, r->bytes);
        return 0;
    case COLLAPSE:
        return madvise(r->at, r->bytes, MADV_COLLAPSE);
    default: /* the small page in the middle of each huge one is given back */
        for (uint64_t i = 0; i < r->pages; i++)
            refused |= madvise(r->at + i * r->unit + r->unit / 2, r->base, MADV_DONTNEED);
        return refused;
    }
}

/* Whether the range is now as the operation should leave it. `small`: set where the kernel gave small pages instead of huge ones, which is no lie. */
static int proven(const struct range *r, int64_t operation, uint64_t call, int blind, int *small)
{
    uint64_t zero = 0, old;
    int64_t there;
    int right;
    switch (operation) {
    case MMAP:
    case DONTNEED:
        there = resident(r);
        return there == 0 || (blind && there > 0);
    case FAULT:
        *small |= r->huge && huge_bytes(r) != (int64_t)r->bytes;
        return new_pages(r) == r->words && (*small || resident(r) == (int64_t)(r->bytes / r->base));
    case MPROTECT:
        right = !writable(r, 0) && !writable(r, r->pages - 1);
        return right && old_pages(r, r->at, call - 1, &zero) == r->words;
    case FREE: /* the kernel takes them when it needs them: until then they are as they were */
        old = old_pages(r, r->at, call - 1, &zero);
        return resident(r) >= 0 && old + zero == r->words;
    case COLD:
        return old_pages(r, r->at, call - 1, &zero) == r->words && resident(r) >= 0;
    case MUNMAP:
        return !mapped(r, 0) && !mapped(r, r->pages - 1);
    case MREMAP:
        right = !mapped(r, 0) && !mapped(r, r->pages - 1);
        return right && old_pages(r, r->elsewhere, call - 1, &zero) == r->words;
    case COPY:
        return old_pages(r, r->elsewhere, call - 1, &zero) == r->words && old_pages(r, r->at, call - 1, &zero) == r->words;
    case COLLAPSE:
        return huge_bytes(r) == (int64_t)r->bytes && old_pages(r, r->at, call - 1, &zero) == r->words;
    default:
        right = huge_bytes(r) == 0;
        old = old_pages(r, r->at, call - 1, &zero);
        return right && zero == r->pages && old + zero == r->words;
    }
}

/* Everything as it was before the call. Whether it could be, and pages that should be new were. */
static int undone(const struct range *r, int64_t operation, uint64_t call)
{
    switch (operation) {
    case MMAP:
        return !munmap(r->at, r->bytes);
    case FAULT: /* a huge page is only given where there is no page table for small ones: a new mapping has none */
        if (!r->huge)
            return !madvise(r->at, r->bytes, MADV_DONTNEED);
        if (map(r, r->at))
            return 0;
        advise(r, r->at);
        return 1;
    case MPROTECT:
        if (mprotect(r->at, r->bytes, PROT_READ | PROT_WRITE))
            return 0;
        touch(r, call);
        return 1;
    case COLD:
        touch(r, call);
        return 1;
    case MREMAP:
        if (mremap(r->elsewhere, r->bytes, r->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, r->at) != (void *)r->at)
            return 0;
        touch(r, call);
        return 1;
    case COPY:
        for (uint64_t i = 0; i < r->words; i++)
            page_of(r, r->elsewhere, i)[0] = page_of(r, r->elsewhere, i)[1] = 0;
        touch(r, call);
        return 1;
    case FREE: /* new pages again: of those that have been marked once, marking costs less */
        if (madvise(r->at, r->bytes, MADV_DONTNEED))
            return 0;
        break;
    case MUNMAP:
    case SPLIT:
        if (map(r, r->at))
            return 0;
        advise(r, r->at);
        break;
    case COLLAPSE: /* small pages: the kernel gives no others while it is asked not to */
        if (madvise(r->at, r->bytes, MADV_DONTNEED) || madvise(r->at, r->bytes, MADV_NOHUGEPAGE))
            return 0;
        touch(r, call);
        madvise(r->at, r->bytes, MADV_HUGEPAGE);
        return new_pages(r) == r->words;
    default:
        break;
    }
    touch(r, call);
    return new_pages(r) == r->words;
}

/* What the range must be like before the first call, and after the last all pages are there again. */
static int arranged(const struct range *r, int64_t operation)
{
    return operation == MMAP ? !munmap(r->at, r->bytes) : operation != FAULT || undone(r, FAULT, 0);
}

static int restored(const struct range *r, int64_t operation, uint64_t call)
{
    if (operation == MMAP && !map(r, r->at))
        advise(r, r->at);
    if (!mapped(r, 0))
        return 0;
    touch(r, call);
    new_pages(r);
    return 1;
}

static inline uint64_t faults(void)
{
    const struct rusage used = nb_usage();
    return (uint64_t)(used.ru_minflt + used.ru_majflt);
}
#endif
