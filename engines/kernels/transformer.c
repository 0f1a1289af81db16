/* The CFM's transformer blocks on a CPU: norm, attention, norm and GELU layers of some rows while a core's cache holds
 * them.
 *
 * Called through ctypes by transformer.py, which lays the weights out; the structures here and there agree. Every member
 * of the team takes some rows through a whole block; all it needs of the others is their keys and values, for which
 * they meet once a block. Scores stand with a query in each lane, so that softmax is arithmetic of whole vectors and
 * neither keys nor values are ever turned.
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

struct piece { /* remembered: for each layer (rows, 2, heads * head_width) */
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
    const struct piece *pieces;
    long layer_count, piece_count, frames, keys, kept_layer_floats, work_floats;
    float *x, *queries, *keys_and_values, *kept, *work;
};

/* Own rows are the member's alone from the first block to the last. Keys and values of two blocks in turn, as one
 * member may begin the next block while another still looks at this one's. */
static void stack(struct team *team, void *argument, int member)
{
    const struct call *call = argument;
    long width = (long)call->dimensions->heads * call->dimensions->head_width;
    long first = call->frames * member / team->members, last = call->frames * (member + 1) / team->members;
    float *work = call->work + member * call->work_floats;
    for (long i = 0; i < call->layer_count; i++) {
        float *keys = call->keys_and_values + i % 2 * 2 * call->keys * width;
        struct pass pass = {call->dimensions, call->layers + i, call->frames, call->keys, call->x, call->queries, keys,
                            keys + call->keys * width, call->kept ? call->kept + i * call->kept_layer_floats : NULL};
        long place = 0;
        for (const struct piece *piece = call->pieces; piece < call->pieces + call->piece_count; piece++) {
            call->arithmetic->recall(&pass, piece->rows + i * piece->layer_floats, place,
                                     piece->count * member / team->members,
                                     piece->count * (member + 1) / team->members);
            place += piece->count;
        }
        call->arithmetic->look(&pass, first, last, work);
        meet(team);
        call->arithmetic->mix(&pass, first, last, work);
    }
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

/* x (frames, channels) through some layers, in its place, after what is remembered in the pieces; with `kept` the
 * frames' own keys and values are left there as in a piece. */
void mynah_transform(struct team *team, int lanes, const struct dimensions *dim, const struct layer *layers,
                     long layer_count, const struct piece *pieces, long piece_count, float *x, long frames, float *kept,
                     long kept_layer_floats, float *work)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->lanes != lanes) arithmetic++;
    long keys = frames, width = (long)dim->heads * dim->head_width;
    for (long i = 0; i < piece_count; i++) keys += pieces[i].count;
    float *keys_and_values = work + width * frames;
    struct call call = {arithmetic, dim, layers, pieces, layer_count, piece_count, frames, keys, kept_layer_floats,
                        work_floats(dim, keys), x, work, keys_and_values, kept, keys_and_values + 4 * width * keys};
    together(team, stack, &call);
}
