/* Products of float32 matrices on AMX, whose tiles multiply bfloat16.
 *
 * A float32 number is the sum of two bfloat16 numbers to 2^-17 of it, its upper and its lower part. Of the four products
 * of two such sums the last, of both lower parts, is left out; tiles add the other three in float32. Numbers lie in
 * pairs of tiles: the upper parts of 16 x 32 of them (1 KB), then the lower parts, which is as long as their float32.
 *
 * A left operand's pair holds 16 rows and 32 steps of depth, row by row. A right operand's holds 32 steps and 16
 * columns: two steps of a column lie side by side, so that a row of the tile is 16 columns of two steps.
 *
 * Included by a kernel with NAME and LANES = 16 defined by amx_isa.h, behind vectors.h.
 */
#define TILE_ROWS 16
#define TILE_DEPTH 32
#define PAIR_FLOATS (TILE_ROWS * TILE_DEPTH)
#define RIGHT_FLOATS (2 * PAIR_FLOATS) /* 32 steps of a panel of 32 columns: the pairs of both halves of its columns */

/* All tiles have 16 rows of 64 bytes. A constant, because the compiler does not know how much of it is read. */
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} NAME(tiles) = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

INLINE void NAME(begin_tiles)(void) { _tile_loadconfig(&NAME(tiles)); }

INLINE void NAME(end_tiles)(void) { _tile_release(); }

INLINE vec NAME(upper_part)(vec x)
{
    __m256i halves = (__m256i)_mm512_cvtneps_pbh((__m512)x);
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
}

/* Splits 32 neighbours into their upper and lower parts, in order. */
INLINE void NAME(split_row)(vec first, vec second, __m512i *upper, __m512i *lower)
{
    *upper = (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first);
    vec first_upper = (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(*upper)), 16);
    vec second_upper = (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(*upper, 1)), 16);
    *lower = (__m512i)_mm512_cvtne2ps_pbh((__m512)(second - second_upper), (__m512)(first - first_upper));
}

/* Row `row` of a left operand's pair, from 32 steps of depth. */
INLINE void NAME(put_left_row)(float *pair, long row, vec first, vec second)
{
    __m512i upper, lower;
    NAME(split_row)(first, second, &upper, &lower);
    _mm512_storeu_si512(pair + row * LANES, upper);
    _mm512_storeu_si512(pair + PAIR_FLOATS / 2 + row * LANES, lower);
}

/* Left pairs of 16 rows x (count, depth), of which those behind the last are zero. */
INLINE void NAME(put_left)(const float *x, long count, long depth, float *pairs)
{
    const vec zero = NAME(set1)(0);
    for (long row = 0; row < TILE_ROWS; row++)
        for (long k = 0; k < depth; k += TILE_DEPTH) {
            vec first = row < count ? NAME(load)(x + row * depth + k) : zero;
            vec second = row < count ? NAME(load)(x + row * depth + k + LANES) : zero;
            NAME(put_left_row)(pairs + k * TILE_ROWS, row, first, second);
        }
}

/* Row `row` of a right operand's pair, 16 columns, from its two steps of depth. */
INLINE void NAME(put_right_row)(float *pair, long row, vec even, vec odd)
{
    vec even_upper = NAME(upper_part)(even), odd_upper = NAME(upper_part)(odd);
    vec even_lower = NAME(upper_part)(even - even_upper), odd_lower = NAME(upper_part)(odd - odd_upper);
    _mm512_storeu_si512(pair + row * LANES,
                        _mm512_or_si512((__m512i)odd_upper, _mm512_srli_epi32((__m512i)even_upper, 16)));
    _mm512_storeu_si512(pair + PAIR_FLOATS / 2 + row * LANES,
                        _mm512_or_si512((__m512i)odd_lower, _mm512_srli_epi32((__m512i)even_lower, 16)));
}

