/* The CPU set that the crew and kernels hand to Linux, for a CPU that this machine has not got: cpu_set CPU... prints bytes and bits set of each. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int shown(int thread, size_t bytes, const cpu_set_t *set)
{
    printf("%d %zu", thread, bytes);
    for (size_t bit = 0; bit < 8 * bytes; bit++)
        if (((const uint8_t *)set)[bit / 8] >> bit % 8 & 1)
            printf(" %zu", bit);
    printf("\n");
    return 0;
}

#define sched_setaffinity shown
#include "nb_pin.h"

int main(int count, char **words)
{
    for (int i = 1; i < count; i++)
        nb_pin(atoi(words[i]));
    return 0;
}
