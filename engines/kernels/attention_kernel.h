/* The arithmetic of attention for one instruction set: one head of the sequences that share a prefix.
 *
 * Compiled once for each instruction set by multi_isa.h. `vectors` vectors make a head's dimension.
 */
#include "vectors.h"

#define EVENS NAME(evens)
#define ODDS NAME(odds)
#if LANES == 16
static const bits EVENS = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
static const bits ODDS = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
#elif LANES == 8
static const bits EVENS = {0, 2, 4, 6, 8, 10, 12, 14}, ODDS = {1, 3, 5, 7, 9, 11, 13, 15};
#else
static const bits EVENS = {0, 2, 4, 6}, ODDS = {1, 3, 5, 7};
#endif

/* A vector of keys or values, `i` numbers behind the start of a cache, as it is kept. */
#if LANES == 16
#define STORE_FP16(to, x) \
    _mm256_storeu_si256((__m256i *)(to), _mm512_cvtps_ph((__m512)(x), _MM_FROUND_TO_NEAREST_INT))
#elif LANES == 8
#define STORE_FP16(to, x) _mm_storeu_si128((__m128i *)(to), _mm256_cvtps_ph((__m256)(x), _MM_FROUND_TO_NEAREST_INT))
#else
#define STORE_FP16(to, x) NAME(store)((float *)(to), x)
#endif
INLINE vec NAME(held)(const void *cache, long i, const int half)
{
    return half ? LOAD_FP16((const uint16_t *)cache + i) : NAME(load)((const float *)cache + i);
}

/* A head's key or value, to `i` numbers behind the start of a cache. What float16 has no number for becomes its
 * largest. */
INLINE void NAME(hold)(const float *x, void *cache, long i, const int half, const int vectors)
{
    const vec most = NAME(set1)(65504.0f), least = NAME(set1)(0) - most;
    for (int v = 0; v < vectors; v++, x += LANES, i += LANES) {
        vec value = NAME(load)(x), within = NAME(max)(NAME(min)(value, most), least);
        if (half)
            STORE_FP16((uint16_t *)cache + i, NAME(select)(value != value, value, within));
        else
            NAME(store)((float *)cache + i, value);
    }
}

/* The sums of LANES vectors, each in a lane: neighbours are added until one number of each vector is left. */
INLINE vec NAME(totals)(vec *values)
{
#pragma GCC unroll 4
    for (int count = LANES / 2; count > 0; count /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < count; i++)
            values[i] = __builtin_shuffle(values[2 * i], values[2 * i + 1], EVENS)
                      + __builtin_shuffle(values[2 * i], values[2 * i + 1], ODDS);
    return values[0];
}

/* The products of a query with the keys of LANES positions, of which `count` are there. */
INLINE vec NAME(score)(const vec *query, const void *keys, long begin, long count, const int half, const int vectors)
{
    vec sums[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) {
        const long key = begin + (i < count ? i : 0) * vectors * LANES;
        sums[i] = query[0] * NAME(held)(keys, key, half);
#pragma GCC unroll 16
        for (int v = 1; v < vectors; v++) sums[i] += query[v] * NAME(held)(keys, key + v * LANES, half);
    }
    return NAME(totals)(sums);
}

/* The products of a query with the keys [first, last), which start `begin` numbers behind that of a cache. `scores` has
 * room for a whole last vector. */
INLINE void NAME(scores)(const float *query, const void *keys, long begin, long first, long last, float *scores,
                         const int half, const int vectors)
{
    vec q[MAX_VECTORS];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v++) q[v] = NAME(load)(query + v * LANES);
    long p = first;
    for (; p + LANES <= last; p += LANES)
        NAME(store)(scores + p, NAME(score)(q, keys, begin + p * vectors * LANES, LANES, half, vectors));
    if (p < last) NAME(store)(scores + p, NAME(score)(q, keys, begin + p * vectors * LANES, last - p, half, vectors));
}

/* Values are added in this many sums by turns, so that an addition need not wait for the one before it. */
#define TURNS (vectors <= 4 ? 4 : vectors <= 8 ? 2 : 1)

/* Adds the values [first, last), each times its weight, to `sums` (TURNS, dim). */
INLINE void NAME(mix)(const float *weights, const void *values, long begin, long first, long last, float *sums,
                      const int half, const int vectors)
{
    const long dim = vectors * LANES;
    vec turn[4][MAX_VECTORS];
    for (int t = 0; t < TURNS; t++)
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++) turn[t][v] = NAME(load)(sums + t * dim + v * LANES);
    for (long start = first - first % TURNS; start < last; start += TURNS)
        for (int t = 0; t < TURNS; t++) {
            const long p = start + t;
            if (p < first || p >= last) continue;
            vec weight = NAME(set1)(weights[p]);
#pragma GCC unroll 16
            for (int v = 0; v < vectors; v++) turn[t][v] += weight * NAME(held)(values, begin + p * dim + v * LANES, half);
        }
    for (int t = 0; t < TURNS; t++)
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++) NAME(store)(sums + t * dim + v * LANES, turn[t][v]);
}

