// Few outputs: the sums of all 16 combinations of four inputs are looked up instead of added.
//
// An input pixel's spikes become offsets into the tables once; every kernel position that sees the pixel reads them.

namespace snn {
namespace {

// Tables (k_h, k_w, fours, 16 combinations, 64 bytes) and the offsets of one tile's inputs, zero where padded. An entry
// holds 16 outputs as floats; or, of integer weights, those of two neighbouring pixels in 16 bits each, as if they were
// one pixel with a kernel that is wider by the stride.
struct Tables {
    const float* sums = nullptr;
    uint16_t* offsets = nullptr;
    int64_t fours = 0, rows = 0, columns = 0, wide = 0;
    bool pairs = false;

    // tables of 1 kB: they have to stay in the first-level cache; at a low density most entries are not read
    static constexpr int64_t kMost = 40, kMostOfPairs = 48;
    static constexpr int64_t kCombinations = 16, kOutputs = 16, kEntries = kCombinations * kOutputs;

    static bool serve(const Term& term, int64_t outputs) {
#if defined(SNN_AVX512)
        return term.unit && term.groups == 1 && !term.depthwise && outputs <= kOutputs && term.k_h * term.k_w > 1 &&
               term.k_h * term.k_w * ((term.in_c + 3) / 4) <= kMost;
#else
        (void)term, (void)outputs;
        return false;
#endif
    }

    Tables() = default;
    Tables(const Term& term, int64_t out_w, int64_t out_rows)
        : fours((term.in_c + 3) / 4),
          rows((out_rows - 1) * term.stride_h + (term.k_h - 1) * term.dilation_h + 1),
          columns((out_w - 1) * term.stride_w + (term.k_w - 1) * term.dilation_w + 1),
          wide(term.k_w) {
        pairs = term.integers != nullptr && term.dilation_w == 1 &&
                term.k_h * (term.k_w + term.stride_w) * fours <= kMostOfPairs;
        if (!pairs) return;
        wide += term.stride_w;
        columns += term.stride_w;  // the last pixel may have no neighbour
    }

    int64_t table_floats(const Term& term) const { return term.k_h * wide * fours * kEntries; }
    int64_t offset_floats() const { return (rows * columns * fours + 16 + 1) / 2; }

    void fill(const Term& term, float* to) {
        offsets = reinterpret_cast<uint16_t*>(to + table_floats(term));
        std::memset(offsets, 0, sizeof(float) * static_cast<size_t>(offset_floats()));
        sums = to;
        for (int64_t position = 0; position < term.k_h * wide; position++)
            for (int64_t c = 0; c < term.in_c; c += 4, to += kEntries) {
                const int64_t inputs = smaller<int64_t>(4, term.in_c - c);
                if (pairs)
                    combine<Shorts>(inputs, to, [&](int64_t i) { return row_of_both(term, position, c + i); });
                else
                    combine<Vector>(inputs, to, [&](int64_t i) {
                        return load(term.values + (position * term.in_c + c + i) * kOutputs);
                    });
            }
    }

    // the sums of all combinations of up to four rows
    template <class Sums, class Row>
    static void combine(int64_t inputs, float* to, const Row& row) {
        Sums entry[kCombinations] = {};
        for (int64_t i = 0; i < inputs; i++) {
            const Sums added = row(i);
            for (int64_t flags = 0; flags < 1 << i; flags++) entry[flags + (1 << i)] = entry[flags] + added;
        }
        std::memcpy(to, entry, sizeof entry);
    }

    // the weights of one input for a pixel and for its right neighbour
    Shorts row_of_both(const Term& term, int64_t position, int64_t c) const {
        int16_t both[2 * kOutputs] = {};
        for (int64_t pixel = 0; pixel < 2; pixel++) {
            const int64_t ky = position / wide, kx = position % wide - pixel * term.stride_w;
            if (kx < 0 || kx >= term.k_w) continue;
            const int16_t* from = term.integers + ((ky * term.k_w + kx) * term.in_c + c) * 2 * kOutputs;
            std::memcpy(both + pixel * kOutputs, from, sizeof(int16_t) * kOutputs);
        }
        return load_shorts(both);
    }
};

#if defined(SNN_AVX512)
constexpr uint64_t kToOffsets = 0x03c003c003c003c0ULL;  // four flags to each 16 bits, times the 64 bytes of an entry

// offsets of the input rows that a tile sees in one frame; `top` is the first, outside the image perhaps
inline void find_offsets(const Term& term, const Tables& tables, const int8_t* image, int64_t top) {
    const int64_t channels = term.in_c, first = larger<int64_t>(0, -top), last = smaller(tables.rows, term.in_h - top);
    const int64_t pixels = smaller(term.in_w, tables.columns - term.pad_w);
    for (int64_t y = first; y < last; y++) {
        const int8_t* line = image + (top + y) * term.in_w * channels;
        uint16_t* to = tables.offsets + (y * tables.columns + term.pad_w) * tables.fours;
        int64_t x = 0;
        if (channels == 16)
            for (; x + 4 <= pixels; x += 4, line += 64, to += 16) {
                const __m512i bytes = _mm512_loadu_si512(line);
                const uint64_t flags = _mm512_test_epi8_mask(bytes, bytes);
                for (int pixel = 0; pixel < 4; pixel++) {
                    const uint64_t four = _pdep_u64(flags >> (16 * pixel), kToOffsets);
                    std::memcpy(to + 4 * pixel, &four, sizeof four);
                }
            }
        for (; x < pixels; x++, line += channels, to += tables.fours)
            for (int64_t c = 0; c < channels; c += 16) {
                const int64_t left = smaller<int64_t>(16, channels - c);
                const __m128i bytes = _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << left) - 1), line + c);
                const uint64_t four = _pdep_u64(_mm_test_epi8_mask(bytes, bytes), kToOffsets);
                std::memcpy(to + c / 4, &four, sizeof four);  // what goes beyond the pixel is zero, or written next
            }
    }
}

