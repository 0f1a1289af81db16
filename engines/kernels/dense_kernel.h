/* The arithmetic of a dense layer for one instruction set: some of its outputs, for all rows.
 *
 * Compiled once for each instruction set by multi_isa.h. Weights are float32, 8 bits in blocks, or float16 on sets that
 * convert them as fast as they can be read. Arithmetic is float32.
 */
#include "vectors.h"

/* Compilers widen 8-bit vectors in many steps, one half after the other, where x86 has one instruction. */
#if LANES == 16
#define LOAD_FP16(from) ((vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from))))
#define LOAD_INT8(from) ((vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(from)))))
#define LOAD_UINT16(from) ((bits)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(from))))
#elif LANES == 8
#define LOAD_FP16(from) ((vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from))))
#define LOAD_INT8(from) ((vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(from)))))
#define LOAD_UINT16(from) ((bits)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(from))))
#else
#define LOAD_FP16(from) NAME(load)((const float *)(from)) /* never reached: this set has no float16 weights */
typedef signed char NAME(chars) __attribute__((vector_size(LANES), aligned(1)));
typedef unsigned short NAME(halves) __attribute__((vector_size(2 * LANES), aligned(2)));
#define LOAD_INT8(from) __builtin_convertvector(__builtin_convertvector(*(const NAME(chars) *)(from), bits), vec)
#define LOAD_UINT16(from) __builtin_convertvector(*(const NAME(halves) *)(from), bits)
#endif

INLINE vec NAME(load_scale)(const char *from)
{
    return (vec)(LOAD_UINT16(from) << 16);
}

/* One vector of weights as float32. */
INLINE vec NAME(widened)(const char *from, vec scale, const int precision)
{
    if (precision == FLOAT16) return LOAD_FP16(from);
    if (precision == FLOAT32) return NAME(load)((const float *)from);
    return LOAD_INT8(from) * scale;
}

/* The bytes of a weight, without scales. */
INLINE long NAME(bytes)(const int precision) { return precision == FLOAT32 ? 4 : precision == FLOAT16 ? 2 : 1; }

/* The bytes of `depth` steps of a panel, the scales of their blocks included. */
INLINE long NAME(panel_bytes)(long depth, long width, const int precision)
{
    long scales = precision == INT8 ? 2 * ((depth + BLOCK - 1) / BLOCK) : 0;
    return width * (depth * NAME(bytes)(precision) + scales);
}

/* The scales of a block, which stand before it. */
INLINE const char *NAME(scales)(const char *weights, vec *scales, const int vectors, const int precision)
{
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++)
        scales[v] = precision == INT8 ? NAME(load_scale)(weights + 2 * v * LANES) : NAME(set1)(1);
    return precision == INT8 ? weights + 2 * vectors * LANES : weights;
}

/* Few rows: each weight is used once, as it comes from memory. */
INLINE void NAME(stream_weights)(const float *x, long depth, const char *weights, float *out, const int rows,
                                 const int vectors, const int precision)
{
    const long bytes = NAME(bytes)(precision), block = precision == INT8 ? BLOCK : depth;
    vec sums[ROWS][2], scales[2];
#pragma GCC unroll 16
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sums[row][v] = NAME(set1)(0);
    for (long first = 0; first < depth; first += block) {
        long end = depth - first < block ? depth : first + block;
        weights = NAME(scales)(weights, scales, vectors, precision);
        for (long k = first; k < end; k++, weights += vectors * LANES * bytes) {
            vec right[2];
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                right[v] = NAME(widened)(weights + v * LANES * bytes, scales[v], precision);
#pragma GCC unroll 16
            for (int row = 0; row < rows; row++) {
                vec left = NAME(set1)(x[row * depth + k]);
#pragma GCC unroll 2
                for (int v = 0; v < vectors; v++) sums[row][v] += left * right[v];
            }
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

/* `part` steps of a panel as float32. */
INLINE void NAME(widen)(const char *weights, long part, float *wide, const int vectors, const int precision)
{
    const long bytes = NAME(bytes)(precision), block = precision == INT8 ? BLOCK : part;
    vec scales[2];
    for (long first = 0; first < part; first += block) {
        long end = part - first < block ? part : first + block;
        weights = NAME(scales)(weights, scales, vectors, precision);
        for (long k = first; k < end; k++, weights += vectors * LANES * bytes)
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                NAME(store)(wide + (k * vectors + v) * LANES,
                            NAME(widened)(weights + v * LANES * bytes, scales[v], precision));
    }
}

/* Many rows: a part of the panel, small enough for the L1 cache, is converted to float32 once for all of them. */
INLINE void NAME(many_rows)(const float *x, long depth, const char *weights, float *out, long rows, float *wide,
                            const int vectors, const int precision)
{
    const long width = vectors * LANES;
    for (long first = 0; first < depth; first += DEPTH_AT_ONCE) {
        long part = depth - first < DEPTH_AT_ONCE ? depth - first : DEPTH_AT_ONCE;
        const char *here = weights + NAME(panel_bytes)(first, width, precision);
        const float *panel = precision == FLOAT32 ? (const float *)here : wide;
        if (precision != FLOAT32) NAME(widen)(here, part, wide, vectors, precision);
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
        const char *weights = (const char *)dense->weights + i * NAME(panel_bytes)(dense->depth, PANEL, precision);
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
    else if (dense->precision == FLOAT16)
        NAME(panels_of)(dense, first, last, work, FLOAT16);
    else
        NAME(panels_of)(dense, first, last, work, INT8);
}

#undef AT_MOST_FEW
#undef MAX_FEW_ROWS
#undef LOAD_FP16
#undef LOAD_INT8
#undef LOAD_UINT16
#include "isa_undef.h"
