/* The arithmetic of a dense layer on AMX. Depth and outputs are multiples of 32. */
#include "vectors.h"
#include "amx.h"

/* A chunk's blocks first .. last of 16 rows as left pairs. */
static void NAME(put_rows)(const struct call *call, long chunk, long first, long last)
{
    const struct dense *dense = call->dense;
    for (long i = first; i < last; i++) {
        long row = (chunk * call->chunk_blocks + i) * TILE_ROWS;
        NAME(put_left)(dense->x + row * dense->depth, NAME(least)(dense->rows - row, TILE_ROWS), dense->depth,
                       call->left + i * TILE_ROWS * dense->depth);
    }
}

/* 32 outputs of a block of 16 rows, of which the first is `row`. */
INLINE void NAME(put_outputs)(const struct dense *dense, long row, long channel, const float *products)
{
    for (long i = 0; i < NAME(least)(dense->rows - row, TILE_ROWS); i++)
        for (long c = 0; c < PANEL; c += LANES)
            NAME(store)(dense->out + (row + i) * dense->outputs + channel + c,
                        NAME(load)(products + i * PANEL + c) + NAME(load)(dense->bias + channel + c));
}

#define USE(channel, index, products) NAME(put_outputs)(dense, first_row + (index) * TILE_ROWS, channel, products)

/* All rows of a chunk times panels first .. last. */
static void NAME(multiply_rows_of)(const struct call *call, long chunk, long first, long last)
{
    const struct dense *dense = call->dense;
    const long first_row = chunk * call->chunk_blocks * TILE_ROWS, blocks = blocks_of(call, chunk);
    if (first == last) return;
    NAME(begin_tiles)();
    FOR_PRODUCTS(call->left, dense->depth, blocks, (const float *)dense->weights, first, last, USE);
    NAME(end_tiles)();
}

#undef USE
#include "isa_undef.h"
