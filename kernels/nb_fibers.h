/* Switching between stacks by own instructions: what the processor's calling convention makes a call preserve is pushed, the stack pointer is changed, and the other
 * stack's is popped, as Boost.Context and Go's scheduler do.
 *
 *   nb_fiber_switch(&saved, to)           saves the stack pointer, and goes on where `to` was saved. x86-64: rbx, rbp, r12 to r15; aarch64: x19 to x30, d8 to d15
 *   nb_fiber_switch_fp(&saved, to)        mxcsr and the x87 control word besides (x86-64), which the convention says a call preserves
 *   nb_fiber_keep(&saved, to, by)         the same with a number of this fiber in each of these registers: whether they came back
 *   nb_fiber_start(top, live, own, fp)    what to switch to so that live(own) begins on the stack that ends at `top`, a multiple of 16
 *
 * A shadow stack would find that the return goes elsewhere than the call came from: where the kernel enforces one (nb_shadow_stack), none of this is legal. */
#ifndef NB_FIBERS_H
#define NB_FIBERS_H
#include "nb.h"
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__) && !defined(NB_PORTABLE)
#define NB_OWN_FIBERS
#define NB_OWN_FIBERS_FP
#elif defined(__aarch64__) && !defined(NB_PORTABLE)
#define NB_OWN_FIBERS
#include <sys/prctl.h>
#endif

#ifdef NB_OWN_FIBERS
#define NB_HIDDEN __attribute__((visibility("hidden")))
typedef void (*nb_switch)(uint64_t *saved, uint64_t to);
void nb_fiber_switch(uint64_t *saved, uint64_t to) NB_HIDDEN;
int nb_fiber_keep(uint64_t *saved, uint64_t to, nb_switch by) NB_HIDDEN;
void nb_fiber_begin(void) NB_HIDDEN;
#define NB_FUNCTION(NAME) ".text\n\t.p2align 5\n\t.hidden " NAME "\n\t.type " NAME ", %function\n" NAME ":\n\t"
#endif

#ifdef NB_OWN_FIBERS_FP
#define NB_SHSTK_STATUS 0x5005 /* ARCH_SHSTK_STATUS of arch_prctl (Linux 6.6) */

static inline int nb_shadow_stack(void)
{
    uint64_t features = 0;
    return !syscall(SYS_arch_prctl, NB_SHSTK_STATUS, &features) && features & 1;
}

void nb_fiber_switch_fp(uint64_t *saved, uint64_t to) NB_HIDDEN;
#define NB_PUSH "pushq %rbp\n\tpushq %rbx\n\tpushq %r12\n\tpushq %r13\n\tpushq %r14\n\tpushq %r15\n\t"
#define NB_POP "popq %r15\n\tpopq %r14\n\tpopq %r13\n\tpopq %r12\n\tpopq %rbx\n\tpopq %rbp\n\t"
#define NB_SWAP "movq %rsp, (%rdi)\n\tmovq %rsi, %rsp\n\t"
#define NB_PUSH_FP "subq $8, %rsp\n\tstmxcsr (%rsp)\n\tfnstcw 4(%rsp)\n\t"
#define NB_POP_FP "ldmxcsr (%rsp)\n\tfldcw 4(%rsp)\n\taddq $8, %rsp\n\t"
#define NB_COMPARE(N, REGISTER) "leaq " #N "(%rdi), %rcx\n\txorq %rcx, " REGISTER "\n\torq " REGISTER ", %rax\n\t"
__asm__(NB_FUNCTION("nb_fiber_switch") NB_PUSH NB_SWAP NB_POP "ret\n"
        NB_FUNCTION("nb_fiber_switch_fp") NB_PUSH NB_PUSH_FP NB_SWAP NB_POP_FP NB_POP "ret\n"
        NB_FUNCTION("nb_fiber_keep") NB_PUSH "pushq %rdi\n\t"
        "leaq 1(%rdi), %rbp\n\tleaq 2(%rdi), %rbx\n\tleaq 3(%rdi), %r12\n\tleaq 4(%rdi), %r13\n\tleaq 5(%rdi), %r14\n\tleaq 6(%rdi), %r15\n\t"
        "callq *%rdx\n\tpopq %rdi\n\txorl %eax, %eax\n\t"
        NB_COMPARE(1, "%rbp") NB_COMPARE(2, "%rbx") NB_COMPARE(3, "%r12") NB_COMPARE(4, "%r13") NB_COMPARE(5, "%r14") NB_COMPARE(6, "%r15")
        "testq %rax, %rax\n\tsete %al\n\tmovzbl %al, %eax\n\t" NB_POP "ret\n"
        NB_FUNCTION("nb_fiber_begin") "movq %r12, %rdi\n\tcallq *%rbx\n\tud2\n\t.text\n");

