/* Undefines the macros of one instruction set, so that the next include of a kernel can set them. */
#undef PANEL
#undef vec
#undef bits
#undef INLINE
#undef NAME
#undef LANES
#undef ROWS
#undef VNNI
#undef LOAD_FP16
