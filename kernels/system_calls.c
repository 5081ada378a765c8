/* What a call into the kernel costs, plain and through what looks at calls: filters, dispatch to the program itself, a supervisor, a tracer.
 *
 * A filter cannot be taken off again, so each sample has a task of its own: it shares the memory and the descriptors, and its filters, handlers and mask end with it. That what
 * looks at calls was in force is proven by outcomes: a call that the filter refuses comes back refused, and dispatches, notifications and stops are
 * counted. */
#include "nb.h"
#include "nb_window.h"
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <fcntl.h>

enum { CALL, WRAP };
enum { GETPPID, CLOCK_VDSO, CLOCK, PREAD, FUTEX_WAKE_NOBODY, YIELD };
enum { NONE, NUMBER_FILTER, NUMBER_FILTER_LONG, ARGUMENT_FILTER, ARGUMENT_FILTER_LONG, USER_DISPATCH, NOTIFY, TRACE };
/* Of value[]: whether the filter refused what it is to refuse; dispatches, notifications or stops, and calls, of this entry, with the warm-up. */
enum { REFUSED = 6, SEEN, CALLS };

#define FILE_SLOT 2 /* of descriptor[]: the file that is read */
#define SHORT 2     /* comparisons of a filter */
#define LONG 200
#define MARK 77           /* errno of what a filter refuses */
#define NEVER 100000u     /* from here on, numbers that no call has, and arguments that none is given */
#define REFUSED_CALL SYS_getsid
#define STACK_BYTES (64u << 10) /* of the task, at the begin of the scratch memory */
#define DEAF_MS 1000            /* for which a supervisor hears nothing before it looks whether the task is still there */

static const struct nb_parameter parameters[] = {
    [CALL] = {"call", "getppid|clock_vdso|clock|pread|futex_wake|sched_yield", "what is asked of the kernel", GETPPID, 0, YIELD},
    [WRAP] = {"wrap", "none|number_filter|number_filter_long|argument_filter|argument_filter_long|user_dispatch|notify|trace", "what looks at calls", NONE,
              0, TRACE},
};
static const struct nb_metric metrics[] = {
    {"time", "ns", "of one call", NB_LOWER_IS_BETTER},
};
NB_DESCRIBE("system_calls", 2, "the price of a call into the kernel", parameters, metrics);

struct task { /* what the task is told and tells: behind its stack */
    struct nb_thread *thread;
    int64_t parent; /* its number */
    int32_t listener, failed;
};

static struct task *task_of(const struct nb_case *c) { return (struct task *)(c->scratch + STACK_BYTES); }

/* -- the calls: each adds 1 to `check` where it brought what it is to bring ------------------------------------------------------------- */

static volatile uint8_t selector; /* of user dispatch: the kernel reads it at each call; of this process alone, which measures one case at a time */
static volatile uint64_t dispatched;

#define BLOCK() (selector = SYSCALL_DISPATCH_FILTER_BLOCK)

static void parents(struct nb_thread *t, uint64_t n)
{
    const long parent = task_of(t->shared)->parent;
    for (; n; n--)
        t->check += syscall(SYS_getppid, 0) == parent;
}

static void dispatches(struct nb_thread *t, uint64_t n)
{
    for (; n; n--) {
        BLOCK();
        t->check += syscall(SYS_getppid, 0) == MARK;
    }
}

static void clocks_of_vdso(struct nb_thread *t, uint64_t n)
{
    struct timespec a = {0}, b;
    for (; n; n--, a = b) {
        clock_gettime(CLOCK_MONOTONIC, &b);
        t->check += b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec);
    }
}

static void clocks(struct nb_thread *t, uint64_t n)
{
    struct timespec a = {0}, b;
    for (; n; n--, a = b) {
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &b);
        t->check += b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec);
    }
}

/* Of the file: read beforehand, since each read that is made here is looked at. */
static uint64_t *first_word(const struct nb_case *c) { return (uint64_t *)c->buffer + 1; }

static void reads(struct nb_thread *t, uint64_t n)
{
    const int file = t->shared->descriptor[FILE_SLOT];
    const uint64_t first = *first_word(t->shared);
    uint64_t word;
    for (; n; n--) {
        word = ~first;
        syscall(SYS_pread64, file, &word, sizeof word, 0);
        t->check += word == first;
    }
}

