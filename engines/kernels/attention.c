/* The attention of T3's step on a CPU: for each of several sequences one row, over the keys and values of that sequence.
 *
 * It is bound by memory. Sequences that begin with the same prefix read it once: each tile of it serves all their rows
 * while it is in the L1 cache. A row's sums run over its positions in the same order whatever the other rows are, so its
 * result does not depend on them.
 *
 * Called through ctypes by attention.py.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "attention.h"

#define TILE 32 /* positions of a prefix that are read at once: keys of 64 floats take 8 KB */
#define MAX_VECTORS 16
#define MAX_TURNS 4 /* attention.py leaves room for so many */

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

void mynah_attention(struct thread_pool *pool, int simd_width, const struct attention *attention, float *work)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->simd_width != simd_width) arithmetic++;
    struct call call = {arithmetic, attention, work};
    parallel_for(pool, &(struct job){piece, &call, 1, attention->group_count * attention->heads});
}
