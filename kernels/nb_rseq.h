/* A counter for each CPU that needs no atomic operation: the kernel starts the sequence anew when it was interrupted (restartable sequences, Linux 4.18; Desnoyers 2018). glibc
 * registers every thread from 2.35 on. NB_HAS_RSEQ says whether all that is here. */
#ifndef NB_RSEQ_H
#define NB_RSEQ_H
#include <stdint.h>
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(NB_PORTABLE) && __has_include(<sys/rseq.h>)
#include <sys/rseq.h>
#define NB_HAS_RSEQ 1

static inline struct rseq *nb_rseq(void)
{
    return (struct rseq *)((uint8_t *)__builtin_thread_pointer() + __rseq_offset);
}

static inline int nb_rseq_works(void)
{
    return __rseq_size > 0 && (int32_t)nb_rseq()->cpu_id >= 0;
}

/* Adds one to the word of this CPU, words `1 << shift` bytes apart; returns what it was. */
static inline uint64_t nb_rseq_increment(uint8_t *words, uint32_t shift)
{
    struct rseq *own = nb_rseq();
    uint64_t was, *word;
    __asm__ volatile(".pushsection __rseq_cs, \"aw\"\n\t"
                     ".balign 32\n\t"
                     "3: .long 0, 0\n\t"
                     ".quad 1f, 2f - 1f, 4f\n\t"
                     ".popsection\n\t"
                     ".pushsection __rseq_failure, \"ax\"\n\t"
                     ".byte 0x0f, 0xb9, 0x3d\n\t" /* the signature that the kernel looks for in front of the handler */
                     ".long 0x53053053\n\t"
                     "4: jmp 5f\n\t"
                     ".popsection\n\t"
                     "5: leaq 3b(%%rip), %[word]\n\t"
                     "movq %[word], %[cs]\n\t"
                     "1: movl %[cpu], %k[word]\n\t"
                     "shlq %b[shift], %[word]\n\t"
                     "addq %[words], %[word]\n\t"
                     "movq (%[word]), %[was]\n\t"
                     "incq (%[word])\n\t" /* the one store that counts */
                     "2:\n\t"
                     : [was] "=&r"(was), [word] "=&r"(word), [cs] "=m"(own->rseq_cs)
                     : [cpu] "m"(own->cpu_id), [words] "r"(words), [shift] "c"((uint64_t)shift)
                     : "memory", "cc");
    return was;
}
#else
#define NB_HAS_RSEQ 0
#endif
#endif
