/* A dense layer on a CPU, for the few rows of T3's step. It is bound by memory bandwidth, so weights are read once for
 * all rows and may be float16.
 *
 * Called through ctypes by dense.py, which lays out the weights.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "dense.h"
#include "thread_pool.h"

#define DEPTH_AT_ONCE 256
#define KERNEL "dense_kernel.h"
#include "multi_isa.h"

static const struct arithmetic {
    int simd_width;
    void (*panels)(const struct dense *, long, long, float *);
} arithmetics[] = {
    {4, panels_plain},
#if defined(__x86_64__)
    {8, panels_avx2},
    {16, panels_avx512},
#endif
};

struct call {
    const struct arithmetic *arithmetic;
    const struct dense *dense;
    long panels, pieces;
    float *work;
};

static long work_floats(long rows) { return 2 * MAX_LANES * (rows + DEPTH_AT_ONCE); }

static void piece(void *argument, long phase, long piece, int thread)
{
    (void)phase;
    const struct call *call = argument;
    long first = call->panels * piece / call->pieces, last = call->panels * (piece + 1) / call->pieces;
    call->arithmetic->panels(call->dense, first, last, call->work + thread * work_floats(call->dense->rows));
}

/* The floats of `work` that mynah_dense needs. */
long mynah_dense_floats(long rows, int threads) { return threads * work_floats(rows); }

void mynah_dense(struct thread_pool *pool, int simd_width, const struct dense *dense, float *work)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->simd_width != simd_width) arithmetic++;
    long panels = (dense->outputs + 2 * simd_width - 1) / (2 * simd_width);
    long pieces = (long)pool_size(pool) * PIECES_PER_THREAD;
    struct call call = {arithmetic, dense, panels, pieces < panels ? pieces : panels, work};
    parallel_for(pool, &(struct job){piece, &call, 1, call.pieces});
}
