/* A CFM's residual convolutions on AMX, for several sequences at once; called through ctypes by causal_residual.py.
 *
 * A causal convolution of three taps, layer norm and mish, the embedded time, the same again, and the input through a
 * convolution of one tap beside them. What goes into a convolution lies as two arrays of bfloat16 (amx.h) behind the
 * two inputs before it, so that each tap reads the same rows, moved.
 */
#include <math.h>
#include <stddef.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "thread_pool.h"
#include "tiles.h"

#define TAPS 3
#define LOG2_E 1.44269504f
enum { BEGIN, CONVOLVE_FIRST, PASS_ON, CONVOLVE_SECOND, END, PHASES };

struct convolution { /* and the layer norm behind it */
    const float *weights; /* right pairs of tiles, panels of 32 outputs; depth is 32 channels, within those each tap */
    const float *bias, *factors, *offsets;
};

struct block {
    int64_t inputs, channels;
    struct convolution first, second;
    const float *skip_weights, *skip_bias;
};

struct sequence {
    const float *x; /* (frames, inputs) */
    const float *time; /* (channels) */
    const float *before_first, *before_second; /* the two inputs before each convolution's, `before_floats` apart */
    float *after_first, *after_second; /* those before the frame `new_frames`, (2, inputs) and (2, channels), or NULL */
    float *out; /* (frames, channels) */
    int64_t frames, new_frames, before_floats;
};

struct place { /* of a sequence's frames among all, in the split arrays and in those of sums */
    const struct sequence *sequence;
    long first_input, first_sum;
};

struct call {
    const struct block *block;
    long sequence_count, pieces;
    struct place *places;
    struct split input, inner;
    float *sums, *skipped; /* (frames, channels) */
};

#define KERNEL "causal_residual_kernel.h"
#include "amx_isa.h"

#ifdef HAS_AMX
static long places_floats(long sequences) { return rounded(sequences * sizeof(struct place), 64) / sizeof(float); }

/* The floats of `work` that mynah_causal_residual needs for sequences with this many frames, each rounded up to 16. */
long mynah_causal_residual_floats(const struct block *block, long frames, long sequences)
{
    long inputs = frames + rounded(sequences * (TAPS - 1), BLOCK_ROWS);
    return places_floats(sequences) + inputs * (block->inputs + block->channels) + 2 * frames * block->channels;
}

static struct split split_at(float *floats, long frames, long channels)
{
    uint16_t *upper = (uint16_t *)floats;
    return (struct split){upper, upper + frames * channels};
}

static void piece(void *argument, long phase, long piece, int thread)
{
    (void)thread;
    run_piece_amx(argument, phase, piece);
}

/* `work` begins with a line of the cache. */
void mynah_causal_residual(struct thread_pool *pool, const struct block *block, const struct sequence *sequences,
                           long sequence_count, float *work)
{
    struct call call = {.block = block, .sequence_count = sequence_count, .places = (struct place *)work};
    long frames = 0;
    for (long i = 0; i < sequence_count; i++) {
        call.places[i] = (struct place){sequences + i, frames + (i + 1) * (TAPS - 1), frames};
        frames += rounded(sequences[i].frames, BLOCK_ROWS);
    }
    long inputs = frames + rounded(sequence_count * (TAPS - 1), BLOCK_ROWS);
    call.sums = work + places_floats(sequence_count);
    call.skipped = call.sums + frames * block->channels;
    call.input = split_at(call.skipped + frames * block->channels, inputs, block->inputs);
    call.inner = split_at((float *)call.input.upper + inputs * block->inputs, inputs, block->channels);
    call.pieces = block->channels / 32;
    parallel_for(pool, &(struct job){piece, &call, PHASES, call.pieces});
}
#endif
