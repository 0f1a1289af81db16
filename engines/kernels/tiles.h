/* What the kernels on AMX (amx.h) and the files that call them share. */
#ifndef MYNAH_TILES
#define MYNAH_TILES
#include <stdint.h>

#define BLOCK_ROWS 16 /* rows that lie together as rows of tiles; the last block may not be full */

/* An array (frames, channels) as two of bfloat16, the upper and lower parts of its numbers, from a frame on. */
struct split {
    uint16_t *upper, *lower;
};

__attribute__((unused)) static long rounded(long count, long to) { return (count + to - 1) / to * to; }

#endif
