/* A dense layer as dense.py describes it; the structure here and there must agree. */
#ifndef MYNAH_DENSE
#define MYNAH_DENSE
#include <stdint.h>

#include "thread_pool.h"

#define PIECES_PER_THREAD 4 /* enough to make up for a late thread; each long enough for the prefetcher */
#define MAX_LANES 16

enum kind { PLAIN, GELU, ADD };
enum precision { FLOAT32, FLOAT16, INT8 };

struct dense {
    const float *x; /* (rows, depth) */
    const void *weights; /* panels of (depth, simd_width * 2) numbers; INT8: as in dense_int8.c */
    const float *bias, *residual; /* residual (rows, outputs), with ADD */
    float *out; /* (rows, outputs) */
    int64_t rows, depth, outputs;
    int32_t precision, kind;
};

/* `work`: as many floats as the functions beside these say; vnni: whether 8 bits are multiplied in one instruction. */
void mynah_dense(struct thread_pool *pool, int simd_width, const struct dense *dense, float *work);
void mynah_dense_int8(struct thread_pool *pool, int simd_width, int vnni, const struct dense *dense, float *work);

#endif
