/* The attention of T3's step on a CPU: for each of several sequences one row, over the keys and values of that sequence.
 *
 * It is bound by memory. Sequences that begin with the same prefix read it once: each tile of it serves all their rows
 * while it is in the L1 cache. A row's sums run over its positions in the same order whatever the other rows are, so its
 * result does not depend on them.
 *
 * Called through ctypes by attention.py; the structures here and there must agree.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "thread_pool.h"

#define TILE 32 /* positions of a prefix that are read at once: keys of 64 floats take 8 KB */
#define MAX_VECTORS 16
#define MAX_TURNS 4 /* attention.py leaves room for so many */

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

#define KERNEL "attention_kernel.h"
#include "multi_isa.h"

static const struct arithmetic {
    int simd_width;
    void (*group)(const struct attention *, const struct sequence *, long, long, float *);
} arithmetics[] = {
    {4, group_plain},
#if defined(__x86_64__)
    {8, group_avx2},
    {16, group_avx512},
#endif
};

struct call {
    const struct arithmetic *arithmetic;
    const struct attention *attention;
    float *work;
};

static void piece(void *argument, long phase, long piece, int thread)
{
    (void)phase;
    const struct call *call = argument;
    const struct attention *attention = call->attention;
    const int64_t *group = attention->groups + piece / attention->heads;
    call->arithmetic->group(attention, attention->sequences + group[0], group[1] - group[0], piece % attention->heads,
                            call->work + thread * attention->work_floats);
}

/* Writes each row's key and value behind its sequence's, and attends to all of them. */
void mynah_attention(struct thread_pool *pool, int simd_width, const struct attention *attention, float *work)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->simd_width != simd_width) arithmetic++;
    struct call call = {arithmetic, attention, work};
    parallel_for(pool, &(struct job){piece, &call, 1, attention->group_count * attention->heads});
}
