/* HiFT's residual blocks on a CPU: their convolutions in Winograd's form, two to three times fewer products.
 *
 * Called through ctypes by resblocks.py, which says what the numbers of a block are; the structures here and there agree.
 * A convolution's output is cut into tiles of a few frames. A tile's input frames are transformed to values at points
 * (winograd.py), these are multiplied by the weights' values at the same points, which is a matrix product for each
 * point, and the products are transformed back. Done for a stripe of tiles at a time it stays in a core's cache, as
 * frames and their transforms would not if each step went over all of them.
 *
 * Dilation: a convolution of dilation d is d convolutions of each d-th frame, its phases. All phases' tiles are one
 * row of slots. Filters of more than a tile's taps are cut into groups; a tile is as long as a group, so that group g
 * of tile n sees what group 0 of tile n + g sees, and all groups are one longer row of the same product.
 */
#include <stddef.h>
#include <stdint.h>

#include "team.h"

#define MOST_PAIRS 5
#define MOST_POINTS (2 * MOST_PAIRS + 1)
#define MOST_OUTPUTS 9
#define MOST_CHANNELS 1024
#define MOST_LANES 16

struct transform {
    int32_t pairs, outputs;
    float at_zero[MOST_PAIRS], at_pair[MOST_PAIRS][MOST_PAIRS], points[MOST_PAIRS], powers[MOST_PAIRS][MOST_OUTPUTS];
};

struct layer { /* a convolution and the Snake before it */
    const struct transform *transform;
    const float *alpha; /* (channels), or NULL where the convolution before carries it */
    const float *weights; /* panels of (points, groups * channels, lanes * 2) */
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

static const float zeros[MOST_CHANNELS];

#define KERNEL "resblocks_kernel.h"
#include "each_set.h"

static const struct arithmetic {
    int lanes;
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
    float *scratch; /* of all members */
    long scratch_floats; /* of one */
};

/* A layer's place in its block is not set yet. */
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

/* In how many stripes the call's convolutions fit the scratch, of equally many for each member. */
static long stripes_of(const struct call *call, long members)
{
    long most = 0;
    for (const struct layer *layer = call->layers; layer < call->layers + 2 * call->pairs; layer++) {
        struct conv conv = conv_of(&call->shape, layer);
        long points = 2 * layer->transform->pairs + 1;
        long slots = call->scratch_floats / (points * (call->shape.channels + 2 * MOST_LANES)) - (conv.groups - 1);
        long stripes = (slots_of(&conv) + slots * members - 1) / (slots * members) * members;
        if (stripes > most) most = stripes;
    }
    return most;
}

/* Phase 0 is the first Snake, each further one a convolution. */
static void piece(void *argument, long phase, long piece, int member)
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
    if (count > 0) call->arithmetic->stripe(&conv, first, count, call->scratch + member * call->scratch_floats);
}

/* total += the residual block of x, both (frames, channels). `work` holds 3 * frames * channels floats and then
 * scratch_floats for each of the team. Lanes must be one of those that this CPU has, channels a multiple of them. */
void mynah_add_block(struct team *team, int lanes, const struct layer *layers, int pairs, long frames, long channels,
                     const float *x, float *total, float *work, long scratch_floats)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->lanes != lanes) arithmetic++;
    long floats = frames * channels;
    struct call call = {arithmetic, {frames, channels}, layers, pairs, 0, x, total, work, work + floats,
                        work + 2 * floats, work + 3 * floats, scratch_floats};
    call.pieces = stripes_of(&call, members_of(team));
    together(team, &(struct job){piece, &call, 1 + 2 * pairs, call.pieces});
}