/* Transposes 16 x 16 numbers of 32 bits. */
INLINE void NAME(transpose)(__m512i rows[16])
{
    __m512i to[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        to[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        to[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        rows[i] = _mm512_unpacklo_epi64(to[i], to[i + 2]);
        rows[i + 1] = _mm512_unpackhi_epi64(to[i], to[i + 2]);
        rows[i + 2] = _mm512_unpacklo_epi64(to[i + 1], to[i + 3]);
        rows[i + 3] = _mm512_unpackhi_epi64(to[i + 1], to[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        to[i] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
        to[i + 4] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xdd);
        to[i + 8] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
        to[i + 12] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        rows[i] = _mm512_shuffle_i32x4(to[i], to[i + 8], 0x88);
        rows[i + 8] = _mm512_shuffle_i32x4(to[i], to[i + 8], 0xdd);
        rows[i + 4] = _mm512_shuffle_i32x4(to[i + 4], to[i + 12], 0x88);
        rows[i + 12] = _mm512_shuffle_i32x4(to[i + 4], to[i + 12], 0xdd);
    }
}

/* A right operand's pair from its transpose: 16 columns, each 32 neighbours at `columns` + offset. */
INLINE void NAME(put_right_columns)(float *pair, const float *const columns[TILE_ROWS], long offset)
{
    __m512i upper[TILE_ROWS], lower[TILE_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; i++)
        NAME(split_row)(NAME(load)(columns[i] + offset), NAME(load)(columns[i] + offset + LANES), upper + i, lower + i);
    NAME(transpose)(upper);
    NAME(transpose)(lower);
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; i++) {
        _mm512_storeu_si512(pair + i * LANES, upper[i]);
        _mm512_storeu_si512(pair + PAIR_FLOATS / 2 + i * LANES, lower[i]);
    }
}

/* One or two blocks of 16 rows are multiplied by panels of 32 columns. Their sums stay in tiles 0 to 3, a block's two
 * side by side, and are zero at first, or the numbers at `out`: rows of 32 floats, `by` floats from one to the next. */
INLINE void NAME(begin_sums)(const float *out, long by, const int blocks, const int accumulate)
{
    __asm__ volatile("" ::: "memory"); /* the compiler does not know that tiles are loaded from memory */
    if (accumulate) {
        _tile_loadd(0, out, 4 * by);
        _tile_loadd(1, out + LANES, 4 * by);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    if (blocks == 2 && accumulate) {
        _tile_loadd(2, out + TILE_ROWS * by, 4 * by);
        _tile_loadd(3, out + TILE_ROWS * by + LANES, 4 * by);
    } else if (blocks == 2) {
        _tile_zero(2);
        _tile_zero(3);
    }
}

INLINE void NAME(store_sums)(float *out, long by, const int blocks)
{
    _tile_stored(0, out, 4 * by);
    _tile_stored(1, out + LANES, 4 * by);
    if (blocks == 2) {
        _tile_stored(2, out + TILE_ROWS * by, 4 * by);
        _tile_stored(3, out + TILE_ROWS * by + LANES, 4 * by);
    }
}

/* Adds 32 steps of depth to the sums.
 *
 * upper, lower: the parts of the first block's rows, `by` bytes from one to the next; the second block's are `next`
 *     bytes behind
 * right: the panel's pairs for these steps
 */
INLINE void NAME(add_steps)(const void *upper, const void *lower, long by, long next, const float *right,
                            const int blocks)
{
    const float *right_lower = right + PAIR_FLOATS / 2;
    _tile_loadd(4, upper, by);
    _tile_loadd(6, right_lower, 64);
    _tile_loadd(7, right_lower + PAIR_FLOATS, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (blocks == 2) {
        _tile_loadd(5, (const char *)upper + next, by);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_loadd(6, right, 64);
    _tile_loadd(7, right + PAIR_FLOATS, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (blocks == 2) {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_loadd(4, lower, by);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (blocks == 2) {
        _tile_loadd(5, (const char *)lower + next, by);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}
