// Vectors of 16 floats or 32 small integers, and flags of 16 lanes, whatever the processor's registers.

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
#if defined(__SANITIZE_ADDRESS__)
#define SNN_INLINE inline  // with checks in every one, inlining all takes the compiler half an hour
#else
#define SNN_INLINE inline __attribute__((always_inline))
#endif
// and it spills the registers of inner loops that it finds in large functions
#define SNN_APART __attribute__((noinline))
#if defined(__clang__)
#define SNN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SNN_UNROLL _Pragma("GCC unroll 16")
#endif

// what lies at `from`, in a vector; and back
template <class V>
SNN_INLINE void read(V& to, const void* from) {
    std::memcpy(&to, from, sizeof to);
}
template <class V>
SNN_INLINE void write(void* to, const V& value) {
    std::memcpy(to, &value, sizeof value);
}

#if defined(SNN_AVX512)

constexpr int64_t kRegister = 64;
constexpr int kVectorsAtOnce = 8;  // that sums may take, so that they stay in registers

typedef float Vector __attribute__((vector_size(64)));
typedef int16_t Shorts __attribute__((vector_size(64)));
typedef __mmask16 Flags;

SNN_INLINE __m512 raw(const Vector& v) { return reinterpret_cast<__m512>(v); }

SNN_INLINE Flags reaches(const Vector& a, const Vector& b) { return _mm512_cmp_ps_mask(raw(a), raw(b), _CMP_GE_OQ); }
SNN_INLINE Flags below(const Vector& a, const Vector& b) { return _mm512_cmp_ps_mask(raw(a), raw(b), _CMP_LT_OQ); }
SNN_INLINE Flags both(Flags a, Flags b) { return static_cast<Flags>(a & b); }
SNN_INLINE Vector added_where(const Flags& set, const Vector& a, const Vector& b) {
    return reinterpret_cast<Vector>(_mm512_mask_add_ps(raw(a), set, raw(a), raw(b)));
}
SNN_INLINE Vector taken_where(const Flags& set, const Vector& a, const Vector& b) {
    return reinterpret_cast<Vector>(_mm512_mask_sub_ps(raw(a), set, raw(a), raw(b)));
}
SNN_INLINE Flags flags_of(uint16_t bits) { return bits; }
SNN_INLINE uint16_t bits_of(const Flags& flags) { return flags; }
SNN_INLINE Vector smaller_of(const Vector& a, const Vector& b) {
    return reinterpret_cast<Vector>(_mm512_min_ps(raw(b), raw(a)));
}
SNN_INLINE Vector larger_of(const Vector& a, const Vector& b) {
    return reinterpret_cast<Vector>(_mm512_max_ps(raw(b), raw(a)));
}
SNN_INLINE Vector whole_below(const Vector& v) {
    return reinterpret_cast<Vector>(_mm512_roundscale_ps(raw(v), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
}
// a * b + c, rounded once
SNN_INLINE Vector product_and(const Vector& a, float b, const Vector& c) {
    return reinterpret_cast<Vector>(_mm512_fmadd_ps(raw(a), _mm512_set1_ps(b), raw(c)));
}

#else

// Two halves: GCC keeps a vector that is wider than a register in memory, and so it does with structures that it copies as
// a whole.
template <class Half>
struct Pair {
    Half low, high;

    SNN_INLINE Pair() : low{}, high{} {}
    SNN_INLINE Pair(const Half& a, const Half& b) : low(a), high(b) {}
    SNN_INLINE Pair(const Pair& b) : low(b.low), high(b.high) {}
    SNN_INLINE Pair& operator=(const Pair& b) {
        low = b.low;
        high = b.high;
        return *this;
    }
    SNN_INLINE Pair operator+(const Pair& b) const { return {low + b.low, high + b.high}; }
    SNN_INLINE Pair operator-(const Pair& b) const { return {low - b.low, high - b.high}; }
    SNN_INLINE Pair operator*(const Pair& b) const { return {low * b.low, high * b.high}; }
    SNN_INLINE Pair operator/(const Pair& b) const { return {low / b.low, high / b.high}; }
    SNN_INLINE Pair operator&(const Pair& b) const { return {low & b.low, high & b.high}; }
    SNN_INLINE Pair operator+(float b) const { return {low + b, high + b}; }
    SNN_INLINE Pair operator*(float b) const { return {low * b, high * b}; }
    SNN_INLINE Pair operator/(float b) const { return {low / b, high / b}; }
    SNN_INLINE Pair operator-() const { return {-low, -high}; }
    SNN_INLINE Pair& operator+=(const Pair& b) {
        low += b.low;
        high += b.high;
        return *this;
    }
    SNN_INLINE Pair& operator-=(const Pair& b) {
        low -= b.low;
        high -= b.high;
        return *this;
    }
};

#if defined(SNN_AVX2)
constexpr int64_t kRegister = 32;
constexpr int kVectorsAtOnce = 4;
#else
constexpr int64_t kRegister = 16;
constexpr int kVectorsAtOnce = 2;
#endif
typedef float Floats __attribute__((vector_size(kRegister)));
typedef int32_t Lanes __attribute__((vector_size(kRegister)));
typedef int16_t SomeShorts __attribute__((vector_size(kRegister)));

#if defined(SNN_AVX2)
typedef Pair<Floats> Vector;
typedef Pair<SomeShorts> Shorts;
typedef Pair<Lanes> Flags;
#else
typedef Pair<Pair<Floats>> Vector;
typedef Pair<Pair<SomeShorts>> Shorts;
typedef Pair<Pair<Lanes>> Flags;
#endif

// of one register; then of two halves
SNN_INLINE Lanes reaches(const Floats& a, const Floats& b) { return a >= b; }
SNN_INLINE Lanes below(const Floats& a, const Floats& b) { return a < b; }
SNN_INLINE Floats kept(const Lanes& set, const Floats& values) { return (Floats)((Lanes)values & set); }
SNN_INLINE Lanes holding(const Lanes& values, const Lanes& flags) { return (values & flags) == flags; }

#if defined(SNN_AVX2)
SNN_INLINE Floats smaller_of(const Floats& a, const Floats& b) { return (Floats)_mm256_min_ps((__m256)b, (__m256)a); }
SNN_INLINE Floats larger_of(const Floats& a, const Floats& b) { return (Floats)_mm256_max_ps((__m256)b, (__m256)a); }
SNN_INLINE Floats whole_below(const Floats& v) { return (Floats)_mm256_floor_ps((__m256)v); }
SNN_INLINE Floats product_and(const Floats& a, float b, const Floats& c) {
    return (Floats)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(b), (__m256)c);
}
SNN_INLINE unsigned bits_of(const Lanes& flags) { return static_cast<unsigned>(_mm256_movemask_ps((__m256)flags)); }
#else
SNN_INLINE Floats smaller_of(const Floats& a, const Floats& b) { return b < a ? b : a; }
SNN_INLINE Floats larger_of(const Floats& a, const Floats& b) { return a < b ? b : a; }
SNN_INLINE Floats whole_below(const Floats& v) {
    Floats found = v;
    for (int lane = 0; lane < 4; lane++) found[lane] = std::floor(v[lane]);
    return found;
}
SNN_INLINE Floats product_and(const Floats& a, float b, const Floats& c) {
    Floats found = c;
    for (int lane = 0; lane < 4; lane++) found[lane] = std::fma(a[lane], b, c[lane]);
    return found;
}
SNN_INLINE unsigned bits_of(const Lanes& flags) {
    const Lanes each = flags & Lanes{1, 2, 4, 8};
    return static_cast<unsigned>((each[0] | each[1]) | (each[2] | each[3]));
}
#endif

#define SNN_OF_HALVES(name)                                                                             \
    template <class Half>                                                                               \
    SNN_INLINE auto name(const Pair<Half>& a, const Pair<Half>& b)->Pair<decltype(name(a.low, b.low))> { \
        return {name(a.low, b.low), name(a.high, b.high)};                                              \
    }
SNN_OF_HALVES(reaches)
SNN_OF_HALVES(below)
SNN_OF_HALVES(holding)
SNN_OF_HALVES(smaller_of)
SNN_OF_HALVES(larger_of)
#undef SNN_OF_HALVES

template <class Set, class Half>
SNN_INLINE Pair<Half> kept(const Pair<Set>& set, const Pair<Half>& values) {
    return {kept(set.low, values.low), kept(set.high, values.high)};
}
template <class Half>
SNN_INLINE Pair<Half> whole_below(const Pair<Half>& v) {
    return {whole_below(v.low), whole_below(v.high)};
}
template <class Half>
SNN_INLINE Pair<Half> product_and(const Pair<Half>& a, float b, const Pair<Half>& c) {
    return {product_and(a.low, b, c.low), product_and(a.high, b, c.high)};
}
template <class Half>
SNN_INLINE unsigned bits_of(const Pair<Half>& flags) {
    return bits_of(flags.low) | bits_of(flags.high) << sizeof(Half) / 4;
}
SNN_INLINE Flags both(const Flags& a, const Flags& b) { return a & b; }
SNN_INLINE Vector added_where(const Flags& set, const Vector& a, const Vector& b) { return a + kept(set, b); }
SNN_INLINE Vector taken_where(const Flags& set, const Vector& a, const Vector& b) { return a - kept(set, b); }
// the same in two halves
template <class Half>
SNN_INLINE void read(Pair<Half>& to, const void* from) {
    read(to.low, from);
    read(to.high, static_cast<const char*>(from) + sizeof(Half));
}
template <class Half>
SNN_INLINE void write(void* to, const Pair<Half>& value) {
    write(to, value.low);
    write(static_cast<char*>(to) + sizeof(Half), value.high);
}

SNN_INLINE Flags flags_of(uint16_t bits) {
    static constexpr int32_t kEach[16] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    int32_t all[16];
    SNN_UNROLL
    for (int lane = 0; lane < 16; lane++) all[lane] = bits;
    Flags given, each;
    read(given, all);
    read(each, kEach);
    return holding(given, each);
}

#endif

SNN_INLINE Vector load(const float* from) {
    Vector value;
    read(value, from);
    return value;
}

// the first of them, and zeros
SNN_INLINE Vector load_some(const float* from, int64_t valid) {
    if (valid >= 16) return load(from);
    float all[16] = {};
    std::memcpy(all, from, sizeof(float) * static_cast<size_t>(valid));
    return load(all);
}

SNN_INLINE Shorts load_shorts(const int16_t* from) {
    Shorts value;
    read(value, from);
    return value;
}

SNN_INLINE void store(float* to, const Vector& value, int64_t valid = 16) {
    if (valid >= 16) return write(to, value);
    float all[16];
    write(all, value);
    std::memcpy(to, all, sizeof(float) * static_cast<size_t>(valid));
}

// 16 flags from where bits lie, and back
SNN_INLINE Flags flags_at(const void* bits) {
    uint16_t set;
    std::memcpy(&set, bits, sizeof set);
    return flags_of(set);
}

SNN_INLINE void store_flags(void* to, const Flags& flags) {
    const auto set = static_cast<uint16_t>(bits_of(flags));
    std::memcpy(to, &set, sizeof set);
}

// 16 spikes as floats
SNN_INLINE Vector widen(const int8_t* spikes) {
#if defined(SNN_AVX512)
    __m128i bytes;
    std::memcpy(&bytes, spikes, sizeof bytes);
    return reinterpret_cast<Vector>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
#elif defined(SNN_AVX2)
    const auto eight = [&](int64_t first) {
        __m128i bytes;
        std::memcpy(&bytes, spikes, sizeof bytes);
        return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(first == 0 ? bytes : _mm_srli_si128(bytes, 8)));
    };
    return {eight(0), eight(8)};
#else
    float each[16];
    for (int lane = 0; lane < 16; lane++) each[lane] = static_cast<float>(spikes[lane]);
    return load(each);
#endif
}

// lanes [16 * half, 16 * half + 16) as floats
SNN_INLINE Vector half_as_floats(const Shorts& sums, int half) {
#if defined(SNN_AVX512)
    const __m512i all = reinterpret_cast<__m512i>(sums);
    const __m256i part = half == 0 ? _mm512_castsi512_si256(all) : _mm512_extracti64x4_epi64(all, 1);
    return reinterpret_cast<Vector>(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(part)));
#elif defined(SNN_AVX2)
    const __m256i all = (__m256i)(half == 0 ? sums.low : sums.high);
    return {(Floats)_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_castsi256_si128(all))),
            (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm256_extracti128_si256(all, 1)))};
#else
    int16_t part[32];
    write(part, sums);
    float each[16];
    for (int lane = 0; lane < 16; lane++) each[lane] = static_cast<float>(part[16 * half + lane]);
    return load(each);
#endif
}

}  // namespace
}  // namespace snn
