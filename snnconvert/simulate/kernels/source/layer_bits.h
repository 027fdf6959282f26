// Spikes as bits: to bytes and back, and how many there are.

namespace snn {
namespace {

// bytes of one input pixel
inline int64_t pixel_bytes(const Term& term) { return term.unit ? (term.in_c + 7) / 8 : term.in_c; }

// n bits as bytes that are 0 or 1
inline void expand(const void* bits, int64_t n, int8_t* to) {
    const auto* from = static_cast<const uint8_t*>(bits);
#if defined(SNN_AVX512)
    const __m512i one = _mm512_set1_epi8(1);
    for (int64_t i = 0; i < n; i += 64) {
        __mmask64 set;
        std::memcpy(&set, from + i / 8, sizeof set);
        if (n - i >= 64) {
            _mm512_storeu_si512(to + i, _mm512_maskz_mov_epi8(set, one));
        } else {
            _mm512_mask_storeu_epi8(to + i, (__mmask64{1} << (n - i)) - 1, _mm512_maskz_mov_epi8(set, one));
        }
    }
#else
    for (int64_t i = 0; i < n; i += 8) {
        const uint64_t spread = from[i / 8] * 0x0101010101010101ULL & 0x8040201008040201ULL;
        const uint64_t eight = (spread + 0x7f7f7f7f7f7f7f7fULL) >> 7 & 0x0101010101010101ULL;
        std::memcpy(to + i, &eight, n - i >= 8 ? 8 : static_cast<size_t>(n - i));
    }
#endif
}

// n bytes that are 0 or 1 as bits, the last byte filled with zeros
inline void condense(const int8_t* units, int64_t n, void* bits) {
    auto* to = static_cast<uint8_t*>(bits);
#if defined(SNN_AVX512)
    for (int64_t i = 0; i < n; i += 64) {
        const __mmask64 valid = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
        const __m512i bytes = _mm512_maskz_loadu_epi8(valid, units + i);
        const __mmask64 set = _mm512_test_epi8_mask(bytes, bytes);
        std::memcpy(to + i / 8, &set, n - i >= 64 ? 8 : static_cast<size_t>((n - i + 7) / 8));
    }
#else
    for (int64_t i = 0; i < n; i += 8) {
        uint64_t eight = 0;
        std::memcpy(&eight, units + i, n - i >= 8 ? 8 : static_cast<size_t>(n - i));
        to[i / 8] = static_cast<uint8_t>(eight * 0x0102040810204080ULL >> 56);
    }
#endif
}

// the same for pixels, each of which begins a byte
inline void expand_pixels(const void* bits, int64_t pixels, int64_t channels, int8_t* to) {
    if (channels % 8 == 0) return expand(bits, pixels * channels, to);
    const auto* from = static_cast<const uint8_t*>(bits);
    for (int64_t p = 0; p < pixels; p++) expand(from + p * ((channels + 7) / 8), channels, to + p * channels);
}

inline void condense_pixels(const int8_t* units, int64_t pixels, int64_t channels, void* bits) {
    if (channels % 8 == 0) return condense(units, pixels * channels, bits);
    auto* to = static_cast<uint8_t*>(bits);
    for (int64_t p = 0; p < pixels; p++) condense(units + p * channels, channels, to + p * ((channels + 7) / 8));
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
    const int64_t bytes = (bits.channels + 7) / 8;
    expand_pixels(bits.bits + first * bytes, last - first, bits.channels, bits.units + first * bits.channels);
}

void run_condense(const Bits& bits, int64_t first, int64_t last) {
    const int64_t bytes = (bits.channels + 7) / 8;
    condense_pixels(bits.units + first * bits.channels, last - first, bits.channels, bits.bits + first * bytes);
}

}  // namespace
}  // namespace snn
