/* The arithmetic of residual blocks for one instruction set.
 *
 * Compiled once for each instruction set by multi_isa.h. Arrays are (frames, channels), channels a multiple of LANES.
 */
#include "vectors.h"
#include "snake.h"

/* Transforms a tile's rows, the coefficients of a polynomial, to products with the Lagrange numerators at 0 and
 * +-points[i], each `plane` floats behind the one before. The numerators at p and -p share their even and odd half. */
INLINE void NAME(transform)(const struct transform *f, const float *const *rows, long channels, float *out, long plane,
                            const int pairs)
{
    for (long c = 0; c < channels; c += LANES, out += LANES) {
        vec in[MAX_POINTS];
#pragma GCC unroll 16
        for (int i = 0; i < 2 * pairs + 1; i++) in[i] = NAME(load)(rows[i] + c);
        vec at_zero = in[2 * pairs];
#pragma GCC unroll 8
        for (int k = 0; k < pairs; k++) at_zero += in[2 * k] * f->at_zero[k];
        NAME(store)(out, at_zero);
#pragma GCC unroll 8
        for (int i = 0; i < pairs; i++) {
            vec even = in[2 * pairs], odd = in[2 * pairs - 1];
#pragma GCC unroll 8
            for (int k = 0; k < pairs - 1; k++) {
                even += in[2 * k + 2] * f->at_pair[i][k];
                odd += in[2 * k + 1] * f->at_pair[i][k];
            }
            odd *= f->points[i];
            NAME(store)(out + (2 * i + 1) * plane, even + odd);
            NAME(store)(out + (2 * i + 2) * plane, even - odd);
        }
    }
}

/* One vector of channels of a tile, from its products to its outputs: out[n] is the sum over points of p^n product. */
INLINE void NAME(invert)(const struct transform *f, const float *in, long plane, vec *out, const int pairs,
                         const int outputs)
{
    vec sums[MAX_PAIRS], differences[MAX_PAIRS];
    out[0] = NAME(load)(in);
#pragma GCC unroll 8
    for (int i = 0; i < pairs; i++) {
        vec plus = NAME(load)(in + (2 * i + 1) * plane), minus = NAME(load)(in + (2 * i + 2) * plane);
        sums[i] = plus + minus;
        differences[i] = plus - minus;
        out[0] += sums[i];
    }
#pragma GCC unroll 16
    for (int n = 1; n < outputs; n++) {
        out[n] = NAME(set1)(0);
#pragma GCC unroll 8
        for (int i = 0; i < pairs; i++) out[n] += (n % 2 ? differences[i] : sums[i]) * f->powers[i][n];
    }
}

/* Stores a convolution's output y at float `at` of its arrays, as the layer's place in its block demands. */
INLINE void NAME(finish)(const struct conv *conv, long at, long c, vec y)
{
    if (conv->residual == NULL) {
        NAME(store)(conv->out + at, NAME(snake)(y));
        return;
    }
    vec x = NAME(load)(conv->residual + at) + y;
    if (conv->alpha == NULL) {
        NAME(store)(conv->out + at, NAME(load)(conv->out + at) + x);
        return;
    }
    NAME(store)(conv->residual + at, x);
    NAME(store)(conv->out + at, NAME(snake)(NAME(load)(conv->alpha + c) * x));
}

/* The slots first .. first + held, transformed: (points, held, channels). */
INLINE void NAME(transform_slots)(const struct conv *conv, long first, long held, float *planes, const int pairs,
                                  const int outputs)
{
    const struct shape *shape = conv->shape;
    for (long n = 0; n < held; n++) {
        const float *rows[MAX_POINTS];
        long phase = (first + n) / conv->slots, frame = (first + n) % conv->slots * outputs - conv->left;
        for (int i = 0; i < 2 * pairs + 1; i++) {
            long t = phase + conv->dilation * (frame + i);
            int inside = phase < conv->dilation && frame + i >= 0 && t < shape->frames;
            rows[i] = inside ? conv->in + t * shape->channels : zeros;
        }
        NAME(transform)(conv->transform, rows, shape->channels, planes + n * shape->channels, held * shape->channels,
                        pairs);
    }
}

/* The slots first .. first + count of one panel, from products (points, count, PANEL) to stored outputs. */
INLINE void NAME(finish_slots)(const struct conv *conv, long first, long count, const float *products, long channel,
                               const int pairs, const int outputs)
{
    const struct shape *shape = conv->shape;
    for (long n = 0; n < count; n++) {
        long phase = (first + n) / conv->slots, tile = (first + n) % conv->slots;
        if (tile >= conv->tiles) continue; /* it only holds the last tiles' further taps */
        long start = phase + conv->dilation * tile * outputs;
        for (long c = channel; c < channel + PANEL && c < shape->channels; c += LANES) {
            vec out[MAX_OUTPUTS], bias = NAME(load)(conv->bias + c);
            NAME(invert)(conv->transform, products + n * PANEL + c - channel, count * PANEL, out, pairs, outputs);
#pragma GCC unroll 16
            for (int i = 0; i < outputs; i++) {
                long t = start + i * conv->dilation;
                if (t < shape->frames) NAME(finish)(conv, t * shape->channels + c, c, out[i] + bias);
            }
        }
    }
}

INLINE void NAME(stripe_of)(const struct conv *conv, long first, long count, float *scratch, const int pairs,
                            const int outputs)
{
    const int points = 2 * pairs + 1;
    long channels = conv->shape->channels, held = count + conv->groups - 1, depth = conv->groups * channels;
    float *planes = scratch, *products = scratch + points * held * channels;
    const float *weights = conv->weights;
    NAME(transform_slots)(conv, first, held, planes, pairs, outputs);
    for (long channel = 0; channel < channels; channel += PANEL) {
        int vectors = channels - channel >= PANEL ? 2 : 1;
        for (int p = 0; p < points; p++, weights += depth * vectors * LANES)
            NAME(product)(planes + p * held * channels, channels, weights, depth, products + p * count * PANEL, count,
                          vectors);
        NAME(finish_slots)(conv, first, count, products, channel, pairs, outputs);
    }
}

/* A stripe of a convolution: slots first .. first + count. The three kinds of transform are compiled separately, so
 * that every loop over points and outputs is unrolled. */
static void NAME(stripe)(const struct conv *conv, long first, long count, float *scratch)
{
    switch (conv->transform->outputs) {
        case 9: NAME(stripe_of)(conv, first, count, scratch, 5, 9); break;
        case 6: NAME(stripe_of)(conv, first, count, scratch, 5, 6); break;
        case 5: NAME(stripe_of)(conv, first, count, scratch, 5, 5); break;
    }
}

/* Frames first .. last of a block's input: copied for the residual path, and passed through the first Snake. */
static void NAME(begin)(const struct shape *shape, const float *alpha, const float *x, float *residual, float *active,
                        long first, long last)
{
    for (long t = first; t < last; t++)
        for (long c = 0; c < shape->channels; c += LANES) {
            vec in = NAME(load)(x + t * shape->channels + c);
            NAME(store)(residual + t * shape->channels + c, in);
            NAME(store)(active + t * shape->channels + c, NAME(snake)(NAME(load)(alpha + c) * in));
        }
}

#include "isa_undef.h"
