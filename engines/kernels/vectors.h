/* What every kernel does with one instruction set: vectors, and matrix products whose sums stay in registers.
 *
 * Included at a kernel's head, once for each set, with NAME, LANES (floats in a vector) and ROWS (of a product kept in
 * registers) defined; forget.h takes them back at its end. Knows no net and no thread.
 */
#ifndef MYNAH_STRIDES
#define MYNAH_STRIDES
/* Where a product's operands lie, in floats: the left one's rows and steps of depth, the right one's steps, and the rows
 * of what comes out. */
struct strides {
    long row, step, next, out;
};
#endif

#define PANEL (2 * LANES) /* columns that a product gives at once: two vectors, or one where no more are left */
#define vec NAME(vec)
#define bits NAME(bits)
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int bits __attribute__((vector_size(4 * LANES), aligned(4)));

INLINE vec NAME(load)(const float *from) { return *(const vec *)from; }
INLINE void NAME(store)(float *to, vec value) { *(vec *)to = value; }
INLINE vec NAME(all)(float value) { return value - (vec){0}; } /* plus zero would cost an addition, for -0's sake */

INLINE vec NAME(choose)(bits which, vec yes, vec no) { return (vec)(((bits)yes & which) | ((bits)no & ~which)); }
INLINE vec NAME(greater)(vec a, vec b) { return NAME(choose)(a > b, a, b); }
INLINE vec NAME(smaller)(vec a, vec b) { return NAME(choose)(a < b, a, b); }

/* 2^x for x <= 0, to 1e-7 of it by a polynomial that is best within half a step; 0 from -126 on. */
INLINE vec NAME(power)(vec x)
{
    const float rounding = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, in the lowest bits */
    x = NAME(greater)(x, NAME(all)(-126.0f));
    vec shifted = x + rounding;
    vec f = x - (shifted - rounding);
    vec series = f * 1.32764715e-3f + 9.67554133e-3f;
    series = (series * f + 5.55071327e-2f) * f + 2.40221197e-1f;
    series = (series * f + 6.93146967e-1f) * f + 1.00000007f;
    return (vec)((bits)series + (((bits)shifted - 0x4b400000) << 23));
}

/* `rows` rows times `vectors` vectors of columns, added to what is there already with `more`. */
INLINE void NAME(multiply)(const float *a, const float *b, long depth, float *out, struct strides by, const int rows,
                           const int vectors, const int more)
{
    vec sums[ROWS][2];
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sums[row][v] = more ? NAME(load)(out + row * by.out + v * LANES) : NAME(all)(0);
    for (long k = 0; k < depth; k++, b += by.next) {
        vec right[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) right[v] = NAME(load)(b + v * LANES);
#pragma GCC unroll 16
        for (int row = 0; row < rows; row++) {
            vec left = NAME(all)(a[row * by.row + k * by.step]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) sums[row][v] += left * right[v];
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) NAME(store)(out + row * by.out + v * LANES, sums[row][v]);
}

#define CASE(n) case n: NAME(multiply)(a, b, depth, out, by, n <= ROWS ? n : ROWS, vectors, more); break;
INLINE void NAME(some_rows)(const float *a, const float *b, long depth, float *out, struct strides by, int rows,
                            const int vectors, const int more)
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
                         const int vectors, const int more)
{
    long blocks = (count + ROWS - 1) / ROWS;
    for (long block = 0; block < blocks; block++) {
        long first = count * block / blocks, rows = count * (block + 1) / blocks - first;
        NAME(some_rows)(a + first * by.row, b, depth, out + first * by.out, by, rows, vectors, more);
    }
}

/* The right operand is a panel packed for this, the result (count, PANEL). */
__attribute__((unused)) static void NAME(product)(const float *a, long row, const float *b, long depth, float *out,
                                                  long count, int vectors)
{
    if (vectors == 2)
        NAME(blocks)(a, b, depth, out, (struct strides){row, 1, 2 * LANES, PANEL}, count, 2, 0);
    else
        NAME(blocks)(a, b, depth, out, (struct strides){row, 1, LANES, PANEL}, count, 1, 0);
}
