/* The arithmetic of draws for one instruction set: one row.
 *
 * Compiled once for each instruction set by multi_isa.h.
 */
#include "vectors.h"

#define WIDE (LANES / 2) /* float64 in a vector */
#define dvec NAME(dvec)
#define lbits NAME(lbits)
#define hvec NAME(hvec)
typedef double dvec __attribute__((vector_size(4 * LANES), aligned(8)));
typedef int64_t lbits __attribute__((vector_size(4 * LANES), aligned(8)));
typedef float hvec __attribute__((vector_size(2 * LANES), aligned(4)));

INLINE dvec NAME(loadd)(const double *from) { return *(const dvec *)from; }
INLINE void NAME(stored)(double *to, dvec value) { *(dvec *)to = value; }
INLINE dvec NAME(widened)(const float *from) { return __builtin_convertvector(*(const hvec *)from, dvec); }
INLINE dvec NAME(setd)(double value) { return value - (dvec){0}; }
INLINE dvec NAME(selectd)(lbits mask, dvec a, dvec b) { return (dvec)(((lbits)a & mask) | ((lbits)b & ~mask)); }

/* e^x for x <= 0, to about one unit in the last place; 0 from -708 on. */
INLINE dvec NAME(expd)(dvec x)
{
    const double rounding = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer, in the lowest bits */
    const lbits gone = x <= -708.0;
    x = NAME(selectd)(gone, NAME(setd)(-708.0), x);
    dvec shifted = x * 1.4426950408889634 + rounding;
    dvec n = shifted - rounding;
    dvec f = x - n * 6.93147180369123816490e-01; /* ln 2 in two parts, the first short enough for an exact product */
    f = f - n * 1.90821492927058770002e-10;
    /* Taylor's series of (e^f - 1 - f) / f^2 to f^11, for |f| <= ln 2 / 2 */
    dvec series = f * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
    series = series * f + 1.0 / 39916800.0;
    series = series * f + 1.0 / 3628800.0;
    series = series * f + 1.0 / 362880.0;
    series = series * f + 1.0 / 40320.0;
    series = series * f + 1.0 / 5040.0;
    series = series * f + 1.0 / 720.0;
    series = series * f + 1.0 / 120.0;
    series = series * f + 1.0 / 24.0;
    series = series * f + 1.0 / 6.0;
    series = series * f + 0.5;
    dvec power = (f * f) * series + f + 1.0;
    power = (dvec)((lbits)power + (((lbits)shifted - 0x4338000000000000) << 52));
    return NAME(selectd)(gone, NAME(setd)(0), power);
}

/* e^(score - greatest) of each score, which none exceeds. Reads and writes whole vectors, so some behind the last. */
INLINE void NAME(shares)(const float *scores, long count, float greatest, double *shares)
{
    for (long i = 0; i < count; i += WIDE)
        NAME(stored)(shares + i, NAME(expd)(NAME(widened)(scores + i) - (double)greatest));
}

/* The greatest and the least of the scores. */
INLINE void NAME(range)(const float *scores, long count, float *least, float *greatest)
{
    vec low = NAME(set1)(scores[0]), high = low;
    long i = 0;
    for (; i + LANES <= count; i += LANES) {
        vec x = NAME(load)(scores + i);
        low = NAME(min)(low, x), high = NAME(max)(high, x);
    }
    float lows[LANES], highs[LANES];
    NAME(store)(lows, low), NAME(store)(highs, high);
    *least = lows[0], *greatest = highs[0];
    for (int lane = 1; lane < LANES; lane++) {
        *least = lows[lane] < *least ? lows[lane] : *least;
        *greatest = highs[lane] > *greatest ? highs[lane] : *greatest;
    }
    for (; i < count; i++) {
        *least = scores[i] < *least ? scores[i] : *least;
        *greatest = scores[i] > *greatest ? scores[i] : *greatest;
    }
}

/* How many scores are at least this. */
INLINE long NAME(count_from)(const float *scores, long count, float border)
{
    bits sums = {0};
    long i = 0, total = 0;
    for (; i + LANES <= count; i += LANES) sums -= NAME(load)(scores + i) >= NAME(set1)(border);
    for (int lane = 0; lane < LANES; lane++) total += sums[lane];
    for (; i < count; i++) total += scores[i] >= border;
    return total;
}

/* The sum of the shares whose score is at most this. */
INLINE double NAME(mass_to)(const float *scores, const double *shares, long count, float border)
{
    dvec sums = NAME(setd)(0);
    double total = 0;
    long i = 0;
    for (; i + WIDE <= count; i += WIDE) {
        const lbits counted = NAME(widened)(scores + i) <= (double)border;
        sums += NAME(selectd)(counted, NAME(loadd)(shares + i), NAME(setd)(0));
    }
    for (int lane = 0; lane < WIDE; lane++) total += sums[lane];
    for (; i < count; i++) total += scores[i] <= border ? shares[i] : 0;
    return total;
}

/* Half way between two floats; not between them if no float is. */
INLINE float NAME(middle)(float low, float high) { return (float)(0.5 * ((double)low + high)); }

/* The k-th greatest score, of more than k. */
INLINE float NAME(kth)(const float *scores, long count, long k)
{
    float low, high;
    NAME(range)(scores, count, &low, &high);
    if (NAME(count_from)(scores, count, high) >= k) return high;
    for (;;) { /* at least k scores are from `low` on, fewer than k from `high` on */
        const float middle = NAME(middle)(low, high);
        if (!(low < middle && middle < high)) return low;
        if (NAME(count_from)(scores, count, middle) >= k)
            low = middle;
        else
            high = middle;
    }
}

