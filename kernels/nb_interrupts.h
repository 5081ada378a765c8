/* How many interrupts of a kind a CPU has taken: one number of /proc/interrupts, through a descriptor that Python opened. Twenty microseconds on two CPUs,
 * and longer the more CPUs there are: never inside what is timed. */
#ifndef NB_INTERRUPTS_H
#define NB_INTERRUPTS_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NB_INTERRUPTS_WORD 24  /* bytes of the longest word that is looked at: a number has 20 digits at most */
#define NB_INTERRUPTS_PART 4096 /* bytes read at a time: of many CPUs a row alone is longer */

/* Puts the number of `row` ("TLB") for `cpu` into `count`. Returns whether there is one: not on processors that have no such row, in sandboxes where the file
 * is empty, and not of a CPU that is offline, which has no column. Words are cut where they are longer than any that counts. */
static inline int nb_interrupts(int file, const char *row, int cpu, uint64_t *count)
{
    char text[NB_INTERRUPTS_PART], word[NB_INTERRUPTS_WORD] = "";
    const size_t name = strlen(row);
    size_t length = 0;
    int line = 0, at = 0, column = -1, wanted = 0; /* `at`: of the word in its line */
    ssize_t got;
    if (file < 0)
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
                if (!strncmp(word, "CPU", 3) && atoi(word + 3) == cpu)
                    column = at + 1;
            } else if (length && !at) {
                wanted = column > 0 && !strncmp(word, row, name) && !strcmp(word + name, ":");
            } else if (length && wanted && at == column) {
                *count = strtoull(word, NULL, 10);
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
