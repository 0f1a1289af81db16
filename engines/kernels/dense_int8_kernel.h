/* The arithmetic of a dense layer with 8-bit weights for one instruction set: its rows as integers, and some of its
 * outputs for all rows.
 *
 * Compiled once for each instruction set by multi_isa.h; VNNI is 1 where four products of 8 bits are one instruction.
 * A block's sum is an exact integer, so every set gives the same.
 */
#include "vectors.h"
#include "dense_epilogue.h"

#define AT_ONCE (LANES == 16 ? 4 : 2) /* rows whose sums fit the registers */

/* To the nearest integers, to even ones from the middle. */
INLINE void NAME(round)(vec x, int *to)
{
#if LANES == 16
    _mm512_storeu_si512(to, _mm512_cvtps_epi32((__m512)x));
#elif LANES == 8
    _mm256_storeu_si256((__m256i *)to, _mm256_cvtps_epi32((__m256)x));
#else
    for (int lane = 0; lane < LANES; lane++) to[lane] = (int)lrintf(x[lane]);
#endif
}

/* Eight bytes of a row's group of four numbers, as the products below take them. */
INLINE void NAME(pack)(const int *q, int *pair)
{
#if VNNI
    signed char *high = (signed char *)pair, *low = high + 4;
    for (int i = 0; i < 4; i++) {
        high[i] = (signed char)((q[i] + 128) >> 8);
        low[i] = (signed char)q[i];
    }
#else
    short *even = (short *)pair, *odd = even + 2;
    for (int i = 0; i < 2; i++) {
        even[i] = (short)q[2 * i];
        odd[i] = (short)q[2 * i + 1];
    }
#endif
}

/* BLOCK numbers of a row as integers of their largest. NaN and infinity make its scale NaN. */
INLINE void NAME(quantise)(const float *x, struct numbers *block)
{
    vec most = NAME(set1)(0), nothing_each = NAME(set1)(0);
    for (int i = 0; i < BLOCK; i += LANES) {
        vec value = NAME(load)(x + i);
        most = NAME(max)(most, NAME(max)(value, NAME(set1)(0) - value));
        nothing_each += value * 0.0f;
    }
    float largest = 0, nothing = 0;
    for (int lane = 0; lane < LANES; lane++) {
        largest = most[lane] > largest ? most[lane] : largest;
        nothing += nothing_each[lane];
    }
    int q[BLOCK] = {0}, sum = 0;
    float inverse = nothing == 0 && largest > SMALLEST ? LARGEST_NUMBER / largest : 0;
    for (int i = 0; i < BLOCK && inverse != 0; i += LANES) NAME(round)(NAME(load)(x + i) * inverse, q + i);
    for (int i = 0; i < BLOCK; i++) sum += q[i];
    for (int i = 0; i < GROUPS; i++) NAME(pack)(q + 4 * i, block->pairs[i]);
    block->sum = sum;
    block->scale = inverse == 0 ? nothing : largest / LARGEST_NUMBER + nothing;
}

/* Blocks first .. last of all rows. */
static void NAME(quantise_blocks)(const struct dense *dense, struct numbers *rows, long first, long last)
{
    long blocks = blocks_of(dense->depth);
    for (long i = first; i < last; i++) {
        long row = i / blocks, k = i % blocks * BLOCK, some = dense->depth - k;
        const float *x = dense->x + row * dense->depth + k;
        float part[BLOCK] = {0};
        if (some < BLOCK) x = memcpy(part, x, some * sizeof *part);
        NAME(quantise)(x, rows + i);
    }
}

/* A group of four numbers of a row times LANES weights each, added to `sums`. */
#if VNNI && LANES == 16
#define DOT(sums, weights, numbers) \
    ((bits)_mm512_dpbusd_epi32((__m512i)(sums), (__m512i)(weights), _mm512_set1_epi32(numbers)))
#elif VNNI
#define DOT(sums, weights, numbers) \
    ((bits)_mm256_dpbusd_avx_epi32((__m256i)(sums), (__m256i)(weights), _mm256_set1_epi32(numbers)))
#elif LANES == 16
#define MADD(weights, pair) ((bits)_mm512_madd_epi16((__m512i)(weights), _mm512_set1_epi32(pair)))
#define ODD(weights) ((bits)_mm512_srai_epi16((__m512i)(weights), 8))
#define EVEN(weights) ODD(_mm512_slli_epi16((__m512i)(weights), 8))
#elif LANES == 8
#define MADD(weights, pair) ((bits)_mm256_madd_epi16((__m256i)(weights), _mm256_set1_epi32(pair)))
#define ODD(weights) ((bits)_mm256_srai_epi16((__m256i)(weights), 8))
#define EVEN(weights) ODD(_mm256_slli_epi16((__m256i)(weights), 8))
#endif

