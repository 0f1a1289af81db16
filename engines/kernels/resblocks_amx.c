/* HiFT's residual blocks on AMX, by the definition of a convolution; called through ctypes by resblocks.py.
 *
 * What goes into a convolution lies as two arrays of bfloat16, the upper and lower parts of its numbers (amx.h), with
 * rows of zeros before and behind it. A row of its product is a frame, and each tap reads the same rows, moved.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "thread_pool.h"
#include "tiles.h"

#define STRIPE_FRAMES 128
#define MARGIN_FRAMES 32 /* at least the farthest tap's distance */
#define PIECES_PER_THREAD 4
#define L2_FLOATS (256 * 1024) /* weights that stay in a core's cache beside what they are multiplied with */

struct layer { /* a convolution and the Snake before it */
    const float *alpha; /* (channels), or NULL if the convolution before has it in its weights */
    const float *weights; /* right pairs of tiles, panels of 32 outputs; depth is 32 channels, within those each tap */
    const float *bias;
    int32_t taps, dilation;
};

struct call {
    const struct layer *layers;
    long pairs, frames, channels, pieces;
    const float *x;
    float *total, *residual;
    struct split active, inner;
};

#define KERNEL "resblocks_amx_kernel.h"
#include "amx_isa.h"

#ifdef HAS_AMX
static long split_floats(long frames, long channels) { return (frames + STRIPE_FRAMES + 2 * MARGIN_FRAMES) * channels; }

static struct split split_at(float *floats, long frames, long channels)
{
    uint16_t *upper = (uint16_t *)floats, *lower = upper + split_floats(frames, channels);
    return (struct split){upper + MARGIN_FRAMES * channels, lower + MARGIN_FRAMES * channels};
}

static void zero_around(struct split split, long frames, long channels)
{
    long before = MARGIN_FRAMES * channels * sizeof(uint16_t);
    long behind = (STRIPE_FRAMES + MARGIN_FRAMES) * channels * sizeof(uint16_t);
    memset(split.upper - MARGIN_FRAMES * channels, 0, before);
    memset(split.lower - MARGIN_FRAMES * channels, 0, before);
    memset(split.upper + frames * channels, 0, behind);
    memset(split.lower + frames * channels, 0, behind);
}

/* The floats of `work` that mynah_add_block_amx needs. */
long mynah_add_block_amx_floats(long frames, long channels)
{
    return frames * channels + 2 * split_floats(frames, channels);
}

/* Phase 0 is the first Snake, each further phase a convolution. */
static void piece(void *argument, long phase, long piece, int thread)
{
    const struct call *call = argument;
    (void)thread;
    if (phase == 0)
        begin_amx(call, call->frames * piece / call->pieces, call->frames * (piece + 1) / call->pieces);
    else
        convolve_amx(call, phase - 1, piece);
}

/* total += the residual block of x, both (frames, channels). `work` begins with a line of the cache. */
void mynah_add_block_amx(struct thread_pool *pool, const struct layer *layers, int pairs, long frames, long channels,
                         const float *x, float *total, float *work)
{
    float *first = work + frames * channels, *second = first + split_floats(frames, channels);
    struct call call = {layers, pairs, frames, channels, PIECES_PER_THREAD * pool_size(pool), x, total, work,
                        split_at(first, frames, channels), split_at(second, frames, channels)};
    zero_around(call.active, frames, channels);
    zero_around(call.inner, frames, channels);
    parallel_for(pool, &(struct job){piece, &call, 1 + 2 * pairs, call.pieces});
}
#endif
