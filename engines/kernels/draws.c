/* The draws of speech tokens on a CPU: for each of several rows of logits, what the settings rule out, the repetition
 * penalty, and the token whose interval of cumulated probability holds the row's random number.
 *
 * The arithmetic is that of `Rows` and `GuidedRows` in engines/t3/sampler.py: scores are float32, in the same operations;
 * masses and cumulated probabilities are float64. No scores are sorted: a cut's border is found by bisection.
 *
 * Called through ctypes by draws.py; the structures here and there must agree.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "thread_pool.h"

#define SPARE 16 /* numbers behind a list that a whole vector may write */

struct draw {
    const float *logits; /* (vocab) */
    uint8_t *seen; /* (vocab), the tokens that are penalised: read, and brought up to date */
    float temperature;
    int64_t top_k; /* at least 1; vocab: none */
    double cut_mass; /* the unlikeliest tokens whose probabilities sum to at most this are ruled out; negative: none */
    float penalty;
    double log_min_p; /* tokens whose score is this far below the greatest are ruled out; -inf: none */
    int32_t greedy, first; /* whether the likeliest is taken; whether nothing was drawn yet */
    double number; /* in [0, 1) */
    int64_t token; /* the result; -1 if the logits are not finite */
};

struct draws {
    struct draw *draws;
    int64_t count, vocab, start_mark, work_bytes;
    int32_t guided; /* penalty, temperature, min_p, cut; else temperature, cut, penalty */
};

/* The tokens that are left of a row, in order, and memory for what is computed of them. */
struct left {
    float *scores;
    int32_t *tokens;
    long count;
    float *candidates; /* the scores that top-k keeps */
    double *shares;
};

static long list_size(long vocab) { return (vocab + SPARE + 15) / 16 * 16; }

/* The bytes of work that a thread needs. */
long mynah_draws_bytes(long vocab) { return list_size(vocab) * (2 * sizeof(float) + sizeof(int32_t) + sizeof(double)); }

static struct left left_in(void *work, long vocab)
{
    const long size = list_size(vocab);
    double *shares = work;
    float *scores = (float *)(shares + size);
    return (struct left){scores, (int32_t *)(scores + 2 * size), vocab, scores + size, shares};
}

#define KERNEL "draws_kernel.h"
#include "multi_isa.h"

static const struct arithmetic {
    int simd_width;
    void (*row)(const struct draws *, struct draw *, void *);
} arithmetics[] = {
    {4, row_plain},
#if defined(__x86_64__)
    {8, row_avx2},
    {16, row_avx512},
#endif
};

struct call {
    const struct arithmetic *arithmetic;
    const struct draws *draws;
    char *work;
};

static void piece(void *argument, long phase, long piece, int thread)
{
    (void)phase;
    const struct call *call = argument;
    call->arithmetic->row(call->draws, call->draws->draws + piece, call->work + thread * call->draws->work_bytes);
}

/* `work`: work_bytes for each thread of the pool, aligned as float64. */
void mynah_draws(struct thread_pool *pool, int simd_width, const struct draws *draws, void *work)
{
    const struct arithmetic *arithmetic = arithmetics;
    while (arithmetic->simd_width != simd_width) arithmetic++;
    struct call call = {arithmetic, draws, work};
    parallel_for(pool, &(struct job){piece, &call, 1, draws->count});
}
