/* A dense layer whose weights are 8 bits, in blocks of a depth of 32 that share a scale, and its rows 16 bits in the
 * same blocks: a block's sum is an exact integer. Such weights are half of float16's to read, and an instruction of the
 * CPU multiplies four of them.
 *
 * Called through ctypes by dense.py, which lays out the weights: panels of simd_width * 2 outputs; in each, block after
 * block, the outputs' scales as bfloat16, then for each group of four steps of depth every output's four weights.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <string.h>

#include "dense.h"
#include "thread_pool.h"

#define BLOCK 32 /* steps of depth */
#define GROUPS (BLOCK / 4)
#define BLOCK_BYTES(outputs) ((outputs) * (BLOCK + 2))
#define LARGEST_NUMBER 32639.0f /* 127 * 256 + 127: the upper byte is rounded, so that the lower one has a sign */
#define SMALLEST 1e-30f /* a block of smaller numbers is zero */

struct numbers { /* a block of a row */
    int pairs[GROUPS][2]; /* as an instruction set's products take them */
    int sum;
    float scale;
};

static long blocks_of(long depth) { return (depth + BLOCK - 1) / BLOCK; }

#if defined(__x86_64__) && __GNUC__ >= 11 /* earlier compilers do not know it in vectors of 8 */
#define KERNEL_HAS_VNNI
#endif
#define KERNEL "dense_int8_kernel.h"
#include "multi_isa.h"

static const struct arithmetic {
    int simd_width, vnni;
    void (*quantise_blocks)(const struct dense *, struct numbers *, long, long);
    void (*panels)(const struct dense *, const struct numbers *, long, long, float *);
} arithmetics[] = {
    {4, 0, quantise_blocks_plain, panels_plain},
#if defined(__x86_64__)
    {8, 0, quantise_blocks_avx2, panels_avx2},
    {16, 0, quantise_blocks_avx512, panels_avx512},
#endif
#ifdef KERNEL_HAS_VNNI
    {8, 1, quantise_blocks_avxvnni, panels_avxvnni},
    {16, 1, quantise_blocks_avx512vnni, panels_avx512vnni},
#endif
};

struct call {
    const struct arithmetic *arithmetic;
    const struct dense *dense;
    struct numbers *numbers;
    long blocks, panels, pieces;
    float *work;
};

static long work_floats(long rows) { return 2 * MAX_LANES * rows; }

static void piece(void *argument, long phase, long piece, int thread)
{
    const struct call *call = argument;
    long of = phase == 0 ? call->blocks : call->panels;
    long first = of * piece / call->pieces, last = of * (piece + 1) / call->pieces;
    if (phase == 0)
        call->arithmetic->quantise_blocks(call->dense, call->numbers, first, last);
    else
        call->arithmetic->panels(call->dense, call->numbers, first, last,
                                 call->work + thread * work_floats(call->dense->rows));
}

/* The floats of `work` that mynah_dense_int8 needs. */
long mynah_dense_int8_floats(long rows, long depth, int threads)
{
    return threads * work_floats(rows) + rows * blocks_of(depth) * (long)(sizeof(struct numbers) / sizeof(float));
}

/* Whether this CPU multiplies 8 bits in one instruction, in vectors of this number of floats. */
int mynah_vnni(int simd_width)
{
#ifdef KERNEL_HAS_VNNI
    __builtin_cpu_init();
    if (simd_width == 16) return __builtin_cpu_supports("avx512vnni") != 0;
    if (simd_width == 8) return __builtin_cpu_supports("avxvnni") != 0;
#else
    (void)simd_width;
#endif
    return 0;
}

void mynah_dense_int8(struct thread_pool *pool, int simd_width, int vnni, const struct dense *dense, float *work)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->simd_width != simd_width || arithmetic->vnni != vnni) arithmetic++;
    long panels = (dense->outputs + 2 * simd_width - 1) / (2 * simd_width);
    long pieces = (long)pool_size(pool) * PIECES_PER_THREAD, threads = pool_size(pool);
    struct numbers *numbers = (struct numbers *)(work + threads * work_floats(dense->rows));
    struct call call = {arithmetic, dense, numbers, dense->rows * blocks_of(dense->depth), panels,
                        pieces < panels ? pieces : panels, work};
    parallel_for(pool, &(struct job){piece, &call, 2, call.pieces});
}
