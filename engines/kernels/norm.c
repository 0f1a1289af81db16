/* Layer norm, or the norm by the root of the mean square, of a few rows on a CPU: those of T3's step. torch shares two
 * rows between threads already, and waking one takes longer than the norm.
 *
 * Called through ctypes by norm.py.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <stddef.h>

#include "norm.h"

#define KERNEL "norm_kernel.h"
#include "multi_isa.h"

static const struct arithmetic {
    int simd_width;
    void (*rows)(const struct norm *);
} arithmetics[] = {
    {4, rows_plain},
#if defined(__x86_64__)
    {8, rows_avx2},
    {16, rows_avx512},
#endif
};

void mynah_norm(int simd_width, const struct norm *norm)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->simd_width != simd_width) arithmetic++;
    arithmetic->rows(norm);
}
