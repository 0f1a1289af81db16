/* The end of a kernel for one instruction set: what vectors.h and the kernel were told is free for the next. */
#undef PANEL
#undef vec
#undef bits
#undef INLINE
#undef NAME
#undef LANES
#undef ROWS
