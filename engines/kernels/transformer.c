/* The CFM's transformer blocks on a CPU: norm, attention, norm and GELU layers of some rows while a core's cache holds
 * them.
 *
 * Called through ctypes by transformer.py, which lays the weights out; the structures here and there agree. A piece of
 * the team's job takes a stripe of rows through a whole block; all it needs of the others are their keys and values, for
 * which there is a phase for each block. Scores stand with a query in each lane, so that softmax is arithmetic of whole
 * vectors and neither keys nor values are ever turned.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "team.h"

#define STRIPE_ROWS 96 /* with all that is made of them they fit a core's second cache */
#define WIDE_AT_ONCE 256 /* of the hidden channels */
#define KEYS_AT_ONCE 64 /* whose values, a few lines of each, fit the first cache with their scores */
#define MOST_LANES 16
#define NORM_EPSILON 1e-5f

struct dimensions {
    int32_t channels, heads, head_width, hidden;
};

struct layer { /* panels of (depth, lanes * 2); norms are folded into the layers behind them */
    const float *project, *project_bias; /* to queries (scaled for powers of two), keys and values */
    const float *join, *join_bias;
    const float *widen, *widen_bias;
    const float *narrow, *narrow_bias; /* WIDE_AT_ONCE of its depth after the other, each in panels */
};

struct past { /* remembered: for each layer (rows, 2, heads * head_width) */
    const float *rows;
    int64_t count, layer_floats;
};

struct pass { /* one layer on its arrays */
    const struct dimensions *dimensions;
    const struct layer *layer;
    long frames, keys; /* keys: remembered ones and the frames' own */
    float *x; /* (frames, channels) */
    float *queries; /* (frames, heads * head_width) */
    float *keys_in, *values_in; /* (heads, keys, head_width) */
    float *kept; /* (frames, 2, heads * head_width) of the frames' own, or NULL */
};

#define KERNEL "transformer_kernel.h"
#include "each_set.h"

static const struct arithmetic {
    int lanes;
    void (*look)(const struct pass *, long, long, float *);
    void (*recall)(const struct pass *, const float *, long, long, long);
    void (*mix)(const struct pass *, long, long, float *);
} arithmetics[] = {
    {4, look_plain, recall_plain, mix_plain},
#if defined(__x86_64__)
    {8, look_avx2, recall_avx2, mix_avx2},
    {16, look_avx512, recall_avx512, mix_avx512},
#endif
};

struct call {
    const struct arithmetic *arithmetic;
    const struct dimensions *dimensions;
    const struct layer *layers;
    const struct past *remembered;
    long layer_count, remembered_count, frames, keys, kept_layer_floats, work_floats, stripes, panel;
    float *x, *queries, *keys_and_values, *kept, *work;
};

/* Keys and values of two layers in turn, as the next layer's begin while this one's are still looked at. */
static struct pass pass_of(const struct call *call, long layer)
{
    long floats = call->keys * call->dimensions->heads * call->dimensions->head_width;
    float *keys = call->keys_and_values + layer % 2 * 2 * floats;
    return (struct pass){call->dimensions, call->layers + layer, call->frames, call->keys, call->x, call->queries, keys,
                         keys + floats, call->kept ? call->kept + layer * call->kept_layer_floats : NULL};
}

/* Where a stripe begins. Long ones begin where a panel of queries does, so that none is computed half empty. */
static long stripe_begin(const struct call *call, long stripe)
{
    long panels = (call->frames + call->panel - 1) / call->panel;
    if (panels < 4 * call->stripes) return call->frames * stripe / call->stripes;
    long first = panels * stripe / call->stripes * call->panel;
    return first < call->frames ? first : call->frames;
}

/* A stripe's rows through what is left of the last layer, then their part in the next one's keys and values. */
static void piece(void *argument, long phase, long stripe, int member)
{
    const struct call *call = argument;
    long first = stripe_begin(call, stripe), last = stripe_begin(call, stripe + 1);
    float *work = call->work + member * call->work_floats;
    if (phase > 0) {
        struct pass before = pass_of(call, phase - 1);
        call->arithmetic->mix(&before, first, last, work);
    }
    if (phase == call->layer_count) return;
    struct pass pass = pass_of(call, phase);
    long place = 0;
    for (const struct past *one = call->remembered; one < call->remembered + call->remembered_count; one++) {
        call->arithmetic->recall(&pass, one->rows + phase * one->layer_floats, place, one->count * stripe / call->stripes,
                                 one->count * (stripe + 1) / call->stripes);
        place += one->count;
    }
    call->arithmetic->look(&pass, first, last, work);
}

static long work_floats(const struct dimensions *dim, long keys)
{
    long width = (long)dim->heads * dim->head_width, panel = 2 * MOST_LANES;
    return STRIPE_ROWS * (dim->channels + WIDE_AT_ONCE + panel + width) + panel * (dim->head_width + keys);
}

/* How many floats mynah_transform writes over besides its results, for so many frames after so many remembered. */
long mynah_transform_floats(const struct dimensions *dim, long frames, long remembered, int members)
{
    long width = (long)dim->heads * dim->head_width, keys = frames + remembered;
    return width * (frames + 4 * keys) + members * work_floats(dim, keys);
}

/* x (frames, channels) through some layers, in its place, after what is remembered in the pasts; with `kept` the
 * frames' own keys and values are left there as in a past. */
void mynah_transform(struct team *team, int lanes, const struct dimensions *dim, const struct layer *layers,
                     long layer_count, const struct past *remembered, long remembered_count, float *x, long frames,
                     float *kept, long kept_layer_floats, float *work)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->lanes != lanes) arithmetic++;
    long keys = frames, width = (long)dim->heads * dim->head_width, members = members_of(team);
    for (long i = 0; i < remembered_count; i++) keys += remembered[i].count;
    float *keys_and_values = work + width * frames;
    long stripes = (frames + STRIPE_ROWS * members - 1) / (STRIPE_ROWS * members) * members;
    struct call call = {arithmetic, dim, layers, remembered, layer_count, remembered_count, frames, keys, kept_layer_floats,
                        work_floats(dim, keys), stripes, 2 * lanes, x, work, keys_and_values, kept,
                        keys_and_values + 4 * width * keys};
    together(team, &(struct job){piece, &call, layer_count + 1, stripes});
}