/* Scales are the upper halves of floats. */
#if LANES == 16
#define LOAD_UINT16(from) ((bits)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(from))))
#elif LANES == 8
#define LOAD_UINT16(from) ((bits)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(from))))
#else
typedef unsigned short NAME(halves) __attribute__((vector_size(2 * LANES), aligned(2)));
#define LOAD_UINT16(from) __builtin_convertvector(*(const NAME(halves) *)(from), bits)
#endif

INLINE bits NAME(integers)(int value) { return value - (bits){0}; }

/* The sums of one block: `rows` rows times `vectors` vectors of outputs. */
INLINE void NAME(block_sums)(const struct numbers *const *numbers, const char *weights, bits sums[][2], const int rows,
                             const int vectors)
{
#if VNNI
    bits high[AT_ONCE][2]; /* the instruction takes weights from 0 on: 128 is added, and its products taken away */
#endif
#pragma GCC unroll 4
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
#if VNNI
            high[row][v] = NAME(integers)(0);
            sums[row][v] = NAME(integers)(-128 * numbers[row]->sum);
#else
            sums[row][v] = NAME(integers)(0);
#endif
        }
    for (int group = 0; group < GROUPS; group++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++, weights += 4 * LANES) {
            bits four = *(const bits *)weights;
#if VNNI
            four ^= NAME(integers)((int)0x80808080);
#elif LANES > 4
            bits even = EVEN(four), odd = ODD(four);
#else
            bits each[] = {four << 24 >> 24, four << 16 >> 24, four << 8 >> 24, four >> 24};
#endif
#pragma GCC unroll 4
            for (int row = 0; row < rows; row++) {
                const int *pair = numbers[row]->pairs[group];
#if VNNI
                high[row][v] = DOT(high[row][v], four, pair[0]);
                sums[row][v] = DOT(sums[row][v], four, pair[1]);
#elif LANES > 4
                sums[row][v] += MADD(even, pair[0]) + MADD(odd, pair[1]);
#else
                const short *q = (const short *)pair;
                sums[row][v] += each[0] * q[0] + each[1] * q[2] + each[2] * q[1] + each[3] * q[3];
#endif
            }
        }
#if VNNI
#pragma GCC unroll 4
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sums[row][v] += high[row][v] << 8;
#endif
}

/* A panel's products with some rows. */
INLINE void NAME(rows_times_panel)(const struct numbers *rows_numbers, long blocks, const char *weights, float *out,
                                   const int rows, const int vectors)
{
    vec totals[AT_ONCE][2];
#pragma GCC unroll 4
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) totals[row][v] = NAME(set1)(0);
    for (long block = 0; block < blocks; block++, weights += BLOCK_BYTES(vectors * LANES)) {
        const struct numbers *numbers[AT_ONCE];
        bits sums[AT_ONCE][2];
#pragma GCC unroll 4
        for (int row = 0; row < rows; row++) numbers[row] = rows_numbers + row * blocks + block;
        NAME(block_sums)(numbers, weights + 2 * vectors * LANES, sums, rows, vectors);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            vec scales = (vec)(LOAD_UINT16(weights + 2 * v * LANES) << 16);
#pragma GCC unroll 4
            for (int row = 0; row < rows; row++)
                totals[row][v] += __builtin_convertvector(sums[row][v], vec) * (scales * numbers[row]->scale);
        }
    }
#pragma GCC unroll 4
    for (int row = 0; row < rows; row++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) NAME(store)(out + row * PANEL + v * LANES, totals[row][v]);
}

#define CASE(n) case n: NAME(rows_times_panel)(some, blocks, weights, to, n <= AT_ONCE ? n : 1, vectors); break;
INLINE void NAME(panel)(const struct dense *dense, const struct numbers *numbers, const char *weights, long channel,
                        float *products, const int vectors)
{
    long blocks = blocks_of(dense->depth);
    for (long row = 0; row < dense->rows; row += AT_ONCE) {
        const struct numbers *some = numbers + row * blocks;
        float *to = products + row * PANEL;
        switch (dense->rows - row < AT_ONCE ? dense->rows - row : AT_ONCE) { CASE(1) CASE(2) CASE(3) CASE(4) }
    }
    for (long c = channel; c < channel + vectors * LANES; c += LANES) NAME(epilogue)(dense, products, channel, c);
}
#undef CASE

/* Panels first .. last of the outputs. */
static void NAME(panels)(const struct dense *dense, const struct numbers *numbers, long first, long last,
                         float *products)
{
    for (long channel = first * PANEL; channel < last * PANEL && channel < dense->outputs; channel += PANEL) {
        const char *weights = (const char *)dense->weights + channel * blocks_of(dense->depth) * BLOCK_BYTES(1);
        if (dense->outputs - channel >= PANEL)
            NAME(panel)(dense, numbers, weights, channel, products, 2);
        else
            NAME(panel)(dense, numbers, weights, channel, products, 1);
    }
}

#undef AT_ONCE
#undef DOT
#undef MADD
#undef ODD
#undef EVEN
#undef LOAD_UINT16
#include "isa_undef.h"
