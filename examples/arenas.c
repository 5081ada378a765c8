/* arenas naive|careful: an arena for each CPU, on the CPU's own node; where do its pages end up?
 * naive binds to the node of the CPU. careful asks first which nodes have memory, and takes the nearest. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BYTES = 1 << 20, NODES = 64, MPOL_BIND = 2, MPOL_F_NODE = 1, MPOL_F_ADDR = 2 };

/* The numbers in a file of sysfs: of a list such as 0,2-3 (then `set` is marked), or one after the other. Returns how many. */
static int read_numbers(const char *path, int *numbers, int most)
{
    FILE *file = fopen(path, "r");
    int count = 0, first, last;
    char next = ' ';
    while (file && count < most && fscanf(file, "%d%c", &first, &next) >= 1) {
        last = first;
        if (next == '-' && fscanf(file, "%d%c", &last, &next) < 1)
            last = first;
        while (first <= last && count < most)
            numbers[count++] = first++;
    }
    if (file)
        fclose(file);
    return count;
}

static int nearest_memory(int node)
{
    char path[80];
    int online[NODES], with[NODES], distance[NODES], best = -1, least = 255;
    int nodes = read_numbers("/sys/devices/system/node/online", online, NODES);
    int memories = read_numbers("/sys/devices/system/node/has_memory", with, NODES);
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/distance", node);
    read_numbers(path, distance, NODES);
    for (int i = 0; i < nodes; i++)
        for (int m = 0; m < memories; m++)
            if (online[i] == with[m] && distance[i] < least)
                best = with[m], least = distance[i];
    return best;
}

int main(int argc, char **argv)
{
    int careful = argc == 2 && !strcmp(argv[1], "careful"), failed = 0;
    if (argc != 2 || (!careful && strcmp(argv[1], "naive")))
        return fprintf(stderr, "usage: arenas naive|careful\n"), 2;
    for (int cpu = 0; cpu < sysconf(_SC_NPROCESSORS_ONLN); cpu++) {
        cpu_set_t set;
        unsigned own;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        sched_setaffinity(0, sizeof set, &set);
        getcpu(NULL, &own);
        int node = careful ? nearest_memory(own) : (int)own, found = -1;
        unsigned long mask = 1ul << node;
        char *arena = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        printf("CPU %d on node %u: ", cpu, own);
        if (syscall(SYS_mbind, arena, (unsigned long)BYTES, MPOL_BIND, &mask, 65ul, 0u)) {
            printf("no arena on node %d: %m\n", node);
            failed = 1;
            continue;
        }
        memset(arena, 1, BYTES);
        syscall(SYS_get_mempolicy, &found, NULL, 0ul, arena, MPOL_F_NODE | MPOL_F_ADDR);
        printf("arena on node %d\n", found);
    }
    return failed;
}
