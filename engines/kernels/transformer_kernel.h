/* The arithmetic of transformer blocks for one instruction set: dense layers, norms, GELU and attention on some rows.
 *
 * Compiled once for each by each_set.h. Knows rows and panels; knows no thread. Matrices are (rows, channels) with
 * channels a multiple of LANES.
 */
#include "vectors.h"

/* x times the normal distribution's share below it, to 5e-8: the share above |x| is 2 to a polynomial in |x|. */
INLINE vec NAME(gelu)(vec x)
{
    const vec zero = NAME(all)(0), far = NAME(all)(6.0f);
    vec size = NAME(greater)(x, zero - x), u = NAME(smaller)(size, far);
    vec series = u * -3.30928378e-5f + 7.69219878e-4f;
    series = (series * u - 8.08071703e-3f) * u + 5.34121048e-2f;
    series = (series * u + 4.58770973e-1f) * u + 1.1512017f;
    return NAME(greater)(x, zero) - size * NAME(power)(zero - (series * u + 9.99993061e-1f));
}

INLINE float NAME(total)(vec x)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

/* Rows less their mean over their deviation; the norm's factors and offsets are in the next layer's weights. */
static void NAME(normalise)(const float *x, long rows, long channels, float *out)
{
    for (long row = 0; row < rows; row++, x += channels, out += channels) {
        vec sum = NAME(all)(0), squares = NAME(all)(0);
        for (long c = 0; c < channels; c += LANES) sum += NAME(load)(x + c);
        vec mean = NAME(all)(NAME(total)(sum) / channels);
        for (long c = 0; c < channels; c += LANES) {
            vec off = NAME(load)(x + c) - mean;
            squares += off * off;
        }
        vec scale = NAME(all)(1 / sqrtf(NAME(total)(squares) / channels + NORM_EPSILON));
        for (long c = 0; c < channels; c += LANES) NAME(store)(out + c, (NAME(load)(x + c) - mean) * scale);
    }
}

/* Queries, keys and values of the normalised rows first .. first + count. */
static void NAME(project)(const struct pass *pass, const float *x, long first, long count, float *products)
{
    const struct dimensions *dim = pass->dimensions;
    const float *weights = pass->layer->project;
    long width = dim->heads * dim->head_width, before = pass->keys - pass->frames;
    for (long channel = 0; channel < 3 * width; channel += PANEL) {
        int vectors = 3 * width - channel >= PANEL ? 2 : 1;
        NAME(product)(x, dim->channels, weights, dim->channels, products, count, vectors);
        weights += dim->channels * vectors * LANES;
        for (long c = channel; c < channel + vectors * LANES; c += LANES) {
            vec bias = NAME(load)(pass->layer->project_bias + c);
            long kind = c / width, within = c % width, head = within / dim->head_width;
            float *to = pass->queries + first * width + within, *kept = NULL;
            long by = width;
            if (kind > 0) {
                to = kind == 1 ? pass->keys_in : pass->values_in;
                to += (head * pass->keys + before + first) * dim->head_width + within % dim->head_width;
                by = dim->head_width;
                if (pass->kept != NULL) kept = pass->kept + first * 2 * width + c - width;
            }
            for (long row = 0; row < count; row++) {
                vec y = NAME(load)(products + row * PANEL + c - channel) + bias;
                NAME(store)(to + row * by, y);
                if (kept != NULL) NAME(store)(kept + row * 2 * width, y);
            }
        }
    }
}

/* The remembered rows first .. last of a piece (rows, keys and values of all heads), each head's by themselves. */
static void NAME(recall)(const struct pass *pass, const float *piece, long place, long first, long last)
{
    const struct dimensions *dim = pass->dimensions;
    long width = dim->heads * dim->head_width;
    for (long row = first; row < last; row++)
        for (long c = 0; c < 2 * width; c += LANES) {
            long within = c % width, head = within / dim->head_width;
            float *to = (c < width ? pass->keys_in : pass->values_in) +
                        (head * pass->keys + place + row) * dim->head_width + within % dim->head_width;
            NAME(store)(to, NAME(load)(piece + row * 2 * width + c));
        }
}

/* One head's attention of `count` queries, at most a panel of them: softmax over all keys, then the mean of values. The
 * scores lie (keys, PANEL), a query to a lane. */
