/* The arithmetic of a dense layer for one instruction set: some of its outputs, for all rows.
 *
 * Compiled once for each by each_set.h. Knows rows and panels; knows no thread. Weights are halves, which these sets
 * widen as fast as they can be read, or floats.
 */
#include "vectors.h"

#if LANES == 16
#define WIDEN(from) ((vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from))))
#elif LANES == 8
#define WIDEN(from) ((vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from))))
#else
#define WIDEN(from) NAME(load)((const float *)(from)) /* weights are never halves here */
#endif

/* Few rows, each weight used as it comes from memory. */
INLINE void NAME(pass_by)(const float *x, long depth, const char *weights, float *out, const int rows, const int vectors,
                          const int halves)
{
    const long bytes = halves ? 2 : 4;
    vec sums[ROWS][2];
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sums[row][v] = NAME(all)(0);
    for (long k = 0; k < depth; k++, weights += vectors * LANES * bytes) {
        vec right[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            const char *from = weights + v * LANES * bytes;
            right[v] = halves ? WIDEN(from) : NAME(load)((const float *)from);
        }
#pragma GCC unroll 16
        for (int row = 0; row < rows; row++) {
            vec left = NAME(all)(x[row * depth + k]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) sums[row][v] += left * right[v];
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) NAME(store)(out + row * PANEL + v * LANES, sums[row][v]);
}

#define CASE(n) case n: NAME(pass_by)(x, depth, weights, out, n <= FEW ? n : FEW, vectors, halves); break;
#define FEW (ROWS < 8 ? ROWS : 8)
INLINE void NAME(few_rows)(const float *x, long depth, const char *weights, float *out, long rows, const int vectors,
                           const int halves)
{
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
}
#undef CASE

/* Many rows: a piece of the panel is widened once, small enough to stay in the first cache, and serves all of them. */
INLINE void NAME(many_rows)(const float *x, long depth, const char *weights, float *out, long rows, float *wide,
                            const int vectors, const int halves)
{
    const long width = vectors * LANES;
    for (long first = 0; first < depth; first += DEPTH_AT_ONCE) {
        long some = depth - first < DEPTH_AT_ONCE ? depth - first : DEPTH_AT_ONCE;
        const float *panel = halves ? wide : (const float *)weights + first * width;
        if (halves)
            for (long i = 0; i < some * width; i += LANES)
                NAME(store)(wide + i, WIDEN(weights + 2 * (first * width + i)));
        struct strides by = {depth, 1, width, PANEL};
        if (first == 0)
            NAME(blocks)(x, panel, some, out, by, rows, vectors, 0);
        else
            NAME(blocks)(x + first, panel, some, out, by, rows, vectors, 1);
    }
}

/* GELU in its tanh form, as x times a logistic function. */
INLINE vec NAME(tanh_gelu)(vec x)
{
    const vec zero = NAME(all)(0), one = NAME(all)(1);
    vec t = (x * x * 0.044715f + 1.0f) * x * 2.302208198f; /* 2 sqrt(2 / pi) log2(e) */
    vec small = NAME(power)(NAME(smaller)(t, zero - t));
    return x * NAME(choose)(t < zero, small, one) / (small + 1.0f);
}

/* One panel's products with bias, then what the layer's kind asks for. */
INLINE void NAME(leave)(const struct dense *dense, const float *products, long channel, long c)
{
    vec bias = NAME(load)(dense->bias + c);
    for (long row = 0; row < dense->rows; row++) {
        vec y = NAME(load)(products + row * PANEL + c - channel) + bias;
        float *out = dense->out + row * dense->outputs + c;
        if (dense->kind == GELU) y = NAME(tanh_gelu)(y);
        if (dense->kind == ADD) y += NAME(load)(dense->residual + row * dense->outputs + c);
        NAME(store)(out, y);
    }
}

INLINE void NAME(panel)(const struct dense *dense, const char *weights, long channel, float *work, const int vectors,
                        const int halves)
{
    float *products = work, *wide = work + dense->rows * PANEL;
    if (dense->rows <= FEW)
        NAME(few_rows)(dense->x, dense->depth, weights, products, dense->rows, vectors, halves);
    else
        NAME(many_rows)(dense->x, dense->depth, weights, products, dense->rows, wide, vectors, halves);
    for (long c = channel; c < channel + vectors * LANES; c += LANES) NAME(leave)(dense, products, channel, c);
}

/* Panels first .. last of the outputs. */
static void NAME(panels)(const struct dense *dense, long first, long last, float *work)
{
    for (long i = first; i < last; i++) {
        long channel = i * PANEL;
        const char *weights = (const char *)dense->weights + channel * dense->depth * (dense->halves ? 2 : 4);
        int whole = dense->outputs - channel >= PANEL;
        if (dense->halves)
            whole ? NAME(panel)(dense, weights, channel, work, 2, 1) : NAME(panel)(dense, weights, channel, work, 1, 1);
        else
            whole ? NAME(panel)(dense, weights, channel, work, 2, 0) : NAME(panel)(dense, weights, channel, work, 1, 0);
    }
}

#undef FEW
#undef WIDEN
#include "forget.h"
