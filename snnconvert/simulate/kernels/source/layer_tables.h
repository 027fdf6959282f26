// Few outputs: the sums of all 16 combinations of four inputs are looked up instead of added.
//
// An input pixel's spikes become offsets into the tables once; every kernel position that sees the pixel reads them.

namespace snn {
namespace {

// Tables (k_h, k_w, fours, 16 combinations, 16 outputs) and the offsets of one tile's inputs, zero where padded.
struct Tables {
    const float* sums = nullptr;  // null: this convolution is computed otherwise
    uint16_t* offsets = nullptr;
    int64_t fours = 0, rows = 0, columns = 0;

    static constexpr int64_t kMost = 40;  // tables of 1 kB: they have to stay in the first-level cache
    static constexpr int64_t kCombinations = 16, kOutputs = 16, kEntries = kCombinations * kOutputs;

    static bool serve(const Term& term, int64_t outputs) {
#if defined(SNN_AVX512)
        return term.unit && term.groups == 1 && !term.depthwise && outputs <= kOutputs &&
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
          columns((out_w - 1) * term.stride_w + (term.k_w - 1) * term.dilation_w + 1) {}

    int64_t table_floats(const Term& term) const { return term.k_h * term.k_w * fours * kEntries; }
    int64_t offset_floats() const { return (rows * columns * fours + 16 + 1) / 2; }

    void fill(const Term& term, float* to) {
        offsets = reinterpret_cast<uint16_t*>(to + table_floats(term));
        std::memset(offsets, 0, sizeof(float) * static_cast<size_t>(offset_floats()));
        sums = to;
        for (int64_t position = 0; position < term.k_h * term.k_w; position++)
            for (int64_t four = 0; four < fours; four++)
                for (int flags = 0; flags < kCombinations; flags++, to += kOutputs) {
                    Vector sum = {};
                    for (int64_t c = 4 * four; c < smaller(4 * four + 4, term.in_c); c++)
                        if (flags >> (c - 4 * four) & 1) sum += load(term.values + (position * term.in_c + c) * kOutputs);
                    store(to, sum, 16);
                }
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
template <int kRun>
inline void look_up(const char* table, const uint16_t* offsets, int64_t run, Vector* sum) {
    if (kRun != 0) {
#pragma GCC unroll 16
        for (int i = 0; i < kRun; i++)
            sum[i % 4] += load(reinterpret_cast<const float*>(table + 1024 * i + offsets[i]));
        return;
    }
    for (int64_t i = 0; i < run; i++) sum[i % 2] += load(reinterpret_cast<const float*>(table + 1024 * i + offsets[i]));
}

template <int kRun, class Sink>
inline void look_up_rows(const Layer& layer, const Term& term, const Tables& tables, int64_t rows, Sink& sink) {
    const bool whole = term.dilation_w == 1;  // the pixels of a kernel row lie side by side
    const int64_t run = whole ? term.k_w * tables.fours : tables.fours, runs = whole ? 1 : term.k_w;
    const int64_t line = tables.columns * tables.fours, across = term.dilation_w * tables.fours;
    const Vector bias = load(term.bias);
    int64_t at = 0;
    for (int64_t y = 0; y < rows; y++) {
        const uint16_t* offsets = tables.offsets + y * term.stride_h * line;
        for (int64_t x = 0; x < layer.out_w; x++, offsets += term.stride_w * tables.fours, at += layer.out_c) {
            Vector sum[4] = {bias, {}, {}, {}};
            const char* table = reinterpret_cast<const char*>(tables.sums);
            const uint16_t* from = offsets;
            if (kRun != 0) {
#pragma GCC unroll 3
                for (int ky = 0; ky < 3; ky++)
                    look_up<kRun>(table + 1024 * kRun * ky, from + ky * term.dilation_h * line, kRun, sum);
            } else {
                for (int64_t ky = 0; ky < term.k_h; ky++, from += term.dilation_h * line)
                    for (int64_t kx = 0; kx < runs; kx++, table += 1024 * run)
                        look_up<0>(table, from + kx * across, run, sum);
            }
            sink(at, 0, (sum[0] + sum[1]) + (sum[2] + sum[3]), layer.out_c);
        }
    }
}

template <class Sink>
inline void convolve_by_tables(const Layer& layer, const Term& term, const Tables& tables, const int8_t* image,
                               int64_t top, int64_t bottom, Sink& sink) {
    find_offsets(term, tables, image, top * term.stride_h - term.pad_h);
    if (term.k_h == 3 && term.k_w == 3 && term.dilation_w == 1 && tables.fours == 4)
        look_up_rows<12>(layer, term, tables, bottom - top, sink);
    else
        look_up_rows<0>(layer, term, tables, bottom - top, sink);
}
#endif

}  // namespace
}  // namespace snn