static inline uint64_t nb_control_words(void)
{
    uint32_t vector;
    uint16_t scalar;
    __asm__ volatile("stmxcsr %0\n\tfnstcw %1" : "=m"(vector), "=m"(scalar) : : "memory");
    return (uint64_t)scalar << 32 | (vector & ~0x3fu); /* without the flags of what was inexact, which are no settings */
}

static inline void nb_set_control_words(uint64_t words)
{
    const uint32_t vector = (uint32_t)words;
    const uint16_t scalar = (uint16_t)(words >> 32);
    __asm__ volatile("ldmxcsr %0\n\tfldcw %1" : : "m"(vector), "m"(scalar) : "memory");
}

#define NB_TOWARD_ZERO (3ull << 13 | 3ull << 42) /* the rounding of both */

static inline uint64_t nb_fiber_start(uint8_t *top, void (*live)(void *), void *own, int fp)
{
    uint64_t *sp = (uint64_t *)top - 7;
    sp[2] = 0; /* r13 */
    sp[3] = (uint64_t)(uintptr_t)own;
    sp[4] = (uint64_t)(uintptr_t)live;
    sp[5] = 0; /* rbp: where unwinding ends */
    sp[6] = (uint64_t)(uintptr_t)nb_fiber_begin;
    if (fp)
        *--sp = nb_control_words();
    return (uint64_t)(uintptr_t)sp;
}
#elif defined(NB_OWN_FIBERS)
#define NB_GET_SHADOW_STACK 74 /* PR_GET_SHADOW_STACK_STATUS of prctl (Linux 6.13) */

static inline int nb_shadow_stack(void)
{
    uint64_t features = 0;
    return !prctl(NB_GET_SHADOW_STACK, &features, 0, 0, 0) && features & 1;
}

#define NB_FRAME "160" /* bytes: 20 registers */
#define NB_ALL(DO)                                                                                                                   \
    DO "p x19, x20, [sp]\n\t" DO "p x21, x22, [sp, 16]\n\t" DO "p x23, x24, [sp, 32]\n\t" DO "p x25, x26, [sp, 48]\n\t"              \
    DO "p x27, x28, [sp, 64]\n\t" DO "p x29, x30, [sp, 80]\n\t" DO "p d8, d9, [sp, 96]\n\t" DO "p d10, d11, [sp, 112]\n\t"           \
    DO "p d12, d13, [sp, 128]\n\t" DO "p d14, d15, [sp, 144]\n\t"
#define NB_PUSH "sub sp, sp, " NB_FRAME "\n\t" NB_ALL("st")
#define NB_POP NB_ALL("ld") "add sp, sp, " NB_FRAME "\n\t"
#define NB_NUMBER(N, X, D) "add " X ", x0, " #N "\n\tfmov " D ", " X "\n\t"
#define NB_COMPARE(N, X, D) "add x9, x0, " #N "\n\tfmov x10, " D "\n\teor x10, x10, x9\n\teor x9, x9, " X "\n\torr x11, x11, x10\n\torr x11, x11, x9\n\t"
#define NB_COMPARE_LAST(N, X) "add x9, x0, " #N "\n\teor x9, x9, " X "\n\torr x11, x11, x9\n\t"
#define NB_EIGHT(DO)                                                                                                                 \
    DO(1, "x19", "d8") DO(2, "x20", "d9") DO(3, "x21", "d10") DO(4, "x22", "d11") DO(5, "x23", "d12") DO(6, "x24", "d13")            \
    DO(7, "x25", "d14") DO(8, "x26", "d15")
__asm__(NB_FUNCTION("nb_fiber_switch") NB_PUSH "mov x9, sp\n\tstr x9, [x0]\n\tmov sp, x1\n\t" NB_POP "ret\n"
        NB_FUNCTION("nb_fiber_keep") NB_PUSH "str x0, [sp, -16]!\n\t" NB_EIGHT(NB_NUMBER) "add x27, x0, 9\n\tadd x28, x0, 10\n\t"
        "blr x2\n\tldr x0, [sp], 16\n\tmov x11, xzr\n\t" NB_EIGHT(NB_COMPARE) NB_COMPARE_LAST(9, "x27") NB_COMPARE_LAST(10, "x28")
        "cmp x11, 0\n\tcset w0, eq\n\t" NB_POP "ret\n"
        NB_FUNCTION("nb_fiber_begin") "mov x0, x20\n\tblr x19\n\tbrk 1\n\t.text\n");

static inline uint64_t nb_fiber_start(uint8_t *top, void (*live)(void *), void *own, int fp)
{
    uint64_t *sp = (uint64_t *)top - 20;
    (void)fp;
    for (int i = 0; i < 20; i++)
        sp[i] = 0;
    sp[0] = (uint64_t)(uintptr_t)live;
    sp[1] = (uint64_t)(uintptr_t)own;
    sp[11] = (uint64_t)(uintptr_t)nb_fiber_begin;
    return (uint64_t)(uintptr_t)sp;
}
#endif
#endif
