/* The Snake activation, in the vectors of one instruction set. Included behind vectors.h. */

/* w + sin(w)^2, the square to 1e-7 by Taylor's polynomial within a quarter turn. Pi is subtracted in three parts, so
 * that the remainder is exact up to some thousands of turns; far beyond them w dominates. */
INLINE vec NAME(snake)(vec w)
{
    const float rounding = 12582912.0f; /* 1.5 * 2^23: adding it and taking it away rounds to an integer */
    const vec quarter_turn = NAME(set1)(2.4674011f); /* squared */
    vec half_turns = (w * 0.318309886183790672f + rounding) - rounding;
    vec x = w - half_turns * 3.140625f - half_turns * 9.67502593994140625e-4f - half_turns * 1.509957990978376e-7f;
    vec y = x * x;
    y = NAME(min)(y, quarter_turn);
    vec series = y * -2.3889859e-8f + 2.7525562e-6f;
    series = (series * y - 1.9840874e-4f) * y + 8.3333310e-3f;
    series = (series * y - 1.6666667e-1f) * y + 1.0f;
    return w + y * series * series;
}
