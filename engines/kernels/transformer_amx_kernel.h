/* The arithmetic of transformer blocks on AMX. Channels, head widths and hidden channels are multiples of 32. */
#include "vectors.h"
#include "transformer_math.h"
#include "amx.h"

/* All blocks' frames, normalised, as left pairs in the thread's memory; other pieces of the phase find them there. */
static const float *NAME(normalised)(const struct call *call, long phase, int thread)
{
    long channels = call->dimensions->channels;
    float *pairs = call->work + thread * call->work_floats, *normal = pairs + call->block_count * TILE_ROWS * channels;
    if (call->prepared[thread] == phase) return pairs;
    for (long i = 0; i < call->block_count; i++) {
        const struct block *block = call->blocks + i;
        NAME(normalise)(block->sequence->x + block->first * channels, block->count, channels, normal);
        NAME(put_left)(normal, block->count, channels, pairs + i * TILE_ROWS * channels);
    }
    call->prepared[thread] = phase;
    return pairs;
}

/* The right pair of 16 keys' numbers d .. d + 32; `keys` are pairs of 32 keys, and `position` is among them. */
INLINE float *NAME(key_pair)(float *keys, long head_width, long position, long d)
{
    return keys + position / 32 * 32 * head_width + d * 32 + position % 32 / TILE_ROWS * PAIR_FLOATS;
}

/* 16 keys' values d .. d + 32, which lie at `rows` + offset, in right pairs that have room for `room` keys. */
INLINE void NAME(put_values)(float *values, long room, const float *const *rows, long offset, long position, long d)
{
    float *pair = values + d * room + position / 32 * RIGHT_FLOATS;
    long first = position % 32 / 2; /* two keys in each row */
    for (long half = 0; half < 2; half++)
        for (long i = 0; i < TILE_ROWS; i += 2)
            NAME(put_right_row)(pair + half * PAIR_FLOATS, first + i / 2, NAME(load)(rows[i] + offset + half * LANES),
                                NAME(load)(rows[i + 1] + offset + half * LANES));
}

/* 32 of the queries, keys or values of a block, from `channel` on. */
INLINE void NAME(put_projected)(const struct call *call, long layer, long channel, long index, const float *products)
{
    const struct dimensions *dim = call->dimensions;
    const struct block *block = call->blocks + index;
    const struct sequence *sequence = block->sequence;
    const float *bias = call->layers[layer].qkv_bias + channel;
    long head_width = dim->head_width, width = dim->heads * head_width, kind = channel / width;
    long head = channel % width / head_width, d = channel % head_width;
    float biased[TILE_ROWS][PANEL] __attribute__((aligned(64)));
    const float *rows[TILE_ROWS];
    float *own = kind == 0 || sequence->own_kv == NULL
                     ? NULL
                     : sequence->own_kv + layer * sequence->own_layer_floats + block->first * 2 * width + channel - width;
    for (long i = 0; i < TILE_ROWS; i++) {
        rows[i] = biased[i];
        for (int v = 0; v < 2; v++) {
            vec y = NAME(load)(products + i * PANEL + v * LANES) + NAME(load)(bias + v * LANES);
            NAME(store)(biased[i] + v * LANES, y);
            if (own != NULL && i < block->count) NAME(store)(own + i * 2 * width + v * LANES, y);
        }
    }
    if (kind == 0) {
        float *pair = call->queries + ((head * call->block_count + index) * head_width + d) * TILE_ROWS;
        for (long i = 0; i < TILE_ROWS; i++)
            NAME(put_left_row)(pair, i, NAME(load)(biased[i]), NAME(load)(biased[i] + LANES));
        return;
    }
    float *keys = call->keys + (head * call->key_count + block->key - block->first) * head_width;
    float *values = call->values + (head * call->key_count + block->key - block->first) * head_width;
    /* Behind a last block that is the first half of 32 keys, the other half must be finite: it is a copy. */
    const int is_last = block->first + TILE_ROWS >= sequence->frames;
    const long end = is_last ? block->keys : block->first + TILE_ROWS;
    for (long position = block->first; position < end; position += TILE_ROWS) {
        if (kind == 1)
            NAME(put_right_columns)(NAME(key_pair)(keys, head_width, position, d), rows, 0);
        else
            NAME(put_values)(values, block->keys, rows, 0, position, d);
    }
}

