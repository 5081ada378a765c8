/* Clocks: QEMU asks the C library or reads the time stamp counter; both are answered with virtual time while the model is ON.
 *
 * The plug-in is therefore also preloaded into QEMU: it replaces clock_gettime, gettimeofday and ppoll, and makes RDTSC trap in
 * the threads of virtual CPUs (PR_SET_TSC). QEMU 10's own plug-in interface for time cannot do it: with software emulation it
 * waits for the host's clock to get where it was asked to be. */
#include "simulator.h"
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include <dlfcn.h>
#include <x86intrin.h>

#define EXPORT __attribute__((visibility("default")))

static atomic_int ready;                       /* before that, the host's clocks answer */
static ps birth, origin;                       /* origin: time at which the model came ON */
static int64_t birth_ticks, origin_ticks, rate; /* rate: ticks per ps * 2^40 */
static _Atomic int64_t latest_ticks, latest_time; /* time in ns: aarch64 counts with it */
static _Atomic ps idle_since, idle_since_real; /* all virtual CPUs sleep: time passes as on the host */

ps real_time(void)
{
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    return (t.tv_sec * 1000000000LL + t.tv_nsec) * 1000LL;
}

/* For threads that are no running virtual CPU: the time of the slowest one. */
static ps common_time(void)
{
    ps least = INT64_MAX;
    for (int j = 0; j < machine.cpus; j++)
        if (atomic_load(&cpu[j].state) == RUNNING && clock_of(j) < least)
            least = clock_of(j);
    return least != INT64_MAX ? least : idle_since + (real_time() - idle_since_real);
}

static ps time_here(void)
{
    if (!atomic_load(&on))
        return real_time();
    if (me >= 0 && cpu[me].state == RUNNING)
        return clock_of(me) + (ps)counters_of(me)->executed * machine.instruction;
    return common_time();
}

/* No clock of the guest's may run backwards, which neither QEMU nor Linux bears: `now`, or the latest that any virtual CPU has read. */
static int64_t not_before(_Atomic int64_t *latest, int64_t now)
{
    int64_t seen = atomic_load(latest);
    while (now > seen && !atomic_compare_exchange_weak(latest, &seen, now))
        ;
    return now < seen ? seen : now;
}

EXPORT int clock_gettime(clockid_t which, struct timespec *t)
{
    if (which != CLOCK_MONOTONIC || !atomic_load(&ready) || !machine.timed)
        return syscall(SYS_clock_gettime, which, t);
    int64_t now = time_here() / 1000;
    if (atomic_load(&on))
        now = not_before(&latest_time, now);
    t->tv_sec = now / 1000000000, t->tv_nsec = now % 1000000000;
    return 0;
}

EXPORT int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec, t->tv_usec = now.tv_nsec / 1000;
    return 0;
}

/* The main loop's time-outs are virtual: look again every millisecond. */
EXPORT int ppoll(struct pollfd *files, nfds_t n, const struct timespec *timeout, const sigset_t *signals)
{
    struct timespec copy = {0, 1000000};
    if (timeout && (!atomic_load(&on) || (!timeout->tv_sec && timeout->tv_nsec <= copy.tv_nsec)))
        copy = *timeout; /* the system call writes the rest into it */
    return syscall(SYS_ppoll, files, n, timeout ? &copy : NULL, signals, 8);
}

/* RDTSC and RDTSCP of QEMU's own code, trapped. The guest's counter keeps the host's rate and counts virtual time from the value
 * that it had when the model came ON. */
