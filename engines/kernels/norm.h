/* A norm as norm.py describes it; the structure here and there must agree. */
#ifndef MYNAH_NORM
#define MYNAH_NORM
#include <stdint.h>

struct norm {
    const float *x; /* (rows, channels) */
    const float *factors, *offsets; /* (channels); offsets NULL: the mean stays, and there are none */
    float *out; /* (rows, channels) */
    int64_t rows, channels;
    float epsilon;
};

void mynah_norm(int simd_width, const struct norm *norm);

#endif