/* Which of 16 keys there are, if there are `count` from the first of them on. */
INLINE __mmask16 NAME(present)(long count) { return count >= TILE_ROWS ? 0xffff : count > 0 ? (1 << count) - 1 : 0; }

/* The highest of a row's scores and of `highest`. */
INLINE float NAME(highest_of)(const float *scores, long keys, float highest)
{
    vec lanes = NAME(set1)(highest);
    for (long key = 0; key < keys; key += LANES)
        lanes = (vec)_mm512_mask_max_ps((__m512)lanes, NAME(present)(keys - key), (__m512)lanes,
                                        _mm512_loadu_ps(scores + key));
    return _mm512_reduce_max_ps((__m512)lanes);
}

/* The weights 2^(score - highest) of a row's keys, as a row of the pairs `weights`, and their sums in the lanes. */
INLINE vec NAME(weigh)(const float *scores, long keys, float highest, float *weights, long row)
{
    vec sums = NAME(set1)(0);
    for (long key = 0; key < keys; key += TILE_DEPTH, weights += PAIR_FLOATS) {
        vec first = NAME(exp2)(NAME(load)(scores + key) - highest);
        vec second = NAME(exp2)(NAME(load)(scores + key + LANES) - highest);
        first = (vec)_mm512_maskz_mov_ps(NAME(present)(keys - key), (__m512)first);
        second = (vec)_mm512_maskz_mov_ps(NAME(present)(keys - key - LANES), (__m512)second);
        sums += first + second;
        NAME(put_left_row)(weights, row, first, second);
    }
    return sums;
}

struct NAME(softmax) { /* of a sequence's queries over the keys so far */
    float *mean; /* (rows, head_width), of values */
    float *highest; /* (rows), of scores */
    float *sums; /* (rows, LANES), of weights */
};

/* One or two blocks of queries over up to KEYS_AT_ONCE keys. What was summed before is brought to the highest score so
 * far. `by`: floats between the values' panels */
static void NAME(attend_to)(const struct NAME(softmax) *state, const float *queries, long blocks, const float *keys,
                            const float *values, long by, long count, long head_width, int is_first)
{
    const long rows = blocks * TILE_ROWS, stride = KEYS_AT_ONCE + LANES; /* a power of two would wear few lines out */
    float scores[2 * TILE_ROWS * (KEYS_AT_ONCE + LANES)] __attribute__((aligned(64)));
    float weights[2 * TILE_ROWS * KEYS_AT_ONCE] __attribute__((aligned(64)));
    float factors[2 * TILE_ROWS];
    for (long key = 0; key < count; key += PANEL)
        NAME(multiply_tiles)(queries, head_width * TILE_ROWS, keys + key * head_width, head_width, scores + key, stride,
                             NULL, 1, blocks, 0);
    const int whole = count == KEYS_AT_ONCE; /* for these the loops are unrolled, without masks */
    for (long row = 0; row < rows; row++) {
        const float *own = scores + row * stride;
        factors[row] = state->highest[row];
        state->highest[row] = whole ? NAME(highest_of)(own, KEYS_AT_ONCE, state->highest[row])
                                    : NAME(highest_of)(own, count, state->highest[row]);
    }
    for (long row = 0; row < rows; row += LANES)
        NAME(store)(factors + row, NAME(exp2)(NAME(load)(factors + row) - NAME(load)(state->highest + row)));
    for (long row = 0; row < rows; row++) {
        float *to = weights + row / TILE_ROWS * KEYS_AT_ONCE * TILE_ROWS;
        const float *own = scores + row * stride;
        vec more = whole ? NAME(weigh)(own, KEYS_AT_ONCE, state->highest[row], to, row % TILE_ROWS)
                         : NAME(weigh)(own, count, state->highest[row], to, row % TILE_ROWS);
        NAME(store)(state->sums + row * LANES, NAME(load)(state->sums + row * LANES) * factors[row] + more);
        for (long d = 0; d < head_width; d += LANES) {
            float *mean = state->mean + row * head_width + d;
            NAME(store)(mean, is_first ? NAME(set1)(0) : NAME(load)(mean) * factors[row]);
        }
    }
    for (long d = 0; d < head_width; d += PANEL)
        NAME(multiply_tiles)(weights, KEYS_AT_ONCE * TILE_ROWS, values + d / PANEL * by, rounded(count, TILE_DEPTH),
                             state->mean + d, head_width, NULL, 1, blocks, 1);
}

