/* A dense layer on a CPU, for the few rows of T3's step: bound by how fast weights come from memory, so that they are
 * read once for all rows and may be halves.
 *
 * Called through ctypes by dense.py, which lays the weights out; the structure here and there agree.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <stdint.h>

#include "team.h"

#define DEPTH_AT_ONCE 256
#define PIECES_OF_A_MEMBER 4 /* a late one is made up for; each is long enough for memory to be read ahead */
#define MOST_LANES 16

enum kind { PLAIN, GELU, ADD };

struct dense {
    const float *x; /* (rows, depth) */
    const void *weights; /* panels of (depth, lanes * 2) */
    const float *bias, *residual; /* residual (rows, outputs), with ADD */
    float *out; /* (rows, outputs) */
    int64_t rows, depth, outputs;
    int32_t halves, kind;
};

#define KERNEL "dense_kernel.h"
#include "each_set.h"

static const struct arithmetic {
    int lanes;
    void (*panels)(const struct dense *, long, long, float *);
} arithmetics[] = {
    {4, panels_plain},
#if defined(__x86_64__)
    {8, panels_avx2},
    {16, panels_avx512},
#endif
};

struct call {
    const struct arithmetic *arithmetic;
    const struct dense *dense;
    long panels, pieces;
    float *work;
};

static long work_floats(long rows) { return 2 * MOST_LANES * (rows + DEPTH_AT_ONCE); }

static void piece(void *argument, long phase, long piece, int member)
{
    (void)phase;
    const struct call *call = argument;
    call->arithmetic->panels(call->dense, call->panels * piece / call->pieces, call->panels * (piece + 1) / call->pieces,
                             call->work + member * work_floats(call->dense->rows));
}

/* How many floats mynah_dense writes over besides its result. */
long mynah_dense_floats(long rows, int members) { return members * work_floats(rows); }

void mynah_dense(struct team *team, int lanes, const struct dense *dense, float *work)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->lanes != lanes) arithmetic++;
    long panels = (dense->outputs + 2 * lanes - 1) / (2 * lanes), pieces = (long)members_of(team) * PIECES_OF_A_MEMBER;
    struct call call = {arithmetic, dense, panels, pieces < panels ? pieces : panels, work};
    together(team, &(struct job){piece, &call, 1, call.pieces});
}
