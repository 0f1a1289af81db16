/* GPT-2's blocks for the rows of T3's step, one each of several sequences, in one call: between the kernels of norms,
 * dense layers and attention nothing is left to Python, whose calls take as long as a fifth of the step.
 *
 * Called through ctypes by gpt2_blocks.py; the structures here and there must agree.
 */
#include <stddef.h>

#include "attention.h"
#include "dense.h"
#include "norm.h"

struct block { /* without rows and arrays */
    struct norm norm_1, norm_2;
    struct dense qkv, out_proj, widen, narrow;
};

struct step {
    const struct block *blocks;
    struct attention *attention; /* without arrays */
    float *attention_work, *dense_work;
    float *x; /* (rows, width), which the result replaces */
    float *between, *normal, *attended; /* (rows, width) */
    float *qkv; /* of each layer (rows, 3, heads, dim), `qkv_floats` apart */
    float *hidden; /* (rows, hidden) */
    int64_t count, rows, qkv_floats;
    int32_t dense_width, norm_width, attention_width, vnni; /* widths: SIMD widths */
};

static void normalise(const struct step *step, struct norm norm, const float *x)
{
    norm.x = x, norm.out = step->normal, norm.rows = step->rows;
    mynah_norm(step->norm_width, &norm);
}

static void multiply(struct thread_pool *pool, const struct step *step, struct dense dense, const float *x,
                     const float *residual, float *out)
{
    dense.x = x, dense.residual = residual, dense.out = out, dense.rows = step->rows;
    if (dense.precision == INT8)
        mynah_dense_int8(pool, step->dense_width, step->vnni, &dense, step->dense_work);
    else
        mynah_dense(pool, step->dense_width, &dense, step->dense_work);
}

void mynah_gpt2_blocks(struct thread_pool *pool, const struct step *step)
{
    for (long layer = 0; layer < step->count; layer++) {
        const struct block *block = step->blocks + layer;
        struct attention *attention = step->attention;
        float *qkv = step->qkv + layer * step->qkv_floats;
        normalise(step, block->norm_1, step->x);
        multiply(pool, step, block->qkv, step->normal, NULL, qkv);
        attention->layer = layer, attention->qkv = qkv, attention->out = step->attended;
        mynah_attention(pool, step->attention_width, attention, step->attention_work);
        multiply(pool, step, block->out_proj, step->attended, step->x, step->between);
        normalise(step, block->norm_2, step->between);
        multiply(pool, step, block->widen, step->normal, NULL, step->hidden);
        multiply(pool, step, block->narrow, step->hidden, step->between, step->x);
    }
}
