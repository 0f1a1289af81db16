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
    int pairs, members;
    const float *x;
    float *total, *residual, *active, *inner;
    float *scratch; /* of all members */
    long scratch_floats; /* of one */
};

/* A member's stripes of one convolution: as many stripes as fit the scratch, the same number for every member. */
static void convolve(struct call *call, struct conv conv, const struct layer *layer, int member)
{
    long outputs = layer->transform->outputs, points = 2 * layer->transform->pairs + 1, dilation = layer->dilation;
    conv.shape = &call->shape;
    conv.transform = layer->transform;
    conv.weights = layer->weights;
    conv.bias = layer->bias;
    conv.groups = layer->groups;
    conv.dilation = dilation;
    conv.left = (layer->taps - 1) / 2;
    conv.tiles = ((call->shape.frames + dilation - 1) / dilation + outputs - 1) / outputs;
    conv.slots = conv.tiles + conv.groups - 1;
    long all = conv.slots * dilation - (conv.groups - 1);
    long most = call->scratch_floats / (points * (call->shape.channels + 2 * MOST_LANES)) - (conv.groups - 1);
    long stripes = (all + most * call->members - 1) / (most * call->members) * call->members;
    for (long stripe = member; stripe < stripes; stripe += call->members) {
        long first = all * stripe / stripes, count = all * (stripe + 1) / stripes - first;
        if (count > 0) call->arithmetic->stripe(&conv, first, count, call->scratch + member * call->scratch_floats);
    }
}

static void block(struct team *team, void *argument, int member)
{
    struct call *call = argument;
    long frames = call->shape.frames, first = frames * member / team->members;
    long last = frames * (member + 1) / team->members;
    call->arithmetic->begin(&call->shape, call->layers[0].alpha, call->x, call->residual, call->active, first, last);
    for (int pair = 0; pair < call->pairs; pair++) {
        const struct layer *one = call->layers + 2 * pair, *two = one + 1;
        int is_last = pair == call->pairs - 1;
        meet(team);
        convolve(call, (struct conv){.in = call->active, .out = call->inner}, one, member);
        meet(team);
        convolve(call, (struct conv){.in = call->inner, .out = is_last ? call->total : call->active,
                                     .residual = call->residual, .alpha = is_last ? NULL : two[1].alpha},
                 two, member);
    }
}

/* total += the residual block of x, both (frames, channels). `work` holds 3 * frames * channels floats and then
 * scratch_floats for each of the team. Lanes must be one of those that this CPU has, channels a multiple of them. */
void mynah_add_block(struct team *team, int lanes, const struct layer *layers, int pairs, long frames, long channels,
                     const float *x, float *total, float *work, long scratch_floats)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->lanes != lanes) arithmetic++;
    long floats = frames * channels;
    struct call call = {arithmetic, {frames, channels}, layers, pairs, team->members, x, total, work, work + floats,
                        work + 2 * floats, work + 3 * floats, scratch_floats};
    together(team, block, &call);
}
