// Spikes as bits: to bytes and back, and how many there are.

namespace snn {
namespace {

// bytes of one input pixel
inline int64_t pixel_bytes(const Term& term) {
    return term.planes > 0 ? term.planes * bytes_for(term.in_c) : term.in_c;
}

#if !defined(SNN_AVX512)
// eight bits as bytes that are 0 or 1
inline uint64_t spread(uint8_t bits) {
    const uint64_t each = bits * 0x0101010101010101ULL & 0x8040201008040201ULL;
    return (each + 0x7f7f7f7f7f7f7f7fULL) >> 7 & 0x0101010101010101ULL;
}

// bytes that are 0 or 1 as eight bits
inline uint8_t gathered(uint64_t bytes) { return static_cast<uint8_t>(bytes * 0x0102040810204080ULL >> 56); }
#endif

#if defined(SNN_AVX2)
// 32 bits as bytes that are all ones where a bit is set
SNN_INLINE __m256i where_set(const uint8_t* bits) {
    int32_t all;
    std::memcpy(&all, bits, sizeof all);
    const __m256i own = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201ULL));
    const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32(all), own);
    return _mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit);
}
#endif

// n bits as bytes that are 0 or 1; those of a second plane, if there is one, as -1
inline void expand(const uint8_t* bits, const uint8_t* minus, int64_t n, int8_t* to) {
#if defined(SNN_AVX512)
    const __m512i one = _mm512_set1_epi8(1), minus_one = _mm512_set1_epi8(-1);
    for (int64_t i = 0; i < n; i += 64) {
        __mmask64 set, less = 0;
        std::memcpy(&set, bits + i / 8, sizeof set);
        if (minus != nullptr) std::memcpy(&less, minus + i / 8, sizeof less);
        const __m512i bytes = _mm512_mask_mov_epi8(_mm512_maskz_mov_epi8(set, one), less, minus_one);
        if (n - i >= 64) {
            _mm512_storeu_si512(to + i, bytes);
        } else {
            _mm512_mask_storeu_epi8(to + i, (__mmask64{1} << (n - i)) - 1, bytes);
        }
    }
#else
    int64_t i = 0;
#if defined(SNN_AVX2)
    for (; n - i >= 32; i += 32) {
        __m256i bytes = _mm256_and_si256(where_set(bits + i / 8), _mm256_set1_epi8(1));
        if (minus != nullptr) bytes = _mm256_or_si256(bytes, where_set(minus + i / 8));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), bytes);
    }
#endif
    const auto eight_at = [&](int64_t at) {
        const uint64_t less = minus != nullptr ? spread(minus[at / 8]) * 0xff : 0;
        return spread(bits[at / 8]) | less;
    };
    for (; n - i >= 8; i += 8) {
        const uint64_t eight = eight_at(i);
        std::memcpy(to + i, &eight, sizeof eight);
    }
    if (i < n) {
        const uint64_t eight = eight_at(i);
        std::memcpy(to + i, &eight, static_cast<size_t>(n - i));
    }
#endif
}

// n bytes that are 0, 1 or -1 as bits: of those that are 1, and of those that are -1 if asked for; last bytes are filled
// with zeros
inline void condense(const int8_t* units, int64_t n, uint8_t* bits, uint8_t* minus) {
#if defined(SNN_AVX512)
    for (int64_t i = 0; i < n; i += 64) {
        const __mmask64 valid = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
        const __m512i bytes = _mm512_maskz_loadu_epi8(valid, units + i);
        const __mmask64 less = _mm512_movepi8_mask(bytes), set = _mm512_test_epi8_mask(bytes, bytes) & ~less;
        const size_t count = n - i >= 64 ? 8 : static_cast<size_t>(bytes_for(n - i));
        std::memcpy(bits + i / 8, &set, count);
        if (minus != nullptr) std::memcpy(minus + i / 8, &less, count);
    }
#else
    int64_t i = 0;
#if defined(SNN_AVX2)
    for (; n - i >= 32; i += 32) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(units + i));
        const auto less = static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
        const auto silent = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())));
        const uint32_t set = ~(silent | less);
        std::memcpy(bits + i / 8, &set, sizeof set);
        if (minus != nullptr) std::memcpy(minus + i / 8, &less, sizeof less);
    }
#endif
    const auto put = [&](uint64_t eight, int64_t at) {
        const uint64_t less = eight >> 7 & 0x0101010101010101ULL;
        bits[at / 8] = gathered((eight & 0x0101010101010101ULL) ^ less);  // the lowest bit is set in 1 and in -1
        if (minus != nullptr) minus[at / 8] = gathered(less);
    };
    for (; n - i >= 8; i += 8) {
        uint64_t eight;
        std::memcpy(&eight, units + i, sizeof eight);
        put(eight, i);
    }
    if (i < n) {
        uint64_t eight = 0;
        std::memcpy(&eight, units + i, static_cast<size_t>(n - i));
        put(eight, i);
    }