static void on_trap(int signal_number, siginfo_t *info, void *context)
{
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *at = (const uint8_t *)r[REG_RIP];
    int length = info->si_code != SI_KERNEL || me < 0           ? 0
                 : at[0] == 0x0f && at[1] == 0x31               ? 2
                 : at[0] == 0x0f && at[1] == 1 && at[2] == 0xf9 ? 3
                                                                : 0;
    if (!length) { /* a fault of QEMU's: say where and let it happen */
        Dl_info where = {0};
        dladdr(at, &where);
        dprintf(2, "simulator: SIGSEGV code %d address %p at %s+%#lx, cpu %d, on %d\n", info->si_code, info->si_addr,
                where.dli_fname ? where.dli_fname : "?", (long)((char *)at - (char *)where.dli_fbase), me, atomic_load(&on));
        signal(signal_number, SIG_DFL);
    } else if (!atomic_load(&on)) {
        prctl(PR_SET_TSC, PR_TSC_ENABLE);
        cpu[me].armed = false;
    } else {
        int64_t ticks = not_before(&latest_ticks, origin_ticks + (int64_t)((__int128)(time_here() - origin) * rate >> 40));
        r[REG_RAX] = (uint32_t)ticks, r[REG_RDX] = (uint64_t)ticks >> 32, r[REG_RIP] += length;
        if (length == 3)
            r[REG_RCX] = 0;
    }
}

void trap_clock(int i)
{
    if (!cpu[i].armed)
        prctl(PR_SET_TSC, PR_TSC_SIGSEGV);
    cpu[i].armed = true;
}

void begin_clocks(void)
{
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    birth = real_time(), birth_ticks = __rdtsc();
    atomic_store(&ready, 1);
}

void start_clocks(void)
{
    origin = real_time(), origin_ticks = __rdtsc();
    rate = ((__int128)(origin_ticks - birth_ticks) << 40) / (origin - birth);
    atomic_store(&latest_ticks, origin_ticks);
    atomic_store(&latest_time, origin / 1000);
    atomic_store(&idle_since, origin);
    atomic_store(&idle_since_real, origin);
    for (int j = 0; j < machine.cpus; j++) {
        atomic_store(&cpu[j].clock, origin);
        forget_stores(j);
        counters_of(j)->executed = SLICE; /* each virtual CPU looks at the clock at once, and traps its own */
    }
    start_events(origin);
}

/* The host's clocks go on where virtual time ended; where that is ahead, wait for them. */
void stop_clocks(void)
{
    ps latest = idle_since;
    for (int j = 0; j < machine.cpus; j++)
        latest = clock_of(j) > latest ? clock_of(j) : latest;
    stop_events(latest);
    while (real_time() <= latest)
        usleep(100);
}

/* A thread of a virtual CPU that sleeps, halted or in one of QEMU's exclusive sections, must not hold up the others. (QEMU's own
 * callbacks for idling tell of halts too, but crash when qemu_plugin_reset unregisters them meanwhile.) */
static void fall_asleep(int i)
{
    static atomic_int lock;
    if (!atomic_load(&on)) {
        atomic_store(&cpu[i].state, IDLE);
        return;
    }
    bool others = false;
    ps latest = 0;
    settle(i);
    while (atomic_exchange(&lock, 1))
        _mm_pause();
    for (int j = 0; j < machine.cpus; j++) {
        others |= j != i && cpu[j].state == RUNNING;
        latest = clock_of(j) > latest ? clock_of(j) : latest;
    }
    if (!others) {
        atomic_store(&idle_since, latest);
        atomic_store(&idle_since_real, real_time());
    }
    atomic_store(&cpu[i].state, IDLE);
    atomic_store(&lock, 0);
    wake_ready();
}

static void wake_up(int i)
{
    if (atomic_load(&on)) {
        ps now = common_time();
        if (now > clock_of(i))
            atomic_store(&cpu[i].clock, now);
        counters_of(i)->executed = 0;
        trap_clock(i);
    }
    atomic_store(&cpu[i].state, RUNNING);
}

EXPORT int pthread_cond_wait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex)
{
    static int (*real)(pthread_cond_t *, pthread_mutex_t *);
    bool modelled = me >= 0 && machine.timed;
    if (!real)
        *(void **)&real = dlvsym(RTLD_NEXT, "pthread_cond_wait", "GLIBC_2.3.2");
    if (modelled)
        fall_asleep(me);
    int result = real(condition, mutex);
    if (modelled)
        wake_up(me);
    return result;
}
