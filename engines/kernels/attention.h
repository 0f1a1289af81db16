/* The attention of T3's step as attention.py describes it; the structures here and there must agree. */
#ifndef MYNAH_ATTENTION
#define MYNAH_ATTENTION
#include <stdint.h>

#include "thread_pool.h"

struct sequence {
    void *cache; /* (layers, 2, heads, capacity, dim), float32 or float16 */
    const void *prefix; /* (layers, 2, heads, prefix_positions, dim), equal to the start of `cache` */
    int64_t capacity, positions, prefix_positions; /* `positions`: held before this row */
    int64_t row; /* of qkv and out */
};

struct attention {
    const float *qkv; /* (rows, 3, heads, dim) */
    const struct sequence *sequences; /* (rows), those of one prefix one after the other */
    const int64_t *groups; /* (groups + 1), the first sequence of each prefix */
    float *out; /* (rows, heads, dim) */
    int64_t group_count, layer, heads, dim;
    int64_t group_rows, work_floats; /* the largest group, and the work of one thread */
    float scale; /* of scores, for powers of two */
    int32_t half; /* whether caches are float16, which needs an instruction set that converts it */
};

/* Writes each row's key and value behind its sequence's, and attends to all of them. */
void mynah_attention(struct thread_pool *pool, int simd_width, const struct attention *attention, float *work);

#endif
