/* How many interrupts of a kind some CPUs have taken together: numbers of /proc/interrupts, through a descriptor that Python opened. Twenty microseconds on two CPUs,
 * and longer the more CPUs there are: never inside what is timed. */
#ifndef NB_INTERRUPTS_H
#define NB_INTERRUPTS_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NB_INTERRUPTS_WORD 24   /* bytes of the longest word that is looked at: a number has 20 digits at most */
#define NB_INTERRUPTS_PART 4096 /* bytes read at a time: of many CPUs a row alone is longer */
#define NB_INTERRUPTS_CPUS 8192 /* as many as Linux can have */

struct nb_cpus { /* a set */
    uint64_t word[NB_INTERRUPTS_CPUS / 64];
    uint32_t count;
};

static inline int nb_cpus_have(const struct nb_cpus *set, int64_t cpu)
{
    return cpu >= 0 && cpu < NB_INTERRUPTS_CPUS && set->word[cpu / 64] >> cpu % 64 & 1;
}

static inline void nb_cpus_add(struct nb_cpus *set, int64_t cpu)
{
    if (cpu < 0 || cpu >= NB_INTERRUPTS_CPUS || nb_cpus_have(set, cpu))
        return;
    set->word[cpu / 64] |= (uint64_t)1 << cpu % 64;
    set->count++;
}

/* Puts the sum of `row` ("TLB") over `cpus` into `sum`. Returns whether each has a number there: not on processors that have no such row, in sandboxes where the file
 * is empty, and not of a CPU that is offline, which has no column. Words are cut where they are longer than any that counts. */
static inline int nb_interrupts(int file, const char *row, const struct nb_cpus *cpus, uint64_t *sum)
{
    char text[NB_INTERRUPTS_PART], word[NB_INTERRUPTS_WORD] = "";
    struct nb_cpus columns = {{0}, 0};
    const size_t name = strlen(row);
    size_t length = 0;
    int line = 0, at = 0, wanted = 0; /* `at`: of the word in its line */
    uint32_t found = 0;
    ssize_t got;
    *sum = 0;
    if (file < 0 || !cpus->count)
        return 0;
    for (off_t from = 0; (got = pread(file, text, sizeof text, from)) > 0; from += got)
        for (ssize_t i = 0; i < got; i++) {
            const char c = text[i];
            if (c != ' ' && c != '\n') {
                if (length < sizeof word - 1)
                    word[length++] = c;
                continue;
            }
            word[length] = 0;
            if (length && !line) { /* CPU0 CPU1 ...: those that are online */
                if (!strncmp(word, "CPU", 3) && nb_cpus_have(cpus, atoi(word + 3)))
                    nb_cpus_add(&columns, at + 1);
            } else if (length && !at) {
                wanted = columns.count == cpus->count && !strncmp(word, row, name) && !strcmp(word + name, ":");
            } else if (length && wanted && nb_cpus_have(&columns, at)) {
                *sum += strtoull(word, NULL, 10);
                if (++found == columns.count)
                    return 1;
            }
            at += length > 0;
            length = 0;
            if (c == '\n')
                line++, at = 0, wanted = 0;
        }
    return 0;
}
#endif