static void wakes(struct nb_thread *t, uint64_t n)
{
    for (; n; n--)
        t->check += syscall(SYS_futex, t->shared->buffer, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0) == 0;
}

static void yields(struct nb_thread *t, uint64_t n)
{
    for (; n; n--)
        t->check += syscall(SYS_sched_yield, 0) == 0;
}

static const nb_batch calls[] = {parents, clocks_of_vdso, clocks, reads, wakes, yields};
static const uint32_t numbers[] = {SYS_getppid, NEVER, SYS_clock_gettime, SYS_pread64, SYS_futex, SYS_sched_yield};

/* -- what looks at them ---------------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define RESULT(context) ((context)->uc_mcontext.gregs[REG_RAX])
#include <ucontext.h>
#elif defined(__aarch64__)
#define RESULT(context) ((context)->uc_mcontext.regs[0])
#include <ucontext.h>
#endif

/* Lets the calls that follow through, among them the return from here, and answers this one. */
static void on_dispatch(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    selector = SYSCALL_DISPATCH_FILTER_ALLOW;
    dispatched++;
#ifdef RESULT
    RESULT((ucontext_t *)context) = MARK;
#else
    (void)context;
#endif
}

static int start_dispatch(void)
{
    struct sigaction action = {.sa_sigaction = on_dispatch, .sa_flags = SA_SIGINFO};
    sigset_t own;
    sigemptyset(&own);
    sigaddset(&own, SIGSYS);
    selector = SYSCALL_DISPATCH_FILTER_ALLOW;
    return sigaction(SIGSYS, &action, NULL) || sigprocmask(SIG_UNBLOCK, &own, NULL) ||
           prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &selector);
}

