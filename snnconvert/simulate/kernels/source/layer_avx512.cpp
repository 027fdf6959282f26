// The kernels for x86-64 with AVX-512 (with VBMI2, which packs the indices of set lanes).
#if defined(__x86_64__)
#include "layer_standard.h"
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi,bmi2,popcnt"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi,bmi2,popcnt,prefer-vector-width=512")
#endif
#define SNN_KERNELS kAvx512
#define SNN_AVX512 1
#include "layer_kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