#endif
}

// the same for pixels, each of which has its planes one after the other
inline void expand_pixels(const uint8_t* bits, int64_t pixels, int64_t channels, int64_t planes, int8_t* to) {
    const int64_t plane = bytes_for(channels);
    if (planes == 1 && channels % 8 == 0) return expand(bits, nullptr, pixels * channels, to);
    for (int64_t p = 0; p < pixels; p++, bits += planes * plane, to += channels)
        expand(bits, planes == 2 ? bits + plane : nullptr, channels, to);
}

// n units of at most so many bits as a plane for each of them: of units above zero and, if asked for, of those below
inline void condense_magnitudes(const int8_t* units, int64_t n, int64_t magnitudes, bool below, int64_t plane, uint8_t* bits) {
#if defined(SNN_AVX512)
    for (int64_t i = 0; i < n; i += 64) {
        const __mmask64 valid = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
        const __m512i bytes = _mm512_maskz_loadu_epi8(valid, units + i), size = _mm512_abs_epi8(bytes);
        const __mmask64 less = _mm512_movepi8_mask(bytes);
        const size_t count = n - i >= 64 ? 8 : static_cast<size_t>(bytes_for(n - i));
        for (int64_t k = 0; k < magnitudes; k++) {
            const __mmask64 set = _mm512_test_epi8_mask(size, _mm512_set1_epi8(static_cast<char>(1 << k)));
            const __mmask64 above = set & ~less, under = set & less;
            std::memcpy(bits + k * plane + i / 8, &above, count);
            if (below) std::memcpy(bits + (magnitudes + k) * plane + i / 8, &under, count);
        }
    }
#else
    std::memset(bits, 0, static_cast<size_t>((below ? 2 : 1) * magnitudes * plane));
    for (int64_t i = 0; i < n; i++) {
        const int size = units[i] < 0 ? -units[i] : units[i];
        uint8_t* to = bits + (units[i] < 0 ? magnitudes * plane : 0) + i / 8;
        for (int64_t k = 0; k < magnitudes; k++) to[k * plane] |= static_cast<uint8_t>((size >> k & 1) << i % 8);
    }
#endif
}

inline void condense_pixels(const int8_t* units, int64_t pixels, int64_t channels, int64_t planes, uint8_t* bits) {
    const int64_t plane = bytes_for(channels);
    if (planes == 1 && channels % 8 == 0) return condense(units, pixels * channels, bits, nullptr);
    for (int64_t p = 0; p < pixels; p++, bits += planes * plane, units += channels)
        condense(units, channels, bits, planes == 2 ? bits + plane : nullptr);
}

// how many bits are set in so many bytes
inline int64_t count_bits(const void* bits, int64_t bytes) {
    const auto* from = static_cast<const uint8_t*>(bits);
    int64_t count = 0, i = 0;
    for (; i + 8 <= bytes; i += 8) {
        uint64_t eight;
        std::memcpy(&eight, from + i, sizeof eight);
        count += __builtin_popcountll(eight);
    }
    for (; i < bytes; i++) count += __builtin_popcount(from[i]);
    return count;
}

void run_expand(const Bits& bits, int64_t first, int64_t last) {
    const uint8_t* from = bits.bits + first * bits.planes * bytes_for(bits.channels);
    expand_pixels(from, last - first, bits.channels, bits.planes, bits.units + first * bits.channels);
}

void run_condense(const Bits& bits, int64_t first, int64_t last) {
    uint8_t* to = bits.bits + first * bits.planes * bytes_for(bits.channels);
    const int8_t* units = bits.units + first * bits.channels;
    if (bits.magnitudes == 1) return condense_pixels(units, last - first, bits.channels, bits.planes, to);
    const int64_t plane = bytes_for(bits.channels);
    for (int64_t p = first; p < last; p++, to += bits.planes * plane, units += bits.channels)
        condense_magnitudes(units, bits.channels, bits.magnitudes, bits.planes > bits.magnitudes, plane, to);
}

void run_parts(const Parts& parts, int64_t first, int64_t last) {
    const int64_t channels = parts.channels;
    for (int64_t p = first; p < last; p++) {
        const int8_t* units = parts.units + p * parts.parts * channels;
        const float* factor = parts.factors;
        float* sums = parts.sums + p * channels;
        for (int64_t c = 0; c < channels; c++) sums[c] = static_cast<float>(units[c]) * factor[c];
        for (int64_t k = 1; k < parts.parts; k++) {
            units += channels;
            factor += channels;
            for (int64_t c = 0; c < channels; c++) sums[c] += static_cast<float>(units[c]) * factor[c];
        }
    }
}

}  // namespace
}  // namespace snn
