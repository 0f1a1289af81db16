/* The arithmetic of a dense layer for one instruction set: some of its outputs, for all rows.
 *
 * Compiled once for each instruction set by multi_isa.h. Weights are float32, or float16 on sets that convert them as
 * fast as they can be read.
 */
#include "vectors.h"

#if LANES == 16
#define LOAD_FP16(from) ((vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from))))
#elif LANES == 8
#define LOAD_FP16(from) ((vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from))))
#else
#define LOAD_FP16(from) NAME(load)((const float *)(from)) /* never reached: this set has no float16 weights */
#endif

/* Few rows: each weight is used once, as it comes from memory. */
INLINE void NAME(stream_weights)(const float *x, long depth, const char *weights, float *out, const int rows,
                                 const int vectors, const int fp16_weights)
{
    const long bytes = fp16_weights ? 2 : 4;
    vec sums[ROWS][2];
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sums[row][v] = NAME(set1)(0);
    for (long k = 0; k < depth; k++, weights += vectors * LANES * bytes) {
        vec right[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            const char *from = weights + v * LANES * bytes;
            right[v] = fp16_weights ? LOAD_FP16(from) : NAME(load)((const float *)from);
        }
#pragma GCC unroll 16
        for (int row = 0; row < rows; row++) {
            vec left = NAME(set1)(x[row * depth + k]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) sums[row][v] += left * right[v];
        }
    }
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) NAME(store)(out + row * PANEL + v * LANES, sums[row][v]);
}

#define MAX_FEW_ROWS (ROWS < 8 ? ROWS : 8)
#define AT_MOST_FEW(n) (n <= MAX_FEW_ROWS ? n : MAX_FEW_ROWS)
#define CASE(n) case n: NAME(stream_weights)(x, depth, weights, out, AT_MOST_FEW(n), vectors, fp16_weights); break;
INLINE void NAME(few_rows)(const float *x, long depth, const char *weights, float *out, long rows, const int vectors,
                           const int fp16_weights)
{
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
}
#undef CASE

/* Many rows: a part of the panel, small enough for the L1 cache, is converted to float32 once for all of them. */
INLINE void NAME(many_rows)(const float *x, long depth, const char *weights, float *out, long rows, float *wide,
                            const int vectors, const int fp16_weights)
{
    const long width = vectors * LANES;
    for (long first = 0; first < depth; first += DEPTH_AT_ONCE) {
        long part = depth - first < DEPTH_AT_ONCE ? depth - first : DEPTH_AT_ONCE;
        const float *panel = fp16_weights ? wide : (const float *)weights + first * width;
        if (fp16_weights)
            for (long i = 0; i < part * width; i += LANES)
                NAME(store)(wide + i, LOAD_FP16(weights + 2 * (first * width + i)));
        struct strides by = {depth, 1, width, PANEL};
        if (first == 0)
            NAME(blocks)(x, panel, part, out, by, rows, vectors, 0);
        else
            NAME(blocks)(x + first, panel, part, out, by, rows, vectors, 1);
    }
}

/* GELU in its tanh form, as x times a logistic function. */
INLINE vec NAME(tanh_gelu)(vec x)
{
    const vec zero = NAME(set1)(0), one = NAME(set1)(1);
    vec t = (x * x * 0.044715f + 1.0f) * x * 2.302208198f; /* 2 sqrt(2 / pi) log2(e) */
    vec small = NAME(exp2)(NAME(min)(t, zero - t));
    return x * NAME(select)(t < zero, small, one) / (small + 1.0f);
}

/* One panel's products with bias, then the GELU or the residual. */
INLINE void NAME(epilogue)(const struct dense *dense, const float *products, long channel, long c)
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
                        const int fp16_weights)
{
    float *products = work, *wide = work + dense->rows * PANEL;
    if (dense->rows <= MAX_FEW_ROWS)
        NAME(few_rows)(dense->x, dense->depth, weights, products, dense->rows, vectors, fp16_weights);
    else
        NAME(many_rows)(dense->x, dense->depth, weights, products, dense->rows, wide, vectors, fp16_weights);
    for (long c = channel; c < channel + vectors * LANES; c += LANES) NAME(epilogue)(dense, products, channel, c);
}

/* Panels first .. last of the outputs. */
static void NAME(panels)(const struct dense *dense, long first, long last, float *work)
{
    for (long i = first; i < last; i++) {
        long channel = i * PANEL;
        const char *weights = (const char *)dense->weights + channel * dense->depth * (dense->fp16_weights ? 2 : 4);
        int whole = dense->outputs - channel >= PANEL;
        if (dense->fp16_weights)
            whole ? NAME(panel)(dense, weights, channel, work, 2, 1) : NAME(panel)(dense, weights, channel, work, 1, 1);
        else
            whole ? NAME(panel)(dense, weights, channel, work, 2, 0) : NAME(panel)(dense, weights, channel, work, 1, 0);
    }
}

#undef AT_MOST_FEW
#undef MAX_FEW_ROWS
#undef LOAD_FP16
#include "isa_undef.h"
