/* A block of BLOCK channels as one vector: 8 floats of AVX2, or 16 of AVX-512. For the files that
 * are compiled once for each. */
#ifndef DEVICE_CPU_VECTOR_H
#define DEVICE_CPU_VECTOR_H

#include <immintrin.h>
#include <stdint.h>

#define JOIN2(a, b) a##b
#define JOIN(a, b)  JOIN2(a, b)

#if BLOCK == 16
typedef __m512 vector;
typedef __m512i places;

static inline vector get(const float *from)
{
    return _mm512_loadu_ps(from);
}
static inline void put(float *to, vector v)
{
    _mm512_storeu_ps(to, v);
}
static inline vector every(float x)
{
    return _mm512_set1_ps(x);
}
static inline vector zero(void)
{
    return _mm512_setzero_ps();
}
static inline vector plus(vector a, vector b)
{
    return _mm512_add_ps(a, b);
}
static inline vector fused(vector a, vector b, vector c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline places place(int i)
{
    return _mm512_set1_epi32(i);
}
static inline places get_places(const int32_t *from)
{
    return _mm512_loadu_si512(from);
}
static inline void put_places(int32_t *to, places p)
{
    _mm512_storeu_si512(to, p);
}

/* Where candidate > most, it is the most, and its place wins. */
static inline void take(vector *most, places *winner, vector candidate, places at)
{
    __mmask16 greater = _mm512_cmp_ps_mask(candidate, *most, _CMP_GT_OQ);

    *most = _mm512_mask_blend_ps(greater, *most, candidate);
    *winner = _mm512_mask_blend_epi32(greater, *winner, at);
}

/* v where its place won, else 0. */
static inline vector won(vector v, places winner, places at)
{
    return _mm512_maskz_mov_ps(_mm512_cmpeq_epi32_mask(winner, at), v);
}
#else
typedef __m256 vector;
typedef __m256i places;

static inline vector get(const float *from)
{
    return _mm256_loadu_ps(from);
}
static inline void put(float *to, vector v)
{
    _mm256_storeu_ps(to, v);
}
static inline vector every(float x)
{
    return _mm256_set1_ps(x);
}
static inline vector zero(void)
{
    return _mm256_setzero_ps();
}
static inline vector plus(vector a, vector b)
{
    return _mm256_add_ps(a, b);
}
static inline vector fused(vector a, vector b, vector c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline places place(int i)
{
    return _mm256_set1_epi32(i);
}
static inline places get_places(const int32_t *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}
static inline void put_places(int32_t *to, places p)
{
    _mm256_storeu_si256((__m256i *)to, p);
}

static inline void take(vector *most, places *winner, vector candidate, places at)
{
    __m256 greater = _mm256_cmp_ps(candidate, *most, _CMP_GT_OQ);

    *most = _mm256_blendv_ps(*most, candidate, greater);
    *winner = _mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps(*winner), _mm256_castsi256_ps(at), greater));
}

static inline vector won(vector v, places winner, places at)
{
    return _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_cmpeq_epi32(winner, at)));
}
#endif

#endif