/* A filter of `n` comparisons with `field` of a call; what is found is refused. The last comparison by number is with a call that there is. */
static long filter(uint32_t field, uint32_t n, uint32_t refuses, uint32_t found, uint32_t flags)
{
    struct sock_filter program[LONG + 3];
    program[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, field);
    for (uint32_t i = 1; i <= n; i++)
        program[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, i < n ? NEVER + i : refuses, (uint8_t)(n - i + 1), 0);
    program[n + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    program[n + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, found);
    const struct sock_fprog whole = {(unsigned short)(n + 3), program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -1 : syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &whole);
}

static int wrap(struct task *own, int64_t how, uint32_t asked, uint64_t *refused)
{
    const uint32_t number = offsetof(struct seccomp_data, nr), argument = offsetof(struct seccomp_data, args); /* its lower half, on little endian */
    const uint32_t n = how == NUMBER_FILTER || how == ARGUMENT_FILTER ? SHORT : LONG;
    switch (how) {
    case NUMBER_FILTER:
    case NUMBER_FILTER_LONG:
        if (filter(number, n, REFUSED_CALL, SECCOMP_RET_ERRNO | MARK, 0))
            return 1;
        *refused = syscall(REFUSED_CALL, 0) == -1 && errno == MARK;
        return 0;
    case ARGUMENT_FILTER:
    case ARGUMENT_FILTER_LONG:
        if (filter(argument, n, NEVER, SECCOMP_RET_ERRNO | MARK, 0))
            return 1;
        *refused = syscall(SYS_getppid, NEVER) == -1 && errno == MARK;
        return 0;
    case USER_DISPATCH:
        return start_dispatch();
    case NOTIFY: {
        const long listener = filter(number, 1, asked, SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
        __atomic_store_n(&own->listener, (int32_t)listener, __ATOMIC_RELEASE);
        return listener < 0;
    }
    case TRACE:
        return ptrace(PTRACE_TRACEME, 0, NULL, NULL) || raise(SIGSTOP);
    default:
        return 0;
    }
}

/* The task: its own filters, and the window in them. */
static int work(void *at)
{
    struct task *own = at;
    struct nb_thread *t = own->thread;
    const struct nb_case *c = t->shared;
    const int64_t how = c->parameter[WRAP];
    const int before = t->schedstat;
    const uint64_t executed = t->executed;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    own->parent = syscall(SYS_getppid, 0);
    t->schedstat = -1;
    if (before >= 0)
        t->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    dispatched = 0;
    own->failed = wrap(own, how, numbers[c->parameter[CALL]], &t->value[REFUSED]);
    if (!own->failed && c->phase == NB_MEASURE) {
        nb_window(t, how == USER_DISPATCH ? dispatches : calls[c->parameter[CALL]]);
        if (how == USER_DISPATCH)
            t->value[SEEN] = dispatched;
        t->value[CALLS] = t->executed - executed;
    }
    if (t->schedstat >= 0)
        close(t->schedstat);
    t->schedstat = before;
    return 0;
}

/* Lets each call through that the task is about to make; until it has ended. */
static uint64_t supervise(struct task *own)
{
    struct seccomp_notif asked;
    struct seccomp_notif_resp answer;
    uint64_t seen = 0;
    int32_t listener;
    while ((listener = __atomic_load_n(&own->listener, __ATOMIC_ACQUIRE)) == INT32_MIN)
        sched_yield();
    if (listener < 0)
        return 0;
    for (;;) {
        struct pollfd wait = {listener, POLLIN, 0};
        if (poll(&wait, 1, DEAF_MS) <= 0 || !(wait.revents & POLLIN))
            break;
        memset(&asked, 0, sizeof asked);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
            continue;
        seen++;
        memset(&answer, 0, sizeof answer);
        answer.id = asked.id;
        answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    close(listener);
    return seen;
}

/* From its first stop on the task is stopped at the begin and at the end of each of its calls. */
static uint64_t trace(pid_t task, int *status)
{
    uint64_t seen = 0;
    while (waitpid(task, status, __WALL) == task && WIFSTOPPED(*status)) {
        const int signal = WSTOPSIG(*status);
        const int is_call = signal == SIGTRAP || signal == SIGSTOP;
        seen += signal == SIGTRAP;
        if (ptrace(PTRACE_SYSCALL, task, NULL, is_call ? 0 : signal))
            break;
    }
    return seen;
}

int nb_run(struct nb_thread *t)
{
    const struct nb_case *c = t->shared;
    const int64_t how = c->parameter[WRAP];
    struct task *own = task_of(c);
    int status = 0;
    if (c->threads != 1 || c->scratch_bytes < STACK_BYTES + sizeof *own || c->buffer_bytes < 2 * sizeof(uint64_t))
        return NB_UNSUPPORTED;
    if (how == USER_DISPATCH && c->parameter[CALL] != GETPPID) /* whatever was called: it never gets to the kernel */
        return NB_UNSUPPORTED;
    if (c->parameter[CALL] == CLOCK_VDSO && (how == NOTIFY || how == TRACE)) /* there is no call to look at */
        return NB_UNSUPPORTED;
    if (c->parameter[CALL] == PREAD && c->descriptor[FILE_SLOT] < 0)
        return NB_UNSUPPORTED;
#if !defined(RESULT)
    if (how == USER_DISPATCH)
        return NB_UNSUPPORTED;
#endif
#ifdef NB_SANITIZED /* it takes the task for this thread, and waits for itself */
    return NB_UNSUPPORTED;
#endif
    if (c->phase == NB_PREPARE) {
        memset(c->buffer, 0, c->buffer_bytes < 4096 ? c->buffer_bytes : 4096);
        t->check = 0;
        if (c->parameter[CALL] == PREAD && pread(c->descriptor[FILE_SLOT], first_word(c), sizeof(uint64_t), 0) != sizeof(uint64_t))
            return NB_UNSUPPORTED;
    }
    t->value[REFUSED] = t->value[SEEN] = t->value[CALLS] = 0;
    *own = (struct task){.thread = t, .listener = INT32_MIN};
    const pid_t task = clone(work, c->scratch + STACK_BYTES, CLONE_VM | CLONE_FS | CLONE_FILES | SIGCHLD, own);
    if (task < 0)
        return NB_UNSUPPORTED;
    if (how == NOTIFY)
        t->value[SEEN] = supervise(own);
    if (how == TRACE)
        t->value[SEEN] = trace(task, &status);
    else
        while (waitpid(task, &status, __WALL) < 0 && errno == EINTR)
            ;
    return own->failed || !WIFEXITED(status) || WEXITSTATUS(status) ? NB_UNSUPPORTED : NB_OK;
}
