/* The arithmetic of norms for one instruction set. Channels are a multiple of LANES. */
#include "vectors.h"

INLINE float NAME(total)(vec x)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

static void NAME(rows)(const struct norm *norm)
{
    const long channels = norm->channels;
    for (long row = 0; row < norm->rows; row++) {
        const float *x = norm->x + row * channels;
        float *out = norm->out + row * channels;
        vec sum = NAME(set1)(0), squares = NAME(set1)(0), mean = NAME(set1)(0);
        if (norm->offsets != NULL) {
            for (long c = 0; c < channels; c += LANES) sum += NAME(load)(x + c);
            mean = NAME(set1)(NAME(total)(sum) / channels);
        }
        for (long c = 0; c < channels; c += LANES) {
            vec off = NAME(load)(x + c) - mean;
            squares += off * off;
        }
        const vec scale = NAME(set1)(1 / sqrtf(NAME(total)(squares) / channels + norm->epsilon));
        for (long c = 0; c < channels; c += LANES) {
            vec y = (NAME(load)(x + c) - mean) * scale * NAME(load)(norm->factors + c);
            NAME(store)(out + c, norm->offsets == NULL ? y : y + NAME(load)(norm->offsets + c));
        }
    }
}

#include "isa_undef.h"
