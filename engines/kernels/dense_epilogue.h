/* What a dense layer does with its products, for one instruction set: the bias, then the GELU or the residual.
 *
 * Included behind vectors.h.
 */
/* GELU in its tanh form, as x times a logistic function. */
INLINE vec NAME(tanh_gelu)(vec x)
{
    const vec zero = NAME(set1)(0), one = NAME(set1)(1);
    vec t = (x * x * 0.044715f + 1.0f) * x * 2.302208198f; /* 2 sqrt(2 / pi) log2(e) */
    vec small = NAME(exp2)(NAME(min)(t, zero - t));
    return x * NAME(select)(t < zero, small, one) / (small + 1.0f);
}

/* One panel's products with bias, then the GELU or the residual. */
INLINE void NAME(epilogue)(const struct dense *dense, const float *products, long channel, long c)
{
    vec bias = NAME(load)(dense->bias + c);
    for (long row = 0; row < dense->rows; row++) {
        vec y = NAME(load)(products + row * PANEL + c - channel) + bias;
        float *out = dense->out + row * dense->outputs + c;
        if (dense->kind == GELU) y = NAME(tanh_gelu)(y);
        if (dense->kind == ADD) y += NAME(load)(dense->residual + row * dense->outputs + c);
        NAME(store)(out, y);
    }
}
