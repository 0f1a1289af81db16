/* What transformer.c and transformer_amx.c are given: dimensions, weights and cached keys and values. */
#ifndef MYNAH_TRANSFORMER
#define MYNAH_TRANSFORMER

#include <stdint.h>

struct dimensions {
    int32_t channels, heads, head_width, hidden;
};

struct layer { /* panels of (depth, simd_width * 2), or pairs of tiles; norms are folded into the layers behind them */
    const float *qkv, *qkv_bias; /* queries are scaled for exp2 */
    const float *out_proj, *out_proj_bias;
    const float *fc1, *fc1_bias;
    const float *fc2, *fc2_bias; /* for transformer.c in blocks of HIDDEN_AT_ONCE of its depth, each in panels */
};

struct past { /* cached keys and values: for each layer (rows, 2, heads * head_width) */
    const float *rows;
    int64_t count, layer_floats;
};

#endif
