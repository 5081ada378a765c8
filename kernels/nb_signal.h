/* A signal by which threads interrupt each other, and what a thread is lent to receive it: crew.c's threads block all signals.
 *
 * SIGURG, as Go has it: who has no handler for it ignores it, so that one which came late would do no harm. */
#ifndef NB_SIGNAL_H
#define NB_SIGNAL_H
#include "nb.h"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NB_SIGNAL SIGURG
#define NB_SIGNAL_STACK (64u << 10) /* Go has 32 KiB; the frame of a signal has all registers, 11 KiB with AMX */

struct nb_receiver { /* what the thread had, and its number */
    sigset_t mask;
    stack_t stack;
    pid_t task;
};

/* This thread receives from here on, where the handler asks for it on `stack` (NB_SIGNAL_STACK bytes). 0, or it does not. */
static inline int nb_receive(void *stack, struct nb_receiver *kept)
{
    const stack_t own = {.ss_sp = stack, .ss_size = NB_SIGNAL_STACK};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, NB_SIGNAL);
    kept->task = (pid_t)syscall(SYS_gettid);
    return pthread_sigmask(SIG_UNBLOCK, &set, &kept->mask) || sigaltstack(&own, &kept->stack);
}

static inline void nb_receive_no_more(const struct nb_receiver *kept)
{
    pthread_sigmask(SIG_SETMASK, &kept->mask, NULL);
    sigaltstack(&kept->stack, NULL);
}

/* A plain handler, or one as Go's: with siginfo, on the alternate stack, restarting calls, all signals masked meanwhile. */
static inline int nb_handle(void (*plain)(int), void (*go)(int, siginfo_t *, void *), struct sigaction *before)
{
    struct sigaction own;
    memset(&own, 0, sizeof own);
    if (go) {
        own.sa_sigaction = go;
        own.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
        sigfillset(&own.sa_mask);
    } else
        own.sa_handler = plain;
    return sigaction(NB_SIGNAL, &own, before);
}
#endif
