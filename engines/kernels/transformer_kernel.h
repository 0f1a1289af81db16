/* The arithmetic of transformer blocks for one instruction set: dense layers, norms, GELU and attention on some rows.
 *
 * Compiled once for each instruction set by multi_isa.h. Matrices are (rows, channels), channels a multiple of LANES.
 */
#include "vectors.h"
#include "transformer_math.h"

/* Queries, keys and values of the normalised rows first .. first + count. */
static void NAME(project_rows)(const struct pass *pass, const float *x, long first, long count, float *products)
{
    const struct dimensions *dim = pass->dimensions;
    const float *weights = pass->layer->qkv;
    long width = dim->heads * dim->head_width, before = pass->keys - pass->frames;
    for (long channel = 0; channel < 3 * width; channel += PANEL) {
        int vectors = 3 * width - channel >= PANEL ? 2 : 1;
        NAME(product)(x, dim->channels, weights, dim->channels, products, count, vectors);
        weights += dim->channels * vectors * LANES;
        for (long c = channel; c < channel + vectors * LANES; c += LANES) {
            vec bias = NAME(load)(pass->layer->qkv_bias + c);
            long kind = c / width, within = c % width, head = within / dim->head_width;
            float *to = pass->queries + first * width + within, *own_kv = NULL;
            long by = width;
            if (kind > 0) {
                to = kind == 1 ? pass->keys_in : pass->values_in;
                to += (head * pass->keys + before + first) * dim->head_width + within % dim->head_width;
                by = dim->head_width;
                if (pass->own_kv != NULL) own_kv = pass->own_kv + first * 2 * width + c - width;
            }
            for (long row = 0; row < count; row++) {
                vec y = NAME(load)(products + row * PANEL + c - channel) + bias;
                NAME(store)(to + row * by, y);
                if (own_kv != NULL) NAME(store)(own_kv + row * 2 * width, y);
            }
        }
    }
}

/* Copies the cached rows first .. last of `past` (rows, 2, heads * head_width) to rows `position` + first .. of each
 * head's keys and values. */
static void NAME(gather_past_kv)(const struct pass *pass, const float *past, long position, long first, long last)
{
    const struct dimensions *dim = pass->dimensions;
    long width = dim->heads * dim->head_width;
    for (long row = first; row < last; row++)
        for (long c = 0; c < 2 * width; c += LANES) {
            long within = c % width, head = within / dim->head_width;
            float *to = (c < width ? pass->keys_in : pass->values_in) +
                        (head * pass->keys + position + row) * dim->head_width + within % dim->head_width;
            NAME(store)(to, NAME(load)(past + row * 2 * width + c));
        }
}

/* One head's attention for `count` queries, at most a panel: softmax over all keys, then the mean of values. The scores
 * lie (keys, PANEL), with one query in each lane. */
static void NAME(attend)(const struct pass *pass, long head, const float *queries, long count, float *out, float *work)
{
    const struct dimensions *dim = pass->dimensions;
    long head_width = dim->head_width, width = dim->heads * head_width, keys = pass->keys;
    int vectors = count > LANES ? 2 : 1;
    float *transposed = work, *scores = work + head_width * PANEL;
    for (long d = 0; d < head_width; d++)
        for (long i = 0; i < vectors * LANES; i++)
            transposed[d * vectors * LANES + i] = i < count ? queries[i * width + d] : 0;
    NAME(product)(pass->keys_in + head * keys * head_width, head_width, transposed, head_width, scores, keys, vectors);
    float inverse_sums[PANEL];
    for (int v = 0; v < vectors; v++) {
        float *column = scores + v * LANES;
        vec highest = NAME(load)(column), sum = NAME(set1)(0);
        for (long k = 1; k < keys; k++) highest = NAME(max)(highest, NAME(load)(column + k * PANEL));
        for (long k = 0; k < keys; k++) {
            vec weight = NAME(exp2)(NAME(load)(column + k * PANEL) - highest);
            NAME(store)(column + k * PANEL, weight);
            sum += weight;
        }
        NAME(store)(inverse_sums + v * LANES, NAME(set1)(1) / sum);
    }
    const float *values = pass->values_in + head * keys * head_width;
    struct strides by = {1, PANEL, head_width, width};
    for (long first = 0; first < keys; first += KEYS_AT_ONCE) {
        long depth = keys - first < KEYS_AT_ONCE ? keys - first : KEYS_AT_ONCE;
        const float *a = scores + first * PANEL, *b = values + first * head_width;
        for (long d = 0; d < head_width; d += PANEL) {
            if (head_width - d >= PANEL)
                first == 0 ? NAME(blocks)(a, b + d, depth, out + d, by, count, 2, 0)
                           : NAME(blocks)(a, b + d, depth, out + d, by, count, 2, 1);
            else
                first == 0 ? NAME(blocks)(a, b + d, depth, out + d, by, count, 1, 0)
                           : NAME(blocks)(a, b + d, depth, out + d, by, count, 1, 1);
        }
    }
    for (long row = 0; row < count; row++)
        for (long d = 0; d < head_width; d += LANES)
            NAME(store)(out + row * width + d, NAME(load)(out + row * width + d) * inverse_sums[row]);
}

