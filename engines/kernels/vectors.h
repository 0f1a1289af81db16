/* The vectors of one instruction set, and matrix products whose sums stay in registers.
 *
 * Included at a kernel's head, once for each set, with NAME, LANES (floats in a vector) and ROWS (of a product kept in
 * registers) defined; isa_undef.h undefines them at its end. Its file includes immintrin.h on x86.
 */
#ifndef MYNAH_STRIDES
#define MYNAH_STRIDES
/* The strides of a product, in floats: the left operand's rows and steps of depth, the right one's steps, and the
 * result's rows. */
struct strides {
    long row, step, next, out;
};
#endif

#define PANEL (2 * LANES) /* columns that a product gives at once: two vectors, or one at the end */
#define vec NAME(vec)
#define bits NAME(bits)
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int bits __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE vec NAME(load)(const float *from) { return *(const vec *)from; }
INLINE void NAME(store)(float *to, vec value) { *(vec *)to = value; }
INLINE vec NAME(set1)(float value) { return value - (vec){0}; } /* value + 0 would cost an addition, because of -0 */

/* A vector of float16 as float32. */
#if LANES == 16
#define LOAD_FP16(from) ((vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from))))
#elif LANES == 8
#define LOAD_FP16(from) ((vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from))))
#else
#define LOAD_FP16(from) NAME(load)((const float *)(from)) /* never reached: this set has no float16 */
#endif

INLINE vec NAME(select)(bits mask, vec a, vec b) { return (vec)(((bits)a & mask) | ((bits)b & ~mask)); }
#if LANES == 16 /* of the comparison the compiler makes three instructions */
INLINE vec NAME(max)(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec NAME(min)(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
#else
INLINE vec NAME(max)(vec a, vec b) { return NAME(select)(a > b, a, b); }
INLINE vec NAME(min)(vec a, vec b) { return NAME(select)(a < b, a, b); }
#endif

/* 2^x for x <= 0, to a relative error of 1e-7 by a minimax polynomial on half a step; 0 from -126 on. */
INLINE vec NAME(exp2)(vec x)
{
    const float rounding = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, in the lowest bits */
    x = NAME(max)(x, NAME(set1)(-126.0f));
    vec shifted = x + rounding;
    vec f = x - (shifted - rounding);
    vec series = f * 1.32764715e-3f + 9.67554133e-3f;
    series = (series * f + 5.55071327e-2f) * f + 2.40221197e-1f;
    series = (series * f + 6.93146967e-1f) * f + 1.00000007f;
    return (vec)((bits)series + (((bits)shifted - 0x4b400000) << 23));
}

/* `rows` rows times `vectors` vectors of columns; with `accumulate` added to `out`. */
INLINE void NAME(multiply)(const float *a, const float *b, long depth, float *out, struct strides by, const int rows,
                           const int vectors, const int accumulate)
{
    vec sums[ROWS][2];
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sums[row][v] = accumulate ? NAME(load)(out + row * by.out + v * LANES) : NAME(set1)(0);
    for (long k = 0; k < depth; k++, b += by.next) {
        vec right[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) right[v] = NAME(load)(b + v * LANES);
#pragma GCC unroll 16
        for (int row = 0; row < rows; row++) {
            vec left = NAME(set1)(a[row * by.row + k * by.step]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) sums[row][v] += left * right[v];
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) NAME(store)(out + row * by.out + v * LANES, sums[row][v]);
}

#define CASE(n) case n: NAME(multiply)(a, b, depth, out, by, n <= ROWS ? n : ROWS, vectors, accumulate); break;
INLINE void NAME(multiply_rows)(const float *a, const float *b, long depth, float *out, struct strides by, int rows,
                            const int vectors, const int accumulate)
{
    switch (rows) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7)
        CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
    }
}
#undef CASE

/* (count, depth) times (depth, vectors * LANES) -> (count, vectors * LANES). The rows go in blocks of about the same
 * number, because a block of few rows is slow. */
INLINE void NAME(blocks)(const float *a, const float *b, long depth, float *out, struct strides by, long count,
                         const int vectors, const int accumulate)
{
    long blocks = (count + ROWS - 1) / ROWS;
    for (long block = 0; block < blocks; block++) {
        long first = count * block / blocks, rows = count * (block + 1) / blocks - first;
        NAME(multiply_rows)(a + first * by.row, b, depth, out + first * by.out, by, rows, vectors, accumulate);
    }
}

/* The right operand is a packed panel, the result (count, PANEL). */
__attribute__((unused)) static void NAME(product)(const float *a, long row, const float *b, long depth, float *out,
                                                  long count, int vectors)
{
    if (vectors == 2)
        NAME(blocks)(a, b, depth, out, (struct strides){row, 1, 2 * LANES, PANEL}, count, 2, 0);
    else
        NAME(blocks)(a, b, depth, out, (struct strides){row, 1, LANES, PANEL}, count, 1, 0);
}
