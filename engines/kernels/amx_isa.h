/* Compiles KERNEL for AMX, with the suffix amx, where the compiler knows it; HAS_AMX says so. */
#if defined(__x86_64__) && __GNUC__ >= 12
#define HAS_AMX
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma,f16c,avx512bf16,amx-tile,amx-bf16")
#define NAME(x) x##_amx
#define LANES 16
#define ROWS 14
#include KERNEL
#pragma GCC pop_options
#endif
#undef KERNEL