/* Scores to powers of two below the greatest; returns their sum. `scores` has room for a whole last vector. */
INLINE float NAME(powers)(float *scores, long count)
{
    float numbers[LANES];
    for (long p = count; p % LANES; p++) scores[p] = -INFINITY;
    vec greatest = NAME(load)(scores), sum = NAME(set1)(0);
    for (long p = LANES; p < count; p += LANES) greatest = NAME(max)(greatest, NAME(load)(scores + p));
    NAME(store)(numbers, greatest);
    for (int i = 1; i < LANES; i++) numbers[0] = numbers[i] > numbers[0] ? numbers[i] : numbers[0];
    greatest = NAME(set1)(numbers[0]);
    for (long p = 0; p < count; p += LANES) {
        vec power = NAME(exp2)(NAME(load)(scores + p) - greatest);
        NAME(store)(scores + p, power);
        sum += power;
    }
    NAME(store)(numbers, sum);
    for (int i = 1; i < LANES; i++) numbers[0] += numbers[i];
    return numbers[0];
}

INLINE void NAME(group_of)(const struct attention *attention, const struct sequence *sequences, long count, long head,
                           float *work, const int half, const int vectors)
{
    const long dim = vectors * LANES, heads = attention->heads, shared = sequences[0].prefix_positions;
    const long pair = attention->layer * 2 * heads + head; /* of a head's keys and values in any cache */
    const void *prefix = sequences[0].prefix;
    const long keys_shared = pair * shared * dim, values_shared = keys_shared + heads * shared * dim;
    /* of each row: its scaled query, TURNS sums of values, its scores */
    const long room = attention->work_floats / attention->group_rows, sums = dim, scores = dim + MAX_TURNS * dim;
    for (long i = 0; i < count; i++) {
        const struct sequence *s = sequences + i;
        const float *qkv = attention->qkv + (s->row * 3 * heads + head) * dim;
        float *row = work + i * room;
        for (long d = 0; d < dim; d++) row[d] = qkv[d] * attention->scale;
        memset(row + sums, 0, TURNS * dim * sizeof(float));
        NAME(hold)(qkv + heads * dim, s->cache, (pair * s->capacity + s->positions) * dim, half, vectors);
        NAME(hold)(qkv + 2 * heads * dim, s->cache, ((pair + heads) * s->capacity + s->positions) * dim, half, vectors);
    }
    for (long first = 0; first < shared; first += TILE)
        for (long i = 0; i < count; i++) {
            float *row = work + i * room;
            NAME(scores)(row, prefix, keys_shared, first, shared - first < TILE ? shared : first + TILE, row + scores,
                         half, vectors);
        }
    for (long i = 0; i < count; i++) {
        const struct sequence *s = sequences + i;
        float *row = work + i * room;
        NAME(scores)(row, s->cache, pair * s->capacity * dim, shared, s->positions + 1, row + scores, half, vectors);
        row[0] = NAME(powers)(row + scores, s->positions + 1); /* in place of the query */
    }
    for (long first = 0; first < shared; first += TILE)
        for (long i = 0; i < count; i++) {
            float *row = work + i * room;
            NAME(mix)(row + scores, prefix, values_shared, first, shared - first < TILE ? shared : first + TILE,
                      row + sums, half, vectors);
        }
    for (long i = 0; i < count; i++) {
        const struct sequence *s = sequences + i;
        float *row = work + i * room, *out = attention->out + (s->row * heads + head) * dim;
        NAME(mix)(row + scores, s->cache, (pair + heads) * s->capacity * dim, shared, s->positions + 1, row + sums,
                  half, vectors);
        for (long d = 0; d < dim; d++) {
            float sum = row[sums + d];
            for (int t = 1; t < TURNS; t++) sum += row[sums + t * dim + d];
            out[d] = sum / row[0];
        }
    }
}

#define CASE(n) case n: NAME(group_of)(attention, sequences, count, head, work, half, n); break;
INLINE void NAME(group_kept)(const struct attention *attention, const struct sequence *sequences, long count, long head,
                             float *work, const int half)
{
    switch (attention->dim / LANES) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(6) CASE(8) CASE(12) CASE(16)
    }
}
#undef CASE

/* One head of `count` sequences that have the same prefix. */
static void NAME(group)(const struct attention *attention, const struct sequence *sequences, long count, long head,
                        float *work)
{
    if (attention->half)
        NAME(group_kept)(attention, sequences, count, head, work, 1);
    else
        NAME(group_kept)(attention, sequences, count, head, work, 0);
}
#undef TURNS
#undef EVENS
#undef ODDS
#undef STORE_FP16

#include "isa_undef.h"
