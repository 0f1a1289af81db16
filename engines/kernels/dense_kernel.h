/* The arithmetic of a dense layer for one instruction set: some of its outputs, for all rows.
 *
 * Compiled once for each instruction set by multi_isa.h. Weights are float32, or float16 on sets that convert them as
 * fast as they can be read. Arithmetic is float32.
 */
#include "vectors.h"
#include "dense_epilogue.h"

/* One vector of weights as float32. */
INLINE vec NAME(widened)(const char *from, const int precision)
{
    return precision == FLOAT16 ? LOAD_FP16(from) : NAME(load)((const float *)from);
}

/* The bytes of a weight. */
INLINE long NAME(bytes)(const int precision) { return precision == FLOAT32 ? 4 : 2; }

/* Few rows: each weight is used once, as it comes from memory. */
INLINE void NAME(stream_weights)(const float *x, long depth, const char *weights, float *out, const int rows,
                                 const int vectors, const int precision)
{
    const long bytes = NAME(bytes)(precision);
    vec sums[ROWS][2];
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sums[row][v] = NAME(set1)(0);
    for (long k = 0; k < depth; k++, weights += vectors * LANES * bytes) {
        vec right[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) right[v] = NAME(widened)(weights + v * LANES * bytes, precision);
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
#define CASE(n) case n: NAME(stream_weights)(x, depth, weights, out, AT_MOST_FEW(n), vectors, precision); break;
INLINE void NAME(few_rows)(const float *x, long depth, const char *weights, float *out, long rows, const int vectors,
                           const int precision)
{
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
}
#undef CASE

/* Many rows: a part of the panel, small enough for the L1 cache, is converted to float32 once for all of them. */
INLINE void NAME(many_rows)(const float *x, long depth, const char *weights, float *out, long rows, float *wide,
                            const int vectors, const int precision)
{
    const long width = vectors * LANES;
    for (long first = 0; first < depth; first += DEPTH_AT_ONCE) {
        long part = depth - first < DEPTH_AT_ONCE ? depth - first : DEPTH_AT_ONCE;
        const char *here = weights + first * width * NAME(bytes)(precision);
        const float *panel = precision == FLOAT32 ? (const float *)here : wide;
        if (precision == FLOAT16)
            for (long i = 0; i < part * width; i += LANES)
                NAME(store)(wide + i, NAME(widened)(here + 2 * i, precision));
        struct strides by = {depth, 1, width, PANEL};
        if (first == 0)
            NAME(blocks)(x, panel, part, out, by, rows, vectors, 0);
        else
            NAME(blocks)(x + first, panel, part, out, by, rows, vectors, 1);
    }
}

INLINE void NAME(panel)(const struct dense *dense, const char *weights, long channel, float *work, const int vectors,
                        const int precision)
{
    float *products = work, *wide = work + dense->rows * PANEL;
    if (dense->rows <= MAX_FEW_ROWS)
        NAME(few_rows)(dense->x, dense->depth, weights, products, dense->rows, vectors, precision);
    else
        NAME(many_rows)(dense->x, dense->depth, weights, products, dense->rows, wide, vectors, precision);
    for (long c = channel; c < channel + vectors * LANES; c += LANES) NAME(epilogue)(dense, products, channel, c);
}

INLINE void NAME(panels_of)(const struct dense *dense, long first, long last, float *work, const int precision)
{
    for (long i = first; i < last; i++) {
        long channel = i * PANEL;
        const char *weights = (const char *)dense->weights + channel * dense->depth * NAME(bytes)(precision);
        if (dense->outputs - channel >= PANEL)
            NAME(panel)(dense, weights, channel, work, 2, precision);
        else
            NAME(panel)(dense, weights, channel, work, 1, precision);
    }
}

/* Panels first .. last of the outputs. */
static void NAME(panels)(const struct dense *dense, long first, long last, float *work)
{
    if (dense->precision == FLOAT32)
        NAME(panels_of)(dense, first, last, work, FLOAT32);
    else
        NAME(panels_of)(dense, first, last, work, FLOAT16);
}

#undef AT_MOST_FEW
#undef MAX_FEW_ROWS
#include "isa_undef.h"
