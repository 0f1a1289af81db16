/* GELU and layer norm, in the vectors of one instruction set. Included behind vectors.h. */
#define NORM_EPSILON 1e-5f

/* GELU to 5e-8: x times the normal distribution's mass below it; the mass above |x| is exp2 of a polynomial in |x|. */
INLINE vec NAME(gelu)(vec x)
{
    const vec zero = NAME(set1)(0), far = NAME(set1)(6.0f);
    vec size = NAME(max)(x, zero - x), u = NAME(min)(size, far);
    vec series = u * -3.30928378e-5f + 7.69219878e-4f;
    series = (series * u - 8.08071703e-3f) * u + 5.34121048e-2f;
    series = (series * u + 4.58770973e-1f) * u + 1.1512017f;
    return NAME(max)(x, zero) - size * NAME(exp2)(zero - (series * u + 9.99993061e-1f));
}

INLINE float NAME(hsum)(vec x)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
}

/* Layer norm of rows without factors and offsets, which are in the next layer's weights. */
static void NAME(normalise)(const float *x, long rows, long channels, float *out)
{
    for (long row = 0; row < rows; row++, x += channels, out += channels) {
        vec sum = NAME(set1)(0), squares = NAME(set1)(0);
        for (long c = 0; c < channels; c += LANES) sum += NAME(load)(x + c);
        vec mean = NAME(set1)(NAME(hsum)(sum) / channels);
        for (long c = 0; c < channels; c += LANES) {
            vec off = NAME(load)(x + c) - mean;
            squares += off * off;
        }
        vec scale = NAME(set1)(1 / sqrtf(NAME(hsum)(squares) / channels + NORM_EPSILON));
        for (long c = 0; c < channels; c += LANES) NAME(store)(out + c, (NAME(load)(x + c) - mean) * scale);
    }
}
