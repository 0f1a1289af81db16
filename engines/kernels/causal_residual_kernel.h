/* The arithmetic of a CFM's residual convolutions on AMX. Channels are multiples of 32. */
#include "vectors.h"
#include "transformer_math.h"
#include "amx.h"

/* x tanh(log(1 + e^x)), in powers of e^-|x|. */
INLINE vec NAME(mish)(vec x)
{
    const vec zero = NAME(set1)(0), one = NAME(set1)(1);
    vec power = NAME(exp2)(NAME(min)(x, zero - x) * LOG2_E), square = power * power;
    vec above = 2 * power + NAME(select)(x < zero, square, one);
    return x * above / (above + 2 * NAME(select)(x < zero, one, square));
}

/* A frame of `channels` numbers, split at frame `at`. */
INLINE void NAME(put_frame)(struct split to, long at, const float *frame, long channels)
{
    for (long c = 0; c < channels; c += PANEL)
        NAME(put_split)(to, at * channels + c, NAME(load)(frame + c), NAME(load)(frame + c + LANES));
}

INLINE void NAME(copy)(float *to, const float *from, long count)
{
    for (long c = 0; c < count; c += LANES) NAME(store)(to + c, NAME(load)(from + c));
}

/* The state behind a convolution: its last inputs, of which `frame` is one if it is among them. Frames before a
 * sequence's first are -2 and -1. */
INLINE void NAME(keep)(const struct sequence *sequence, float *after, long frame, const float *input, long count)
{
    long index = frame - (sequence->new_frames - TAPS + 1);
    if (after != NULL && index >= 0 && index < TAPS - 1) NAME(copy)(after + index * count, input, count);
}

/* An input of the first convolution, which may be one of those before the sequence. */
static void NAME(begin)(const struct call *call, const struct place *place, long frame)
{
    const struct sequence *sequence = place->sequence;
    const long inputs = call->block->inputs, channels = call->block->channels, at = place->first_input + frame;
    const float *input = sequence->x + frame * inputs;
    if (frame < 0) {
        input = sequence->before_first + (frame + TAPS - 1) * sequence->before_floats;
        const float *second = sequence->before_second + (frame + TAPS - 1) * sequence->before_floats;
        NAME(put_frame)(call->inner, at, second, channels);
        NAME(keep)(sequence, sequence->after_second, frame, second, channels);
    }
    NAME(put_frame)(call->input, at, input, inputs);
    NAME(keep)(sequence, sequence->after_first, frame, input, inputs);
}

/* A convolution's sums, normalised and activated in place. */
INLINE void NAME(activate)(const struct convolution *convolution, float *sums, long channels)
{
    for (long c = 0; c < channels; c += LANES)
        NAME(store)(sums + c, NAME(load)(sums + c) + NAME(load)(convolution->bias + c));
    NAME(normalise)(sums, 1, channels, sums);
    for (long c = 0; c < channels; c += LANES)
        NAME(store)(sums + c, NAME(mish)(NAME(load)(sums + c) * NAME(load)(convolution->factors + c) +
                                         NAME(load)(convolution->offsets + c)));
}

/* A frame between the convolutions. */
static void NAME(pass_on)(const struct call *call, const struct place *place, long frame)
{
    const struct sequence *sequence = place->sequence;
    const long channels = call->block->channels;
    float *sums = call->sums + (place->first_sum + frame) * channels;
    NAME(activate)(&call->block->first, sums, channels);
    for (long c = 0; c < channels; c += LANES)
        NAME(store)(sums + c, NAME(load)(sums + c) + NAME(load)(sequence->time + c));
    NAME(put_frame)(call->inner, place->first_input + frame, sums, channels);
    NAME(keep)(sequence, sequence->after_second, frame, sums, channels);
}

/* A frame of the result. */
static void NAME(end)(const struct call *call, const struct place *place, long frame)
{
    const long channels = call->block->channels, at = (place->first_sum + frame) * channels;
    float *out = place->sequence->out + frame * channels;
    NAME(activate)(&call->block->second, call->sums + at, channels);
    for (long c = 0; c < channels; c += LANES)
        NAME(store)(out + c, NAME(load)(call->sums + at + c) + NAME(load)(call->skipped + at + c) +
                                 NAME(load)(call->block->skip_bias + c));
}

/* A panel of 32 outputs of a convolution, for all sequences. `at`: the first tap's place behind the oldest input */
static void NAME(convolve)(const struct call *call, struct split in, long inputs, long taps, long at,
                           const float *weights, float *out, long panel)
{
    const long channels = call->block->channels;
    const float *right = weights + panel * PANEL * taps * inputs;
    float products[2 * TILE_ROWS * PANEL] __attribute__((aligned(64)));
    for (long i = 0; i < call->sequence_count; i++) {
        const struct place *place = call->places + i;
        const long frames = place->sequence->frames;
        for (long t = 0; t < frames; t += 2 * TILE_ROWS) {
            const long count = NAME(least)(frames - t, 2 * TILE_ROWS);
            const long from = (place->first_input - TAPS + 1 + at + t) * inputs;
            if (count <= TILE_ROWS)
                NAME(convolution)(in, from, inputs, taps, inputs, right, products, 1, i + t == 0);
            else
                NAME(convolution)(in, from, inputs, taps, inputs, right, products, 2, i + t == 0);
            for (long row = 0; row < count; row++)
                NAME(copy)(out + (place->first_sum + t + row) * channels + panel * PANEL, products + row * PANEL, PANEL);
        }
    }
}

static void NAME(run_piece)(const struct call *call, long phase, long piece)
{
    const struct block *block = call->block;
    if (phase == CONVOLVE_FIRST || phase == CONVOLVE_SECOND) {
        NAME(begin_tiles)();
        if (phase == CONVOLVE_FIRST) {
            NAME(convolve)(call, call->input, block->inputs, TAPS, 0, block->first.weights, call->sums, piece);
            NAME(convolve)(call, call->input, block->inputs, 1, TAPS - 1, block->skip_weights, call->skipped, piece);
        } else {
            NAME(convolve)(call, call->inner, block->channels, TAPS, 0, block->second.weights, call->sums, piece);
        }
        NAME(end_tiles)();
        return;
    }
    for (const struct place *place = call->places; place < call->places + call->sequence_count; place++) {
        const long before = phase == BEGIN ? TAPS - 1 : 0, all = place->sequence->frames + before;
        const long last = all * (piece + 1) / call->pieces - before;
        for (long frame = all * piece / call->pieces - before; frame < last; frame++)
            switch (phase) {
                case BEGIN: NAME(begin)(call, place, frame); break;
                case PASS_ON: NAME(pass_on)(call, place, frame); break;
                case END: NAME(end)(call, place, frame); break;
            }
    }
}

#include "isa_undef.h"
