/* Every operation of nb_atomic.h, nb_cpu.h and nb_fence.h as a function of its own, whose instructions tests/test_instructions.py reads. */
#include "nb_atomic.h"
#include "nb_fence.h"

#define ORDERED(T, X, ORDER)                                                                                                         \
    T add##X##ORDER(T *p, T n) { return nb_add##X##ORDER(p, n); }                                                                    \
    T add_0##X##ORDER(T *p) { return nb_add##X##ORDER(p, 0); }                                                                       \
    void add_unread##X##ORDER(T *p) { (void)nb_add##X##ORDER(p, 1); }                                                                \
    T swap##X##ORDER(T *p, T x) { return nb_swap##X##ORDER(p, x); }                                                                  \
    int cas##X##ORDER(T *p, T seen, T x) { return nb_cas##X##ORDER(p, &seen, x); }
#define WORDS(T, X)                                                                                                                  \
    ORDERED(T, X, )                                                                                                                  \
    ORDERED(T, X, _relaxed)                                                                                                          \
    ORDERED(T, X, _acquire)                                                                                                          \
    ORDERED(T, X, _release)                                                                                                          \
    T load##X(T *p) { return nb_load##X(p); }                                                                                        \
    T load##X##_acquire(T *p) { return nb_load##X##_acquire(p); }                                                                    \
    T load##X##_relaxed(T *p) { return nb_load##X##_relaxed(p); }                                                                    \
    void store##X(T *p, T x) { nb_store##X(p, x); }                                                                                  \
    void store##X##_release(T *p, T x) { nb_store##X##_release(p, x); }                                                              \
    void store##X##_relaxed(T *p, T x) { nb_store##X##_relaxed(p, x); }
WORDS(uint64_t, )
WORDS(uint32_t, 32)

void full_fence(void) { nb_full_fence(); }
void acquire_fence(void) { nb_acquire_fence(); }
void release_fence(void) { nb_release_fence(); }
void drain(void) { nb_drain(); }
void flush(void *line) { nb_flush(line); }
void flushed(void) { nb_flushed(); }
