/* Products of float32 matrices on AMX, whose tiles multiply bfloat16.
 *
 * A float32 number is the sum of two bfloat16 numbers to 2^-17 of it, its upper and its lower part. Of the four products
 * of two such sums the last, of both lower parts, is left out; tiles add the other three in float32. Numbers lie in
 * pairs of tiles: the upper parts of 16 x 32 of them (1 KB), then the lower parts, which is as long as their float32.
 *
 * A left operand's pair holds 16 rows and 32 steps of depth, row by row. A right operand's holds 32 steps and 16
 * columns: two steps of a column lie side by side, so that a row of the tile is 16 columns of two steps.
 *
 * Included by a kernel with NAME and LANES = 16 defined by amx_isa.h, behind vectors.h and tiles.h.
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

/* 32 neighbours at number `at` of the arrays. */
INLINE void NAME(put_split)(struct split to, long at, vec first, vec second)
{
    __m512i upper, lower;
    NAME(split_row)(first, second, &upper, &lower);
    _mm512_storeu_si512(to.upper + at, upper);
    _mm512_storeu_si512(to.lower + at, lower);
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

INLINE long NAME(least)(long a, long b) { return a < b ? a : b; }

/* Left pairs times a panel.
 *
 * left: pairs of the first block's rows, `depth` / 32 of them; the second block's are `next` floats behind
 * right: the panel's pairs, RIGHT_FLOATS for each 32 steps
 * out: see begin_sums
 * ahead: what will be read next, as much as is multiplied here; one of `share` of its lines is fetched meanwhile, since
 *     loads of tiles wait for each line. NULL if nothing is
 */
INLINE void NAME(tile_product)(const float *left, long next, const float *right, long depth, float *out, long by,
                               const float *ahead, long share, const int blocks, int accumulate)
{
    NAME(begin_sums)(out, by, blocks, accumulate);
    for (long k = 0; k < depth; k += TILE_DEPTH, left += PAIR_FLOATS, right += RIGHT_FLOATS) {
        if (ahead != NULL) {
            for (long at = 0; at < RIGHT_FLOATS; at += share * LANES) _mm_prefetch(ahead + at, _MM_HINT_T1);
            ahead += RIGHT_FLOATS;
        }
        NAME(add_steps)(left, left + PAIR_FLOATS / 2, 64, next * sizeof(float), right, blocks);
    }
    NAME(store_sums)(out, by, blocks);
}

/* The same, for numbers of blocks that are not known before. */
__attribute__((unused)) static void NAME(multiply_tiles)(const float *left, long next, const float *right, long depth,
                                                         float *out, long by, const float *ahead, long share,
                                                         long blocks, int accumulate)
{
    if (blocks == 1)
        NAME(tile_product)(left, next, right, depth, out, by, ahead, share, 1, accumulate);
    else
        NAME(tile_product)(left, next, right, depth, out, by, ahead, share, 2, accumulate);
}

/* A dense layer's panels of 32 outputs first .. last, for `count` blocks of 16 rows, two at a time; what becomes of the
 * products of a block is `use`'s. Each two blocks fetch their share of the next panel. */
#define FOR_PRODUCTS(left, depth, count, weights, first_panel, last_panel, use)                                        \
    do {                                                                                                               \
        float products[2 * TILE_ROWS * PANEL] __attribute__((aligned(64)));                                            \
        const long share = ((count) + 1) / 2;                                                                          \
        for (long panel = (first_panel); panel < (last_panel); panel++) {                                              \
            const float *right = (weights) + panel * PANEL * (depth);                                                  \
            for (long i = 0; i < (count); i += 2) {                                                                    \
                const float *ahead = panel + 1 < (last_panel) ? right + PANEL * (depth) + i / 2 * LANES : NULL;        \
                long at_once = NAME(least)((count) - i, 2);                                                            \
                NAME(multiply_tiles)((left) + i * TILE_ROWS * (depth), TILE_ROWS * (depth), right, depth, products,    \
                                     PANEL, ahead, share, at_once, 0);                                                 \
                for (long b = 0; b < at_once; b++) use(panel * PANEL, i + b, products + b * TILE_ROWS * PANEL);        \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

/* One or two times 16 frames of a convolution, times a panel of 32 outputs.
 *
 * at: of the first tap's frames, in numbers; the next tap's are `by` numbers behind
 * right: the panel's pairs; depth is 32 channels, within those each tap
 * is_new: the panel's weights come from memory, and are fetched ahead, since loads of tiles wait for each line
 */
INLINE void NAME(convolution)(struct split in, long at, long by, long taps, long channels, const float *right,
                              float *out, const int blocks, const int is_new)
{
    const long row_bytes = channels * sizeof(uint16_t);
    NAME(begin_sums)(out, PANEL, blocks, 0);
    for (long k = 0; k < channels; k += TILE_DEPTH)
        for (long tap = 0; tap < taps; tap++, right += RIGHT_FLOATS) {
            const long from = at + tap * by + k;
            for (long line = 0; is_new && line < RIGHT_FLOATS; line += LANES)
                _mm_prefetch(right + 4 * RIGHT_FLOATS + line, _MM_HINT_T0);
            NAME(add_steps)(in.upper + from, in.lower + from, row_bytes, TILE_ROWS * row_bytes, right, blocks);
        }
    NAME(store_sums)(out, PANEL, blocks);
}
