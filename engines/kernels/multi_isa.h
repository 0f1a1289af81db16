/* Compiles KERNEL once for each instruction set: with the suffix plain, and on x86 with avx2 and avx512. With
 * KERNEL_HAS_VNNI also with avxvnni and avx512vnni, which multiply four pairs of 8 bits in one instruction. */
#define GLUE_(a, b) a##_##b
#define GLUE(a, b) GLUE_(a, b)

#define NAME(x) GLUE(x, plain)
#define LANES 4
#define ROWS 6
#define VNNI 0
#include KERNEL
#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#define NAME(x) GLUE(x, avx2)
#define LANES 8
#define ROWS 6
#define VNNI 0
#include KERNEL
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma,f16c")
#define NAME(x) GLUE(x, avx512)
#define LANES 16
#define ROWS 14
#define VNNI 0
#include KERNEL
#pragma GCC pop_options
#ifdef KERNEL_HAS_VNNI
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,avxvnni")
#define NAME(x) GLUE(x, avxvnni)
#define LANES 8
#define ROWS 6
#define VNNI 1
#include KERNEL
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma,f16c,avx512vnni")
#define NAME(x) GLUE(x, avx512vnni)
#define LANES 16
#define ROWS 14
#define VNNI 1
#include KERNEL
#pragma GCC pop_options
#endif
#endif
#undef KERNEL