/* One head of cached keys first .. first + count and their values, as right pairs. */
static void NAME(gather)(const struct call *call, const struct sequence *sequence, long layer, long head, long first,
                         long count, float *keys, float *values)
{
    const long head_width = call->dimensions->head_width, width = call->dimensions->heads * head_width;
    const struct past *past = sequence->pasts;
    const float *rows[KEYS_AT_ONCE];
    long before = 0, kept = rounded(count, TILE_DEPTH);
    for (long i = 0; i < kept; i++) {
        if (i >= count) {
            rows[i] = rows[i - 1]; /* finite, and weighs nothing */
            continue;
        }
        while (first + i >= before + past->count) before += past++->count;
        rows[i] = past->rows + layer * past->layer_floats + (first + i - before) * 2 * width + head * head_width;
        for (long at = 0; at < head_width; at += LANES) {
            _mm_prefetch(rows[i] + at, _MM_HINT_T0);
            _mm_prefetch(rows[i] + width + at, _MM_HINT_T0);
        }
    }
    for (long i = 0; i < kept; i += TILE_ROWS)
        for (long d = 0; d < head_width; d += TILE_DEPTH) {
            NAME(put_right_columns)(NAME(key_pair)(keys, head_width, i, d), rows + i, d);
            NAME(put_values)(values, KEYS_AT_ONCE, rows + i, width + d, i, d);
        }
}

/* One head of a sequence, whose blocks begin with `first_block`: softmax over all keys, then the mean of values. */
static void NAME(attend)(const struct call *call, const struct sequence *sequence, long first_block, long layer,
                         long head, float *work)
{
    const long head_width = call->dimensions->head_width, width = call->dimensions->heads * head_width;
    const long blocks = rounded(sequence->frames, TILE_ROWS) / TILE_ROWS, rows = blocks * TILE_ROWS;
    const struct block *block = call->blocks + first_block;
    const float *queries = call->queries + (head * call->block_count + first_block) * head_width * TILE_ROWS;
    float *past_keys = work, *past_values = past_keys + KEYS_AT_ONCE * head_width;
    float *mean = past_values + KEYS_AT_ONCE * head_width, *sums = mean + rows * head_width;
    float *highest = sums + rows * LANES;
    long past = 0;
    for (long i = 0; i < sequence->past_count; i++) past += sequence->pasts[i].count;
    for (long row = 0; row < rows; row++) {
        highest[row] = -INFINITY;
        NAME(store)(sums + row * LANES, NAME(set1)(0));
    }
    for (long first = 0; first < past + sequence->frames;) {
        const int cached = first < past;
        long count = NAME(least)((cached ? past : past + sequence->frames) - first, KEYS_AT_ONCE);
        long own = (head * call->key_count + block->key) * head_width, by = (cached ? KEYS_AT_ONCE : block->keys) * PANEL;
        const float *keys = cached ? past_keys : call->keys + own + (first - past) * head_width;
        const float *values = cached ? past_values : call->values + own + (first - past) * PANEL;
        if (cached) NAME(gather)(call, sequence, layer, head, first, count, past_keys, past_values);
        for (long i = 0; i < blocks; i += 2) {
            struct NAME(softmax) state = {mean + i * TILE_ROWS * head_width, highest + i * TILE_ROWS,
                                          sums + i * TILE_ROWS * LANES};
            NAME(attend_to)(&state, queries + i * TILE_ROWS * head_width, NAME(least)(blocks - i, 2), keys, values, by,
                            count, head_width, first == 0);
        }
        first += count;
    }
    for (long row = 0; row < rows; row++) {
        float inverse = 1 / NAME(hsum)(NAME(load)(sums + row * LANES));
        float *out = call->attended + ((first_block + row / TILE_ROWS) * width + head * head_width) * TILE_ROWS;
        for (long d = 0; d < head_width; d += PANEL) {
            const float *from = mean + row * head_width + d;
            NAME(put_left_row)(out + d * TILE_ROWS, row % TILE_ROWS, NAME(load)(from) * inverse,
                               NAME(load)(from + LANES) * inverse);
        }
    }
}

