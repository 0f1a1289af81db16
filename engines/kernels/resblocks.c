/* HiFT's residual blocks on a CPU, with their convolutions in Winograd's form: two to three times fewer products.
 *
 * Called through ctypes by resblocks.py, which makes a block's numbers; the structures here and there must agree.
 * A convolution's output is cut into tiles of a few frames. A tile's input frames are transformed to values at points
 * (winograd.py), these are multiplied by the weights' values at the same points, which is a matrix product for each
 * point, and the products are transformed back. A stripe of tiles goes through all of it at a time, so that its frames
 * and their transforms stay in a core's cache. CPUs with AMX have resblocks_amx.c.
 *
 * Dilation: a convolution of dilation d is d convolutions of each d-th frame, its phases. All phases' tiles are one
 * row of slots. Filters of more than a tile's taps are cut into groups; a tile is as long as a group, so that group g
 * of tile n sees what group 0 of tile n + g sees, and all groups are one longer row of the same product.
 */
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "thread_pool.h"

#define MAX_PAIRS 5
#define MAX_POINTS (2 * MAX_PAIRS + 1)
#define MAX_OUTPUTS 9
#define MAX_CHANNELS 1024
#define MAX_LANES 16

struct transform {
    int32_t pairs, outputs;
    float at_zero[MAX_PAIRS], at_pair[MAX_PAIRS][MAX_PAIRS], points[MAX_PAIRS], powers[MAX_PAIRS][MAX_OUTPUTS];
};

struct layer { /* a convolution and the Snake before it */
    const struct transform *transform;
    const float *alpha; /* (channels), or NULL if the convolution before has it in its weights */
    const float *weights; /* panels of (points, groups * channels, simd_width * 2) */
    const float *bias;
    int32_t taps, groups, dilation;
};

struct shape {
    long frames, channels;
};

struct conv { /* one layer on its arrays, all of them (frames, channels) */
    const struct shape *shape;
    const struct transform *transform;
    const float *weights, *bias, *alpha, *in;
    float *out, *residual;
    long groups, dilation, left, tiles, slots; /* tiles and slots of each phase */
};

static const float zeros[MAX_CHANNELS];

#define KERNEL "resblocks_kernel.h"
#include "multi_isa.h"

static const struct arithmetic {
    int simd_width;
    void (*begin)(const struct shape *, const float *, const float *, float *, float *, long, long);
    void (*stripe)(const struct conv *, long, long, float *);
} arithmetics[] = {
    {4, begin_plain, stripe_plain},
#if defined(__x86_64__)
    {8, begin_avx2, stripe_avx2},
    {16, begin_avx512, stripe_avx512},
#endif
};

struct call {
    const struct arithmetic *arithmetic;
    struct shape shape;
    const struct layer *layers;
    long pairs, pieces;
    const float *x;
    float *total, *residual, *active, *inner;
    float *scratch; /* of all threads */
    long scratch_floats; /* of one */
};

/* The caller sets what depends on the layer's place in its block. */
static struct conv conv_of(const struct shape *shape, const struct layer *layer)
{
    long outputs = layer->transform->outputs, dilation = layer->dilation;
    struct conv conv = {.shape = shape, .transform = layer->transform, .weights = layer->weights, .bias = layer->bias,
                        .groups = layer->groups, .dilation = dilation, .left = (layer->taps - 1) / 2};
    conv.tiles = ((shape->frames + dilation - 1) / dilation + outputs - 1) / outputs;
    conv.slots = conv.tiles + conv.groups - 1;
    return conv;
}

static long slots_of(const struct conv *conv) { return conv->slots * conv->dilation - (conv->groups - 1); }

/* The number of stripes with which the call's convolutions fit the scratch, a multiple of `threads`. */
static long stripes_of(const struct call *call, long threads)
{
    long max_stripes = 0;
    for (const struct layer *layer = call->layers; layer < call->layers + 2 * call->pairs; layer++) {
        struct conv conv = conv_of(&call->shape, layer);
        long points = 2 * layer->transform->pairs + 1;
        long slots = call->scratch_floats / (points * (call->shape.channels + 2 * MAX_LANES)) - (conv.groups - 1);
        long stripes = (slots_of(&conv) + slots * threads - 1) / (slots * threads) * threads;
        if (stripes > max_stripes) max_stripes = stripes;
    }
    return max_stripes;
}

/* Phase 0 is the first Snake, each further phase a convolution. */
static void piece(void *argument, long phase, long piece, int thread)
{
    const struct call *call = argument;
    if (phase == 0) {
        call->arithmetic->begin(&call->shape, call->layers[0].alpha, call->x, call->residual, call->active,
                                call->shape.frames * piece / call->pieces,
                                call->shape.frames * (piece + 1) / call->pieces);
        return;
    }
    const struct layer *layer = call->layers + phase - 1;
    struct conv conv = conv_of(&call->shape, layer);
    int is_last = phase == 2 * call->pairs;
    if (phase % 2) {
        conv.in = call->active;
        conv.out = call->inner;
    } else {
        conv.in = call->inner;
        conv.out = is_last ? call->total : call->active;
        conv.residual = call->residual;
        conv.alpha = is_last ? NULL : layer[1].alpha;
    }
    long all = slots_of(&conv), first = all * piece / call->pieces, count = all * (piece + 1) / call->pieces - first;
    if (count > 0) call->arithmetic->stripe(&conv, first, count, call->scratch + thread * call->scratch_floats);
}

/* total += the residual block of x, both (frames, channels). `work` holds 3 * frames * channels floats and then
 * scratch_floats for each thread of the pool. The CPU must have `simd_width`, and channels be a multiple of it. */
void mynah_add_block(struct thread_pool *pool, int simd_width, const struct layer *layers, int pairs, long frames,
                     long channels, const float *x, float *total, float *work, long scratch_floats)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->simd_width != simd_width) arithmetic++;
    long floats = frames * channels;
    struct call call = {arithmetic, {frames, channels}, layers, pairs, 0, x, total, work, work + floats,
                        work + 2 * floats, work + 3 * floats, scratch_floats};
    call.pieces = stripes_of(&call, pool_size(pool));
    parallel_for(pool, &(struct job){piece, &call, 1 + 2 * pairs, call.pieces});
}