/* x += dense layer of `in`. */
static void NAME(add_dense)(const float *in, long depth, const float *weights, const float *bias, float *x,
                            long channels, long count, float *products)
{
    for (long channel = 0; channel < channels; channel += PANEL) {
        int vectors = channels - channel >= PANEL ? 2 : 1;
        NAME(product)(in, depth, weights, depth, products, count, vectors);
        weights += depth * vectors * LANES;
        for (long c = channel; c < channel + vectors * LANES; c += LANES) {
            vec offset = bias == NULL ? NAME(set1)(0) : NAME(load)(bias + c);
            for (long row = 0; row < count; row++)
                NAME(store)(x + row * channels + c, NAME(load)(x + row * channels + c) + offset +
                                                        NAME(load)(products + row * PANEL + c - channel));
        }
    }
}

/* out = GELU of a dense layer of `in`. */
static void NAME(activate_dense)(const float *in, long depth, const float *weights, const float *bias, float *out,
                                 long channels, long count, float *products)
{
    for (long channel = 0; channel < channels; channel += PANEL) {
        int vectors = channels - channel >= PANEL ? 2 : 1;
        NAME(product)(in, depth, weights, depth, products, count, vectors);
        weights += depth * vectors * LANES;
        for (long c = channel; c < channel + vectors * LANES; c += LANES)
            for (long row = 0; row < count; row++)
                NAME(store)(out + row * channels + c,
                            NAME(gelu)(NAME(load)(products + row * PANEL + c - channel) + NAME(load)(bias + c)));
    }
}

/* Queries, keys and values of rows first .. last, a stripe at a time. */
static void NAME(project_qkv)(const struct pass *pass, long first, long last, float *work)
{
    long channels = pass->dimensions->channels;
    for (long row = first; row < last; row += STRIPE_ROWS) {
        long count = last - row < STRIPE_ROWS ? last - row : STRIPE_ROWS;
        NAME(normalise)(pass->x + row * channels, count, channels, work);
        NAME(project_rows)(pass, work, row, count, work + STRIPE_ROWS * channels);
    }
}

/* Attention, its projection and the MLP of the same rows, once the keys and values of all rows are written. */
static void NAME(attend_and_mlp)(const struct pass *pass, long first, long last, float *work)
{
    const struct dimensions *dim = pass->dimensions;
    const struct layer *layer = pass->layer;
    long channels = dim->channels, width = dim->heads * dim->head_width;
    float *normal = work, *wide = normal + STRIPE_ROWS * channels, *products = wide + STRIPE_ROWS * HIDDEN_AT_ONCE;
    float *attended = products + STRIPE_ROWS * PANEL, *scores = attended + STRIPE_ROWS * width;
    for (long row = first; row < last; row += STRIPE_ROWS) {
        long count = last - row < STRIPE_ROWS ? last - row : STRIPE_ROWS;
        float *x = pass->x + row * channels;
        for (long head = 0; head < dim->heads; head++)
            for (long i = 0; i < count; i += PANEL)
                NAME(attend)(pass, head, pass->queries + (row + i) * width + head * dim->head_width,
                             count - i < PANEL ? count - i : PANEL, attended + i * width + head * dim->head_width,
                             scores);
        NAME(add_dense)(attended, width, layer->out_proj, layer->out_proj_bias, x, channels, count, products);
        NAME(normalise)(x, count, channels, normal);
        for (long c = 0; c < dim->hidden; c += HIDDEN_AT_ONCE) {
            long hidden = dim->hidden - c < HIDDEN_AT_ONCE ? dim->hidden - c : HIDDEN_AT_ONCE;
            NAME(activate_dense)(normal, channels, layer->fc1 + c * channels, layer->fc1_bias + c, wide, hidden, count,
                                 products);
            NAME(add_dense)(wide, hidden, layer->fc2 + c * channels, c == 0 ? layer->fc2_bias : NULL, x, channels,
                            count, products);
        }
    }
}

#include "isa_undef.h"
