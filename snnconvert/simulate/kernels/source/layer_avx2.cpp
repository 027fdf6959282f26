// The kernels for x86-64 with AVX2.
#if defined(__x86_64__)
#include "layer_standard.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,popcnt")
#endif
#define SNN_KERNELS kAvx2
#define SNN_AVX2 1
#include "layer_kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