/* The lowest score that top-p keeps: the scores up to it have more than the mass to cut. The greatest is always kept. */
INLINE float NAME(lowest_kept)(const float *scores, double *shares, long count, double cut_mass)
{
    float low, high;
    NAME(range)(scores, count, &low, &high);
    NAME(shares)(scores, count, high, shares);
    const double cut = cut_mass * NAME(mass_to)(scores, shares, count, high);
    if (NAME(mass_to)(scores, shares, count, low) > cut) return low;
    for (;;) { /* the scores up to `low` are cut, those up to `high` are more than that */
        const float middle = NAME(middle)(low, high);
        if (!(low < middle && middle < high)) return high;
        if (NAME(mass_to)(scores, shares, count, middle) > cut)
            high = middle;
        else
            low = middle;
    }
}

/* Keeps the scores from the border on, in order. */
INLINE void NAME(keep_from)(struct left *left, double border)
{
    long kept = 0;
    for (long i = 0; i < left->count; i++) {
        const float score = left->scores[i];
        left->tokens[kept] = left->tokens[i], left->scores[kept] = score;
        kept += score >= border;
    }
    left->count = kept;
}

/* Rules out what top-k and top-p do. Scores equal to the lowest that is kept are kept too. */
INLINE void NAME(cut)(struct left *left, const struct draw *draw)
{
    const long k = draw->top_k < left->count ? draw->top_k : left->count;
    const float *candidates = left->scores;
    float border = -INFINITY;
    if (k < left->count) {
        border = NAME(kth)(left->scores, left->count, k);
        if (draw->cut_mass >= 0) {
            long n = 0;
            for (long i = 0; i < left->count; i++) {
                left->candidates[n] = left->scores[i];
                n += left->scores[i] > border;
            }
            while (n < k) left->candidates[n++] = border; /* of scores equal to it, only as many as top-k has room for */
            candidates = left->candidates;
        }
    }
    if (draw->cut_mass >= 0) border = NAME(lowest_kept)(candidates, left->shares, k, draw->cut_mass);
    if (border > -INFINITY) NAME(keep_from)(left, border);
}

INLINE float NAME(penalised)(float score, int seen, float penalty)
{
    return !seen ? score : score < 0 ? score * penalty : score / penalty;
}

/* Logits to the scores that are left. */
INLINE void NAME(process)(const struct draws *draws, const struct draw *draw, struct left *left)
{
    const long vocab = draws->vocab;
    const float *logits = draw->logits, temperature = draw->temperature, penalty = draw->penalty;
    for (int32_t i = 0; i < vocab; i++) left->tokens[i] = i;
    if (draws->guided) {
        for (long i = 0; i < vocab; i++)
            left->scores[i] = NAME(penalised)(logits[i], draw->seen[i], penalty) / temperature;
        if (draw->log_min_p > -INFINITY) {
            float least, greatest;
            NAME(range)(left->scores, vocab, &least, &greatest);
            NAME(keep_from)(left, greatest + draw->log_min_p);
        }
        NAME(cut)(left, draw);
        return;
    }
    for (long i = 0; i < vocab; i++) left->scores[i] = logits[i] / temperature;
    NAME(cut)(left, draw);
    for (long i = 0; i < left->count; i++)
        left->scores[i] = NAME(penalised)(left->scores[i], draw->seen[left->tokens[i]], penalty);
}

/* The token whose interval of cumulated shares holds the number, or the first of the likeliest. */
INLINE int64_t NAME(chosen)(struct left *left, const struct draw *draw)
{
    float least, greatest;
    NAME(range)(left->scores, left->count, &least, &greatest);
    long first = 0, stop = left->count - 1;
    if (draw->greedy) {
        while (first < stop && left->scores[first] != greatest) first++;
        return left->tokens[first];
    }
    NAME(shares)(left->scores, left->count, greatest, left->shares);
    double sum = 0;
    for (long i = 0; i < left->count; i++) left->shares[i] = sum += left->shares[i];
    const double target = draw->number * sum;
    while (first < stop) { /* the first whose sum is above the target is in [first, stop] */
        const long middle = (first + stop) / 2;
        if (left->shares[middle] > target)
            stop = middle;
        else
            first = middle + 1;
    }
    return left->tokens[first];
}

INLINE int NAME(finite)(const float *logits, long count)
{
    bits all = ~(bits){0};
    long i = 0;
    int finite = 1;
    for (; i + LANES <= count; i += LANES) {
        vec x = NAME(load)(logits + i);
        all &= (x >= -FLT_MAX) & (x <= FLT_MAX);
    }
    for (int lane = 0; lane < LANES; lane++) finite &= all[lane] != 0;
    for (; i < count; i++) finite &= isfinite(logits[i]) != 0;
    return finite;
}

/* Draws a row's token and adds it to what was seen. */
static void NAME(row)(const struct draws *draws, struct draw *draw, void *work)
{
    draw->token = -1;
    if (!NAME(finite)(draw->logits, draws->vocab)) return;
    if (draw->first) {
        memset(draw->seen, 0, draws->vocab);
        draw->seen[draws->start_mark] = 1;
    }
    struct left left = left_in(work, draws->vocab);
    NAME(process)(draws, draw, &left);
    draw->token = NAME(chosen)(&left, draw);
    if (draw->first && !draws->guided) draw->seen[draws->start_mark] = 0;
    draw->seen[draw->token] = 1;
}
#undef WIDE
#undef dvec
#undef lbits
#undef hvec

#include "isa_undef.h"
