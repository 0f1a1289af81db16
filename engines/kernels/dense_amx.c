/* A dense layer on AMX, for many rows: those of S3Gen's windows. Called through ctypes by dense.py.
 *
 * Rows go in chunks whose pairs of tiles (amx.h) stay in a core's cache while all weights pass by.
 */
#include <stddef.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "dense.h"
#include "thread_pool.h"
#include "tiles.h"

#define CHUNK_FLOATS (256 * 1024)

struct call {
    const struct dense *dense;
    long blocks, chunk_blocks, pieces;
    float *left;
};

__attribute__((unused)) static long blocks_of(const struct call *call, long chunk)
{
    long left = call->blocks - chunk * call->chunk_blocks;
    return left < call->chunk_blocks ? left : call->chunk_blocks;
}

#define KERNEL "dense_amx_kernel.h"
#include "amx_isa.h"

#ifdef HAS_AMX
static long chunk_blocks(long rows, long depth)
{
    long fitting = CHUNK_FLOATS / (BLOCK_ROWS * depth) / 2 * 2, blocks = rounded(rows, BLOCK_ROWS) / BLOCK_ROWS;
    if (fitting < 2) fitting = 2;
    return fitting < blocks ? fitting : blocks;
}

/* The floats of `work` that mynah_dense_amx needs. */
long mynah_dense_amx_floats(long rows, long depth) { return chunk_blocks(rows, depth) * BLOCK_ROWS * depth; }

/* Each chunk is two phases: its rows become pairs, and are multiplied. */
static void piece(void *argument, long phase, long piece, int thread)
{
    const struct call *call = argument;
    const long chunk = phase / 2, count = phase % 2 ? call->dense->outputs / 32 : blocks_of(call, chunk);
    const long first = count * piece / call->pieces, last = count * (piece + 1) / call->pieces;
    (void)thread;
    if (phase % 2)
        multiply_rows_of_amx(call, chunk, first, last);
    else
        put_rows_amx(call, chunk, first, last);
}

/* `work` begins with a line of the cache. */
void mynah_dense_amx(struct thread_pool *pool, const struct dense *dense, float *work)
{
    struct call call = {dense, rounded(dense->rows, BLOCK_ROWS) / BLOCK_ROWS, chunk_blocks(dense->rows, dense->depth),
                        (long)pool_size(pool) * PIECES_PER_THREAD, work};
    long chunks = (call.blocks + call.chunk_blocks - 1) / call.chunk_blocks;
    parallel_for(pool, &(struct job){piece, &call, 2 * chunks, call.pieces});
}
#endif
