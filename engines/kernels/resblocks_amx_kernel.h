/* The arithmetic of residual blocks on AMX. Channels are a multiple of 32. */
#include "vectors.h"
#include "snake.h"
#include "amx.h"

/* Frames first .. last of a block's input: copied for the residual path, and passed through the first Snake. */
static void NAME(begin)(const struct call *call, long first, long last)
{
    const long channels = call->channels;
    for (long t = first; t < last; t++)
        for (long c = 0; c < channels; c += PANEL) {
            vec active[2];
            for (int v = 0; v < 2; v++) {
                vec in = NAME(load)(call->x + t * channels + c + v * LANES);
                NAME(store)(call->residual + t * channels + c + v * LANES, in);
                active[v] = NAME(snake)(NAME(load)(call->layers[0].alpha + c + v * LANES) * in);
            }
            NAME(put_split)(call->active, t * channels + c, active[0], active[1]);
        }
}

/* 32 outputs of a frame, at float `at` of the arrays, as the layer's place in its block demands. */
INLINE void NAME(finish)(const struct call *call, long index, long at, long channel, const float *products)
{
    const struct layer *layer = call->layers + index;
    vec y[2];
    for (int v = 0; v < 2; v++) y[v] = NAME(load)(products + v * LANES) + NAME(load)(layer->bias + channel + v * LANES);
    if (index % 2 == 0) {
        NAME(put_split)(call->inner, at, NAME(snake)(y[0]), NAME(snake)(y[1]));
        return;
    }
    for (int v = 0; v < 2; v++) y[v] += NAME(load)(call->residual + at + v * LANES);
    if (index == 2 * call->pairs - 1) {
        for (int v = 0; v < 2; v++)
            NAME(store)(call->total + at + v * LANES, NAME(load)(call->total + at + v * LANES) + y[v]);
        return;
    }
    for (int v = 0; v < 2; v++) {
        NAME(store)(call->residual + at + v * LANES, y[v]);
        y[v] = NAME(snake)(NAME(load)(layer[1].alpha + channel + v * LANES) * y[v]);
    }
    NAME(put_split)(call->active, at, y[0], y[1]);
}

/* A stripe of frames times one panel. */
INLINE void NAME(stripe)(const struct call *call, long index, long first, long last, long channel, int is_new)
{
    const struct layer *layer = call->layers + index;
    const long channels = call->channels;
    const struct split in = index % 2 == 0 ? call->active : call->inner;
    const long by = layer->dilation * channels, before = (layer->taps - 1) / 2 * by;
    const float *right = layer->weights + channel * channels * layer->taps;
    float products[2 * TILE_ROWS * PANEL] __attribute__((aligned(64)));
    for (long t = first; t < last; t += 2 * TILE_ROWS) {
        long count = last - t < 2 * TILE_ROWS ? last - t : 2 * TILE_ROWS;
        if (is_new && t == first)
            NAME(convolution)(in, t * channels - before, by, layer->taps, channels, right, products, 2, 1);
        else if (count > TILE_ROWS)
            NAME(convolution)(in, t * channels - before, by, layer->taps, channels, right, products, 2, 0);
        else
            NAME(convolution)(in, t * channels - before, by, layer->taps, channels, right, products, 1, 0);
        for (long i = 0; i < count; i++)
            NAME(finish)(call, index, (t + i) * channels + channel, channel, products + i * PANEL);
    }
}

/* A piece of a convolution: of all stripes times all panels a row, in an order in which it needs few weights where
 * these are many, and else few frames. */
static void NAME(convolve)(const struct call *call, long index, long piece)
{
    long stripes = (call->frames + STRIPE_FRAMES - 1) / STRIPE_FRAMES, panels = call->channels / PANEL;
    long first = stripes * panels * piece / call->pieces, last = stripes * panels * (piece + 1) / call->pieces;
    const int by_panel = call->channels * call->channels * call->layers[index].taps > L2_FLOATS;
    NAME(begin_tiles)();
    for (long i = first; i < last; i++) {
        long stripe = by_panel ? i % stripes : i / panels, panel = by_panel ? i / stripes : i % panels;
        long begin = stripe * STRIPE_FRAMES, end = begin + STRIPE_FRAMES;
        NAME(stripe)(call, index, begin, end < call->frames ? end : call->frames, panel * PANEL,
                     by_panel && (i == first || stripe == 0));
    }
    NAME(end_tiles)();
}

#include "isa_undef.h"
