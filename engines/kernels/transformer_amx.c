/* The CFM's transformer blocks on AMX, for several sequences at once; called through ctypes by transformer.py.
 *
 * On tiles products are so quick that weights and cached keys wait for memory. So each is read once, by one core: a
 * piece of a dense layer is some of its outputs for the rows of all sequences, a piece of attention some heads. A layer
 * is five phases, and what one leaves for the next lies in pairs of tiles (amx.h).
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "thread_pool.h"
#include "tiles.h"
#include "transformer.h"

#define KEYS_AT_ONCE 128 /* their scores and weights fit the L1 cache */
#define PIECES_PER_THREAD 4
enum { PROJECT, ATTEND, ADD_ATTENDED, WIDEN, NARROW, PHASES };

struct sequence {
    const struct past *pasts;
    int64_t past_count, frames;
    float *x; /* (frames, channels) */
    float *own_kv; /* where the frames' own keys and values are left, laid out as in a past, or NULL */
    int64_t own_layer_floats;
};

struct block { /* `count` frames of a sequence, from `first` on */
    const struct sequence *sequence;
    long first, count;
    long key, keys; /* the place of its first key among all own ones, and the room for those of its sequence */
};

struct call {
    const struct dimensions *dimensions;
    const struct layer *layers;
    const struct sequence *sequences;
    long sequence_count, block_count, key_count, pieces;
    struct block *blocks;
    long *prepared; /* for each thread the phase whose input it has as pairs */
    float *queries; /* left pairs (heads, blocks, head_width) */
    float *keys; /* right pairs of 32 keys (heads, keys, head_width); those of the past are not here */
    float *values; /* right pairs of 32 numbers (heads, head_width, keys), a sequence's keys together */
    float *attended, *hidden; /* left pairs (blocks, heads * head_width) and (blocks, hidden) */
    float *work; /* `work_floats` of each thread */
    long work_floats;
};

#define KERNEL "transformer_amx_kernel.h"
#include "amx_isa.h"

#ifdef HAS_AMX
static long blocks_of(const struct sequence *sequence) { return rounded(sequence->frames, BLOCK_ROWS) / BLOCK_ROWS; }

static long thread_floats(const struct dimensions *dim, long blocks)
{
    long rows = blocks * BLOCK_ROWS;
    return rows * (dim->channels + dim->head_width + BLOCK_ROWS + 1) + BLOCK_ROWS * dim->channels +
           2 * KEYS_AT_ONCE * dim->head_width;
}

/* The floats of `work` that mynah_transform_amx needs for as many blocks of 16 frames and sequences. */
long mynah_transform_amx_floats(const struct dimensions *dim, long blocks, long sequences, int threads)
{
    long width = (long)dim->heads * dim->head_width, rows = blocks * BLOCK_ROWS, keys = rows + BLOCK_ROWS * sequences;
    long bookkeeping = rounded(blocks * sizeof(struct block) + threads * sizeof(long), 64) / sizeof(float);
    return bookkeeping + rows * (2 * width + dim->hidden) + 2 * keys * width + threads * thread_floats(dim, blocks);
}

static void piece(void *argument, long phase, long piece, int thread)
{
    run_piece_amx(argument, phase / PHASES, phase, piece, thread);
}

/* Each sequence's x through some layers, in place, behind its cached frames. `work` begins with a line of the cache. */
void mynah_transform_amx(struct thread_pool *pool, const struct dimensions *dim, const struct layer *layers,
                         long layer_count, const struct sequence *sequences, long sequence_count, float *work)
{
    long width = (long)dim->heads * dim->head_width, threads = pool_size(pool);
    struct call call = {.dimensions = dim, .layers = layers, .sequences = sequences, .sequence_count = sequence_count};
    for (long i = 0; i < sequence_count; i++) call.block_count += blocks_of(sequences + i);
    call.blocks = (struct block *)work;
    struct block *block = call.blocks;
    for (const struct sequence *one = sequences; one < sequences + sequence_count; one++) {
        long keys = rounded(one->frames, 2 * BLOCK_ROWS);
        for (long first = 0; first < one->frames; first += BLOCK_ROWS) {
            long count = one->frames - first < BLOCK_ROWS ? one->frames - first : BLOCK_ROWS;
            *block++ = (struct block){one, first, count, call.key_count + first, keys};
        }
        call.key_count += keys;
    }
    call.prepared = (long *)block;
    for (long i = 0; i < threads; i++) call.prepared[i] = -1;
    long rows = call.block_count * BLOCK_ROWS;
    call.queries = work + rounded(call.block_count * sizeof(struct block) + threads * sizeof(long), 64) / sizeof(float);
    call.keys = call.queries + rows * width;
    call.values = call.keys + call.key_count * width;
    call.attended = call.values + call.key_count * width;
    call.hidden = call.attended + rows * width;
    call.work = call.hidden + rows * dim->hidden;
    call.work_floats = thread_floats(dim, call.block_count);
    call.pieces = PIECES_PER_THREAD * threads;
    parallel_for(pool, &(struct job){piece, &call, layer_count * PHASES, call.pieces});
}
#endif
