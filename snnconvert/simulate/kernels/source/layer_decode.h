// From spikes to lists of the weight rows they select.

namespace snn {
namespace {

// Buffers of one work item.
struct Scratch {
    float *v, *current, *threshold, *sent, *extras;
    uint16_t* rows;
    int8_t *values, *units;
    uint8_t *bits, *more_bits;

    Scratch(int64_t n, int64_t reach, int64_t extra, int64_t pixels) {
        const int64_t room = (n + kSlack + 15) / 16 * 16, events = (reach + 2 * kSlack + 63) / 64 * 64;
        const int64_t pixel_room = 2 * (n / 8 + pixels + kSlack) + kSlack;  // two planes, and a pixel begins a byte
        const size_t bytes = static_cast<size_t>(4 * (4 * room + extra + kSlack) + 3 * events + room + 2 * pixel_room + 64);
        memory = std::malloc(bytes);
        if (memory == nullptr) throw std::bad_alloc();
        float* at = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory) + 63) / 64 * 64);
        v = at;
        current = v + room;
        threshold = current + room;
        sent = threshold + room;
        extras = sent + room;
        rows = reinterpret_cast<uint16_t*>(extras + extra + kSlack);
        values = reinterpret_cast<int8_t*>(rows + events);
        units = values + events;
        bits = reinterpret_cast<uint8_t*>(units + room);
        more_bits = bits + pixel_room;
    }
    ~Scratch() { std::free(memory); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    void* memory;
};

struct Events {
    const uint16_t* rows;
    const int8_t* values;
    int64_t count;
};

#if defined(SNN_AVX512)
struct LaneNumbers {
    uint8_t number[64] = {};

    constexpr LaneNumbers() {
        for (int lane = 0; lane < 64; lane++) number[lane] = static_cast<uint8_t>(lane);
    }
};

constexpr LaneNumbers kLanes{};
#else
// for each byte of lane flags the set lanes' numbers, in order
struct LaneTable {
    uint16_t lanes[256][8] = {};
    uint8_t counts[256] = {};

    constexpr LaneTable() {
        for (int flags = 0; flags < 256; flags++) {
            int n = 0;
            for (int lane = 0; lane < 8; lane++)
                if (flags >> lane & 1) lanes[flags][n++] = static_cast<uint16_t>(lane);
            counts[flags] = static_cast<uint8_t>(n);
        }
    }
};

constexpr LaneTable kLanes{};  // made by the compiler: nothing of this file may run unasked at load time

typedef uint16_t Eight __attribute__((vector_size(16)));
#endif

template <bool Unit>
class Decoder {
   public:
    Decoder(uint16_t* rows, int8_t* values) : start_(rows), values_start_(values), end_(rows), values_(values) {}

    int64_t count() const { return end_ - start_; }

    // the non-zero ones of n spikes (of units: bits); the first belongs to weight row `base`
    SNN_INLINE void add(const int8_t* spikes, int64_t n, int64_t base) {
        if (Unit) return add_bits(spikes, n, base);
#if defined(SNN_AVX512)
        for (int64_t i = 0; i < n; i += 64) {
            const __mmask64 valid = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
            const __m512i bytes = _mm512_maskz_loadu_epi8(valid, spikes + i);
            const __mmask64 set = _mm512_test_epi8_mask(bytes, bytes);
            const int64_t count = list(set, base + i);
            _mm512_storeu_si512(values_, _mm512_maskz_compress_epi8(set, bytes));
            values_ += count;
        }
#else
        const uint16_t* before = end_;
        for (int64_t i = 0; i < n; i += 8) {
            uint64_t bytes = 0;
            std::memcpy(&bytes, spikes + i, static_cast<size_t>(n - i >= 8 ? 8 : n - i));
            constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7fULL;
            const uint64_t high = (((bytes & kLow) + kLow) | bytes) & ~kLow;
            list(static_cast<unsigned>(((high >> 7) * 0x0102040810204080ULL) >> 56), base + i);
        }
        for (const uint16_t* row = before; row < end_; row++) *values_++ = spikes[*row - base];
#endif
    }

    // pads the list with the zero row, so that it can be read four at a time
    Events finish(int64_t zero_row) {
        for (int k = 0; k < 4; k++) {
            end_[k] = static_cast<uint16_t>(zero_row);
            if (!Unit) values_[k] = 0;
        }
        return {start_, values_start_, count()};
    }

    // all 64 of these flags; the first belongs to weight row `base`
    SNN_INLINE void add(uint64_t set, int64_t base) {
#if defined(SNN_AVX512)
        list(set, base);
#else
        for (int64_t i = 0; i < 64; i += 8) list(set >> i & 0xff, base + i);
#endif
    }

   private:
    SNN_INLINE void add_bits(const int8_t* bits, int64_t n, int64_t base) {
#if defined(SNN_AVX512)
        for (int64_t i = 0; i < n; i += 64) {
            __mmask64 set;
            std::memcpy(&set, bits + i / 8, sizeof set);
            list(n - i >= 64 ? set : set & ((__mmask64{1} << (n - i)) - 1), base + i);
        }
#else
        for (int64_t i = 0; i < n; i += 8) list(static_cast<uint8_t>(bits[i / 8]), base + i);
#endif
    }

#if defined(SNN_AVX512)
    // the set lanes as rows from `base` on; returns how many
    SNN_INLINE int64_t list(__mmask64 set, int64_t base) {
        const int64_t count = __builtin_popcountll(set);
        const __m512i lanes = _mm512_maskz_compress_epi8(set, _mm512_loadu_si512(kLanes.number));
        const __m512i first = _mm512_set1_epi16(static_cast<int16_t>(base));
        const __m512i rows = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(lanes));
        _mm512_storeu_si512(end_, _mm512_add_epi16(rows, first));
        if (count > 32) {
            const __m512i more = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(lanes, 1));
            _mm512_storeu_si512(end_ + 32, _mm512_add_epi16(more, first));
        }
        end_ += count;
        return count;
    }
#else
    SNN_INLINE void list(unsigned flags, int64_t base) {
        Eight rows;
        std::memcpy(&rows, kLanes.lanes[flags], sizeof rows);
        rows += static_cast<uint16_t>(base);
        std::memcpy(end_, &rows, sizeof rows);
        end_ += kLanes.counts[flags];
    }
#endif

    uint16_t* start_;
    int8_t* values_start_;
    uint16_t* end_;
    int8_t* values_;
};

}  // namespace
}  // namespace snn
