// Vectors of 16 floats, whatever the processor's registers.

namespace snn {
namespace {

// not std::min and std::max: a linker may take one instruction set's copy of a shared template for all
template <class T>
inline T smaller(T a, T b) {
    return b < a ? b : a;
}

template <class T>
inline T larger(T a, T b) {
    return a < b ? b : a;
}

// GCC leaves functions alone that it finds large, and their constants with them
#define SNN_INLINE inline __attribute__((always_inline))
// and it spills the registers of inner loops that it finds in large functions
#define SNN_APART __attribute__((noinline))
#if defined(__clang__)
#define SNN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SNN_UNROLL _Pragma("GCC unroll 16")
#endif

// 16 floats, in one, two or four registers
typedef float Vector __attribute__((vector_size(64), aligned(4), may_alias));

inline Vector load(const float* from) {
    Vector value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline void store(float* to, const Vector& value, int64_t valid) {
    if (valid >= 16) {
        std::memcpy(to, &value, sizeof value);
    } else {
        std::memcpy(to, &value, sizeof(float) * static_cast<size_t>(valid));
    }
}

// 16 spikes as floats
inline Vector widen(const int8_t* spikes) {
#if defined(SNN_AVX512)
    __m128i bytes;
    std::memcpy(&bytes, spikes, sizeof bytes);
    return reinterpret_cast<Vector>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
#else
    Vector value;
    for (int lane = 0; lane < 16; lane++) value[lane] = static_cast<float>(spikes[lane]);
    return value;
#endif
}

// 16 values where bits are set, else 0
inline Vector where_set(const int8_t* bits, const Vector& values) {
    uint16_t set;
    std::memcpy(&set, bits, sizeof set);
#if defined(SNN_AVX512)
    return reinterpret_cast<Vector>(_mm512_maskz_mov_ps(set, reinterpret_cast<__m512>(values)));
#else
    typedef int32_t Lanes32 __attribute__((vector_size(64), aligned(4), may_alias));
    const Lanes32 flags = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    const Lanes32 chosen = ((Lanes32{} + set) & flags) != 0;
    Lanes32 all;
    std::memcpy(&all, &values, sizeof all);
    all &= chosen;
    Vector found;
    std::memcpy(&found, &all, sizeof found);
    return found;
#endif
}

}  // namespace
}  // namespace snn