// kRun: offsets side by side, 0 if known at run time only
template <int kRun, class Sums>
SNN_INLINE void look_up(const char* table, const uint16_t* offsets, int64_t run, Sums* sum) {
    const auto entry = [&](int64_t i, uint64_t offset) {
        Sums value;
        std::memcpy(&value, table + 1024 * i + offset, sizeof value);
        return value;
    };
    if (kRun != 0) {
#pragma GCC unroll 4
        for (int i = 0; i < kRun; i += 4) {  // one load for four offsets: loads are what there is least of
            uint64_t four;
            std::memcpy(&four, offsets + i, sizeof four);
            sum[0] += entry(i, four & 0xffff);
            sum[1] += entry(i + 1, four >> 16 & 0xffff);
            sum[2] += entry(i + 2, four >> 32 & 0xffff);
            sum[3] += entry(i + 3, four >> 48);
        }
        return;
    }
    for (int64_t i = 0; i < run; i++) sum[i % 2] += entry(i, offsets[i]);
}

// the tables' sum at one place; kRun: offsets of a kernel row of three, 0 if known at run time only
template <int kRun, class Sums>
SNN_INLINE Sums look_up_all(const Term& term, const Tables& tables, const uint16_t* offsets, const Sums& start) {
    Sums sum[4] = {start, {}, {}, {}};
    const char* table = reinterpret_cast<const char*>(tables.sums);
    const int64_t line = term.dilation_h * tables.columns * tables.fours;
    if (kRun != 0) {
#pragma GCC unroll 3
        for (int ky = 0; ky < 3; ky++) look_up<kRun>(table + 1024 * kRun * ky, offsets + ky * line, kRun, sum);
        return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
    const bool whole = term.dilation_w == 1;  // the pixels of a kernel row lie side by side
    const int64_t run = whole ? tables.wide * tables.fours : tables.fours, runs = whole ? 1 : tables.wide;
    for (int64_t ky = 0; ky < term.k_h; ky++, offsets += line)
        for (int64_t kx = 0; kx < runs; kx++, table += 1024 * run)
            look_up<0>(table, offsets + kx * term.dilation_w * tables.fours, run, sum);
    return sum[0] + sum[1];
}

template <int kRun, class Sink>
SNN_APART void look_up_rows(const Layer& layer, const Term& term, const Tables& given, int64_t rows, Sink& out) {
    Sink sink = out;  // copies that no store can change
    const Tables tables = given;
    const int64_t line = term.stride_h * tables.columns * tables.fours, across = term.stride_w * tables.fours;
    const int64_t out_w = layer.out_w, out_c = layer.out_c;
    const Vector bias = load(term.bias);
    int64_t at = 0;
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < out_w; x++, at += out_c)
            sink(at, 0, look_up_all<kRun>(term, tables, tables.offsets + y * line + x * across, bias), out_c);
    out = sink;
}

template <int kRun, class Sink>
SNN_APART void look_up_pairs(const Layer& layer, const Term& term, const Tables& given, int64_t rows, Sink& out) {
    Sink sink = out;
    const Tables tables = given;
    const int64_t line = term.stride_h * tables.columns * tables.fours, across = term.stride_w * tables.fours;
    const int64_t out_w = layer.out_w, out_c = layer.out_c;
    const Vector step = load(term.steps), bias = load(term.steps + 32);
    int64_t at = 0;
    for (int64_t y = 0; y < rows; y++)
        for (int64_t x = 0; x < out_w; x += 2) {
            const Shorts sums = look_up_all<kRun>(term, tables, tables.offsets + y * line + x * across, Shorts{});
            SNN_UNROLL
            for (int pixel = 0; pixel < 2; pixel++, at += out_c) {
                if (x + pixel >= out_w) break;
                sink(at, 0, half_as_floats(sums, pixel) * step + bias, out_c);
            }
        }
    out = sink;
}

template <class Sink>
inline void convolve_by_tables(const Layer& layer, const Term& term, const Tables& tables, const int8_t* image,
                               int64_t top, int64_t bottom, Sink& sink) {
    find_offsets(term, tables, image, top * term.stride_h - term.pad_h);
    const int64_t rows = bottom - top, run = tables.wide * tables.fours;
    const bool plain = term.k_h == 3 && term.dilation_w == 1;
    if (tables.pairs)
        plain && run == 16 ? look_up_pairs<16>(layer, term, tables, rows, sink)
                           : look_up_pairs<0>(layer, term, tables, rows, sink);
    else
        plain && run == 12 ? look_up_rows<12>(layer, term, tables, rows, sink)
                           : look_up_rows<0>(layer, term, tables, rows, sink);
}
#endif

}  // namespace
}  // namespace snn
