/* Streams over memory by instruction set: read, write, copy and triad, the last three also past the caches. Intrinsics and not the
 * compiler's taste: -O3 turns a copy into a memcpy with non-temporal stores, which is another measurement. The functions themselves
 * are written once, in nb_stream_set.h. */
#ifndef NB_STREAM_H
#define NB_STREAM_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "nb_cpu.h"
#if defined(__x86_64__) && !defined(NB_PORTABLE)
#define NB_X86
#include <immintrin.h>
#elif defined(__aarch64__) && !defined(NB_PORTABLE)
#define NB_ARM
#include <arm_neon.h>
#include <sys/auxv.h>
#if __has_include(<arm_sve.h>) && (!defined(__clang__) || __clang_major__ > 16 || defined(__ARM_FEATURE_SVE)) /* older ones want it for the whole file */
#define NB_SVE
#include <arm_sve.h>
#endif
#endif

/* Streams `bytes`, a multiple of NB_STREAM_STEP, through `to`, `b` and `c`; returns the sum of the first words of all
 * steps that `read` read, or of all words that `sum` did.
 * `factor`: the word that `write` writes, the factor of `triad` (to = b + factor * c in double precision). */
typedef uint64_t (*nb_stream)(uint8_t *to, const uint8_t *b, const uint8_t *c, size_t bytes, uint64_t factor);
#define NB_STREAM_STEP 512 /* eight vectors of the widest set */

/* NB_SUM is for checking alone: kernels offer those named. */
enum { NB_READ, NB_WRITE, NB_COPY, NB_TRIAD, NB_WRITE_NT, NB_COPY_NT, NB_TRIAD_NT, NB_SUM, NB_STREAM_COUNT };
#define NB_STREAM_NAMES "read|write|copy|triad|write_nt|copy_nt|triad_nt"
enum { NB_PORTABLE_WORDS, NB_SSE2, NB_AVX2, NB_AVX512, NB_NEON, NB_SVE_SET };
#define NB_VECTOR_NAMES "portable|sse2|avx2|avx512|neon|sve"

/* Words of 64 bits, for every other processor. No stores past the caches. */
#define SET portable
#define TARGET
#define V uint64_t
#define F double
#define W 8
#define LOAD(p) (*(const volatile uint64_t *)(p))
#define STORE(p, v) (*(volatile uint64_t *)(p) = (v))
#define STREAM STORE
#define ADD(a, b) ((a) + (b))
#define WORDS(x) (x)
#define DOUBLES(x) (x)
#define SCALED nb_scaled_word
#define HIDE(v) (void)(v)
static inline uint64_t nb_scaled_word(uint64_t b, double f, uint64_t c)
{
    double x, y;
    memcpy(&x, &b, sizeof x);
    memcpy(&y, &c, sizeof y);
    x += f * y;
    memcpy(&b, &x, sizeof b);
    return b;
}
#include "nb_stream_set.h"

#ifdef NB_X86
#define SET sse2
#define TARGET
#define V __m128i
#define F __m128d
#define W 16
#define LOAD(p) _mm_load_si128((const V *)(p))
#define STORE(p, v) _mm_store_si128((V *)(p), v)
#define STREAM(p, v) _mm_stream_si128((V *)(p), v)
#define ADD _mm_add_epi64
#define WORDS(x) _mm_set1_epi64x((long long)(x))
#define DOUBLES _mm_set1_pd
#define SCALED(b, f, c) _mm_castpd_si128(_mm_add_pd(_mm_castsi128_pd(b), _mm_mul_pd(f, _mm_castsi128_pd(c))))
#define HIDE(v) __asm__ volatile("" : "+x"(v))
#include "nb_stream_set.h"

#define SET avx2
#define TARGET __attribute__((target("avx2,fma")))
#define V __m256i
#define F __m256d
#define W 32
#define LOAD(p) _mm256_load_si256((const V *)(p))
#define STORE(p, v) _mm256_store_si256((V *)(p), v)
#define STREAM(p, v) _mm256_stream_si256((V *)(p), v)
#define ADD _mm256_add_epi64
#define WORDS(x) _mm256_set1_epi64x((long long)(x))
#define DOUBLES _mm256_set1_pd
#define SCALED(b, f, c) _mm256_castpd_si256(_mm256_fmadd_pd(f, _mm256_castsi256_pd(c), _mm256_castsi256_pd(b)))
#define HIDE(v) __asm__ volatile("" : "+x"(v))
#include "nb_stream_set.h"