/* x += 32 outputs of a block, from `channel` on. */
INLINE void NAME(add_products)(const struct call *call, const float *bias, long channel, long index,
                               const float *products)
{
    const struct block *block = call->blocks + index;
    long channels = call->dimensions->channels;
    for (long i = 0; i < block->count; i++)
        for (long c = 0; c < PANEL; c += LANES) {
            float *x = block->sequence->x + (block->first + i) * channels + channel + c;
            NAME(store)(x, NAME(load)(x) + NAME(load)(bias + channel + c) + NAME(load)(products + i * PANEL + c));
        }
}

/* 32 hidden channels of a block: GELU, and left pairs. */
INLINE void NAME(put_activated)(const struct call *call, const float *bias, long channel, long index,
                                const float *products)
{
    float *pair = call->hidden + (index * call->dimensions->hidden + channel) * TILE_ROWS;
    for (long i = 0; i < TILE_ROWS; i++)
        NAME(put_left_row)(pair, i, NAME(gelu)(NAME(load)(products + i * PANEL) + NAME(load)(bias + channel)),
                           NAME(gelu)(NAME(load)(products + i * PANEL + LANES) + NAME(load)(bias + channel + LANES)));
}

/* Some heads of some sequences. */
static void NAME(attend_piece)(const struct call *call, long layer, long piece, float *work)
{
    long heads = call->dimensions->heads, all = heads * call->sequence_count, first_block = 0;
    long first = all * piece / call->pieces, last = all * (piece + 1) / call->pieces;
    for (long i = 0; i < call->sequence_count; i++) {
        const struct sequence *sequence = call->sequences + i;
        for (long head = 0; head < heads; head++)
            if (i * heads + head >= first && i * heads + head < last)
                NAME(attend)(call, sequence, first_block, layer, head, work);
        first_block += rounded(sequence->frames, TILE_ROWS) / TILE_ROWS;
    }
}

#define USE_PROJECTED(channel, index, products) NAME(put_projected)(call, layer, channel, index, products)
#define USE_ATTENDED(channel, index, products) NAME(add_products)(call, weights->out_proj_bias, channel, index, products)
#define USE_WIDENED(channel, index, products) NAME(put_activated)(call, weights->fc1_bias, channel, index, products)
#define USE_NARROWED(channel, index, products) NAME(add_products)(call, weights->fc2_bias, channel, index, products)

static void NAME(run_piece)(const struct call *call, long layer, long phase, long piece, int thread)
{
    const struct dimensions *dim = call->dimensions;
    const struct layer *weights = call->layers + layer;
    const long channels = dim->channels, width = dim->heads * dim->head_width, hidden = dim->hidden;
    const long blocks = call->block_count, outputs[PHASES] = {3 * width, 0, channels, hidden, channels};
    const long panels = outputs[phase % PHASES] / PANEL;
    const long first = panels * piece / call->pieces, last = panels * (piece + 1) / call->pieces;
    float *work = call->work + thread * call->work_floats;
    if (phase % PHASES != ATTEND && first == last) return;
    NAME(begin_tiles)();
    switch (phase % PHASES) {
        case PROJECT:
            FOR_PRODUCTS(NAME(normalised)(call, phase, thread), channels, blocks, weights->qkv, first, last,
                         USE_PROJECTED);
            break;
        case ATTEND: NAME(attend_piece)(call, layer, piece, work); break;
        case ADD_ATTENDED:
            FOR_PRODUCTS(call->attended, width, blocks, weights->out_proj, first, last, USE_ATTENDED);
            break;
        case WIDEN:
            FOR_PRODUCTS(NAME(normalised)(call, phase, thread), channels, blocks, weights->fc1, first, last,
                         USE_WIDENED);
            break;
        case NARROW: FOR_PRODUCTS(call->hidden, hidden, blocks, weights->fc2, first, last, USE_NARROWED); break;
    }
    NAME(end_tiles)();
}

#include "isa_undef.h"
