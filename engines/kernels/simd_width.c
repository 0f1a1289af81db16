/* Detects which of the instruction sets of multi_isa.h and amx_isa.h this CPU has. */
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Returns the number of floats in the longest vector of this CPU. */
int mynah_simd_width(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return 16;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) return 8;
#endif
    return 4;
}

/* Returns whether there is AMX for bfloat16, and asks the system to let this process use it. The system refuses where
 * it does not save tiles, or where a thread's stack for signals is too small for them. */
int mynah_amx(void)
{
#if defined(__x86_64__) && defined(__linux__) && __GNUC__ >= 12
    const unsigned tiles = 1u << 24, bfloat16_products = 1u << 22, bfloat16_vectors = 1u << 5;
    const int request_permission = 0x1023, tile_data = 18; /* of arch_prctl */
    unsigned a, b, c, d;
    if (mynah_simd_width() < 16 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((d & tiles) == 0 || (d & bfloat16_products) == 0) return 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a & bfloat16_vectors) == 0) return 0;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return 0;
#endif
}