static void NAME(attend)(const struct pass *pass, long head, const float *queries, long count, float *out, float *work)
{
    const struct dimensions *dim = pass->dimensions;
    long head_width = dim->head_width, width = dim->heads * head_width, keys = pass->keys;
    int vectors = count > LANES ? 2 : 1;
    float *turned = work, *scores = work + head_width * PANEL;
    for (long d = 0; d < head_width; d++)
        for (long i = 0; i < vectors * LANES; i++)
            turned[d * vectors * LANES + i] = i < count ? queries[i * width + d] : 0;
    NAME(product)(pass->keys_in + head * keys * head_width, head_width, turned, head_width, scores, keys, vectors);
    float shares[PANEL];
    for (int v = 0; v < vectors; v++) {
        float *column = scores + v * LANES;
        vec most = NAME(load)(column), sum = NAME(all)(0);
        for (long k = 1; k < keys; k++) most = NAME(greater)(most, NAME(load)(column + k * PANEL));
        for (long k = 0; k < keys; k++) {
            vec weight = NAME(power)(NAME(load)(column + k * PANEL) - most);
            NAME(store)(column + k * PANEL, weight);
            sum += weight;
        }
        NAME(store)(shares + v * LANES, NAME(all)(1) / sum);
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
            NAME(store)(out + row * width + d, NAME(load)(out + row * width + d) * shares[row]);
}

/* x += what a dense layer makes of `in`. */
static void NAME(add_dense)(const float *in, long depth, const float *weights, const float *bias, float *x, long channels,
                            long count, float *products)
{
    for (long channel = 0; channel < channels; channel += PANEL) {
        int vectors = channels - channel >= PANEL ? 2 : 1;
        NAME(product)(in, depth, weights, depth, products, count, vectors);
        weights += depth * vectors * LANES;
        for (long c = channel; c < channel + vectors * LANES; c += LANES) {
            vec offset = bias == NULL ? NAME(all)(0) : NAME(load)(bias + c);
            for (long row = 0; row < count; row++)
                NAME(store)(x + row * channels + c, NAME(load)(x + row * channels + c) + offset +
                                                        NAME(load)(products + row * PANEL + c - channel));
        }
    }
}

/* out = GELU of what a dense layer makes of `in`. */
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
static void NAME(look)(const struct pass *pass, long first, long last, float *work)
{
    long channels = pass->dimensions->channels;
    for (long row = first; row < last; row += STRIPE_ROWS) {
        long count = last - row < STRIPE_ROWS ? last - row : STRIPE_ROWS;
        NAME(normalise)(pass->x + row * channels, count, channels, work);
        NAME(project)(pass, work, row, count, work + STRIPE_ROWS * channels);
    }
}

/* Everything after that, for the same rows; keys and values of all rows are there. */
static void NAME(mix)(const struct pass *pass, long first, long last, float *work)
{
    const struct dimensions *dim = pass->dimensions;
    const struct layer *layer = pass->layer;
    long channels = dim->channels, width = dim->heads * dim->head_width;
    float *normal = work, *wide = normal + STRIPE_ROWS * channels, *products = wide + STRIPE_ROWS * WIDE_AT_ONCE;
    float *mixed = products + STRIPE_ROWS * PANEL, *scores = mixed + STRIPE_ROWS * width;
    for (long row = first; row < last; row += STRIPE_ROWS) {
        long count = last - row < STRIPE_ROWS ? last - row : STRIPE_ROWS;
        float *x = pass->x + row * channels;
        for (long head = 0; head < dim->heads; head++)
            for (long i = 0; i < count; i += PANEL)
                NAME(attend)(pass, head, pass->queries + (row + i) * width + head * dim->head_width,
                             count - i < PANEL ? count - i : PANEL, mixed + i * width + head * dim->head_width, scores);
        NAME(add_dense)(mixed, width, layer->join, layer->join_bias, x, channels, count, products);
        NAME(normalise)(x, count, channels, normal);
        for (long c = 0; c < dim->hidden; c += WIDE_AT_ONCE) {
            long some = dim->hidden - c < WIDE_AT_ONCE ? dim->hidden - c : WIDE_AT_ONCE;
            NAME(activate_dense)(normal, channels, layer->widen + c * channels, layer->widen_bias + c, wide, some, count,
                                 products);
            NAME(add_dense)(wide, some, layer->narrow + c * channels, c == 0 ? layer->narrow_bias : NULL, x, channels,
                            count, products);
        }
    }
}

#include "forget.h"
