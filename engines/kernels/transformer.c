/* The CFM's transformer blocks on a CPU: norm, attention, norm and MLP of some rows while a core's cache holds them.
 *
 * Called through ctypes by transformer.py, which lays out the weights; the structures here, in transformer.h and there
 * must agree. A piece of the job takes a stripe of rows through a whole block. It needs only keys and values of other
 * rows, so each block is a phase. Scores lie with a query in each lane, so that softmax is arithmetic on whole vectors
 * and neither keys nor values are transposed. CPUs with AMX have transformer_amx.c.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "thread_pool.h"
#include "transformer.h"

#define STRIPE_ROWS 96 /* with their intermediate results they fit a core's L2 cache */
#define HIDDEN_AT_ONCE 256 /* hidden channels */
#define KEYS_AT_ONCE 64 /* a few lines of each one's values and the scores fit the L1 cache */
#define MAX_LANES 16

struct pass { /* one layer on its arrays */
    const struct dimensions *dimensions;
    const struct layer *layer;
    long frames, keys; /* keys: cached ones and the frames' own */
    float *x; /* (frames, channels) */
    float *queries; /* (frames, heads * head_width) */
    float *keys_in, *values_in; /* (heads, keys, head_width) */
    float *own_kv; /* where the frames' own keys and values are left, (frames, 2, heads * head_width), or NULL */
};

#define KERNEL "transformer_kernel.h"
#include "multi_isa.h"

static const struct arithmetic {
    int simd_width;
    void (*project_qkv)(const struct pass *, long, long, float *);
    void (*gather_past_kv)(const struct pass *, const float *, long, long, long);
    void (*attend_and_mlp)(const struct pass *, long, long, float *);
} arithmetics[] = {
    {4, project_qkv_plain, gather_past_kv_plain, attend_and_mlp_plain},
#if defined(__x86_64__)
    {8, project_qkv_avx2, gather_past_kv_avx2, attend_and_mlp_avx2},
    {16, project_qkv_avx512, gather_past_kv_avx512, attend_and_mlp_avx512},
#endif
};

struct call {
    const struct arithmetic *arithmetic;
    const struct dimensions *dimensions;
    const struct layer *layers;
    const struct past *past;
    long layer_count, past_count, frames, keys, own_layer_floats, work_floats, stripes, panel;
    float *x, *queries, *keys_and_values, *own_kv, *work;
};

/* Two buffers of keys and values in turn: the next layer's are written while this one's are still read. */
static struct pass pass_of(const struct call *call, long layer)
{
    long floats = call->keys * call->dimensions->heads * call->dimensions->head_width;
    float *keys = call->keys_and_values + layer % 2 * 2 * floats;
    return (struct pass){call->dimensions, call->layers + layer, call->frames, call->keys, call->x, call->queries, keys,
                         keys + floats, call->own_kv ? call->own_kv + layer * call->own_layer_floats : NULL};
}

/* The first row of a stripe. Long stripes begin with a panel of queries, so that no panel is computed half empty. */
static long stripe_begin(const struct call *call, long stripe)
{
    long panels = (call->frames + call->panel - 1) / call->panel;
    if (panels < 4 * call->stripes) return call->frames * stripe / call->stripes;
    long first = panels * stripe / call->stripes * call->panel;
    return first < call->frames ? first : call->frames;
}

/* A stripe's rows through the rest of the last layer, then its part of the next layer's keys and values. */
static void piece(void *argument, long phase, long stripe, int thread)
{
    const struct call *call = argument;
    long first = stripe_begin(call, stripe), last = stripe_begin(call, stripe + 1);
    float *work = call->work + thread * call->work_floats;
    if (phase > 0) {
        struct pass before = pass_of(call, phase - 1);
        call->arithmetic->attend_and_mlp(&before, first, last, work);
    }
    if (phase == call->layer_count) return;
    struct pass pass = pass_of(call, phase);
    long position = 0;
    for (const struct past *past = call->past; past < call->past + call->past_count; past++) {
        call->arithmetic->gather_past_kv(&pass, past->rows + phase * past->layer_floats, position,
                                         past->count * stripe / call->stripes,
                                         past->count * (stripe + 1) / call->stripes);
        position += past->count;
    }
    call->arithmetic->project_qkv(&pass, first, last, work);
}

static long work_floats(const struct dimensions *dim, long keys)
{
    long width = (long)dim->heads * dim->head_width, panel = 2 * MAX_LANES;
    return STRIPE_ROWS * (dim->channels + HIDDEN_AT_ONCE + panel + width) + panel * (dim->head_width + keys);
}

/* The floats of `work` that mynah_transform needs for `frames` frames behind `past` cached ones. */
long mynah_transform_floats(const struct dimensions *dim, long frames, long past, int threads)
{
    long width = (long)dim->heads * dim->head_width, keys = frames + past;
    return width * (frames + 4 * keys) + threads * work_floats(dim, keys);
}

/* x (frames, channels) through some layers, in place, behind the cached frames of `past`. If `own_kv` is not NULL, the
 * frames' own keys and values are left there, laid out as in a past. */
void mynah_transform(struct thread_pool *pool, int simd_width, const struct dimensions *dim, const struct layer *layers,
                     long layer_count, const struct past *past, long past_count, float *x, long frames, float *own_kv,
                     long own_layer_floats, float *work)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->simd_width != simd_width) arithmetic++;
    long keys = frames, width = (long)dim->heads * dim->head_width, threads = pool_size(pool);
    for (long i = 0; i < past_count; i++) keys += past[i].count;
    float *keys_and_values = work + width * frames;
    long stripes = (frames + STRIPE_ROWS * threads - 1) / (STRIPE_ROWS * threads) * threads;
    struct call call = {arithmetic, dim, layers, past, layer_count, past_count, frames, keys, own_layer_floats,
                        work_floats(dim, keys), stripes, 2 * simd_width, x, work, keys_and_values, own_kv,
                        keys_and_values + 4 * width * keys};
    parallel_for(pool, &(struct job){piece, &call, layer_count + 1, stripes});
}