#define SET avx512
#define TARGET __attribute__((target("avx512f")))
#define V __m512i
#define F __m512d
#define W 64
#define LOAD(p) _mm512_load_si512(p)
#define STORE(p, v) _mm512_store_si512(p, v)
#define STREAM(p, v) _mm512_stream_si512((V *)(p), v)
#define ADD _mm512_add_epi64
#define WORDS(x) _mm512_set1_epi64((long long)(x))
#define DOUBLES _mm512_set1_pd
#define SCALED(b, f, c) _mm512_castpd_si512(_mm512_fmadd_pd(f, _mm512_castsi512_pd(c), _mm512_castsi512_pd(b)))
#define HIDE(v) __asm__ volatile("" : "+v"(v))
#include "nb_stream_set.h"
#endif

#ifdef NB_ARM
#define SET neon
#define TARGET
#define V uint64x2_t
#define F float64x2_t
#define W 16
#define LOAD(p) vld1q_u64((const uint64_t *)(p))
#define STORE(p, v) vst1q_u64((uint64_t *)(p), v)
/* The only stores past the caches of this set are those of pairs: 32 bytes at once, as memcpy has them. */
#define STREAM_TWO(p, k, v, w) __asm__ volatile("stnp %q0, %q1, [%2, %3]" : : "w"(v), "w"(w), "r"(p), "i"((k) * 16) : "memory")
#define ADD vaddq_u64
#define WORDS vdupq_n_u64
#define DOUBLES vdupq_n_f64
#define SCALED(b, f, c) vreinterpretq_u64_f64(vfmaq_f64(vreinterpretq_f64_u64(b), f, vreinterpretq_f64_u64(c)))
#define HIDE(v) __asm__ volatile("" : "+w"(v))
#include "nb_stream_set.h"
#endif

#ifdef NB_SVE
#define SET sve
#define TARGET __attribute__((target("+sve")))
#define V svuint64_t
#define F svfloat64_t
#define W svcntb()
#define LOAD(p) svld1_u64(svptrue_b64(), (const uint64_t *)(p))
#define STORE(p, v) svst1_u64(svptrue_b64(), (uint64_t *)(p), v)
#define STREAM(p, v) svstnt1_u64(svptrue_b64(), (uint64_t *)(p), v)
#define ADD(a, b) svadd_u64_x(svptrue_b64(), a, b)
#define WORDS svdup_n_u64
#define DOUBLES svdup_n_f64
#define SCALED(b, f, c)                                                                                                              \
    svreinterpret_u64_f64(svmla_f64_x(svptrue_b64(), svreinterpret_f64_u64(b), svreinterpret_f64_u64(c), f))
#define HIDE(v) __asm__ volatile("" : "+w"(v))
__attribute__((target("+sve"))) static inline size_t nb_sve_bytes(void)
{
    return svcntb();
}
#include "nb_stream_set.h"
#endif

/* The function, or NULL: this processor or compiler has no such set, or the set no such store. */
static inline nb_stream nb_find_stream(int64_t vector, int64_t stream)
{
    if (vector == NB_PORTABLE_WORDS)
        return stream < NB_WRITE_NT || stream == NB_SUM ? nb_streams_portable[stream] : NULL;
#ifdef NB_X86
    if (vector == NB_SSE2)
        return nb_streams_sse2[stream];
    if (vector == NB_AVX2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return nb_streams_avx2[stream];
    if (vector == NB_AVX512 && __builtin_cpu_supports("avx512f"))
        return nb_streams_avx512[stream];
#endif
#ifdef NB_ARM
    if (vector == NB_NEON)
        return nb_streams_neon[stream];
#endif
#ifdef NB_SVE
    if (vector == NB_SVE_SET && getauxval(AT_HWCAP) & HWCAP_SVE && nb_sve_bytes() * 8 <= NB_STREAM_STEP)
        return nb_streams_sve[stream];
#endif
    return NULL;
}
#endif
