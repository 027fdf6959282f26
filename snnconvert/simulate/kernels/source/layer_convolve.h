// Convolutions of spikes, one tile of output rows of one image in one frame.

namespace snn {
namespace {

// bias + sum of the listed weight rows, for N vectors of outputs
template <int N, bool Unit>
inline void gather(const Events& events, const float* weights, int64_t row, const float* bias, float* out,
                   int64_t valid) {
    constexpr int kChains = N == 1 ? 4 : N <= 4 ? 2 : 1;
    Vector sum[kChains][N];
    for (int n = 0; n < N; n++) {
        sum[0][n] = load(bias + 16 * n);
        for (int k = 1; k < kChains; k++) sum[k][n] = Vector{};
    }
    for (int64_t i = 0; i < events.count; i += kChains) {  // the list is padded with the zero row
        for (int k = 0; k < kChains; k++) {
            const float* from = weights + static_cast<int64_t>(events.rows[i + k]) * row;
            if (Unit) {
                for (int n = 0; n < N; n++) sum[k][n] += load(from + 16 * n);
            } else {
                const float value = static_cast<float>(events.values[i + k]);
                for (int n = 0; n < N; n++) sum[k][n] += load(from + 16 * n) * value;
            }
        }
    }
    for (int n = 0; n < N; n++) {
        for (int k = 1; k < kChains; k++) sum[0][n] += sum[k][n];
        if (valid > 16 * n) store(out + 16 * n, sum[0][n], valid - 16 * n);
    }
}

template <bool Unit>
inline void gather_all(const Events& events, const float* weights, int64_t row, const float* bias, float* out,
                       int64_t valid) {
    switch (row) {  // a stride known to the compiler
        case 16: return gather<1, Unit>(events, weights, 16, bias, out, valid);
        case 32: return gather<2, Unit>(events, weights, 32, bias, out, valid);
        case 64: return gather<4, Unit>(events, weights, 64, bias, out, valid);
    }
    int64_t done = 0;
#if defined(SNN_AVX512)
    for (; row - done >= 128; done += 128)
        gather<8, Unit>(events, weights + done, row, bias + done, out + done, valid - done);
#endif
    for (; row - done >= 64; done += 64)
        gather<4, Unit>(events, weights + done, row, bias + done, out + done, valid - done);
    if (row - done >= 32) {
        gather<2, Unit>(events, weights + done, row, bias + done, out + done, valid - done);
        done += 32;
    }
    if (row - done >= 16) gather<1, Unit>(events, weights + done, row, bias + done, out + done, valid - done);
}

// The part of the kernel that lies inside the input at one output position along one axis.
struct Window {
    int64_t first, last, origin;

    Window(int64_t out, int64_t stride, int64_t pad, int64_t kernel, int64_t dilation, int64_t size)
        : first(0), last(kernel), origin(out * stride - pad) {
        while (first < last && origin + first * dilation < 0) first++;
        while (first < last && origin + (last - 1) * dilation >= size) last--;
    }
};

// The input rows that one row of output pixels sees: kernel rows [first, last), `step` apart in memory.
struct Lines {
    int64_t first, last, step;
    const int8_t* start;

    Lines(const Term& term, const int8_t* image, int64_t out_y) {
        const Window rows(out_y, term.stride_h, term.pad_h, term.k_h, term.dilation_h, term.in_h);
        first = rows.first;
        last = rows.last;
        step = term.dilation_h * term.in_w * term.in_c;
        start = image + rows.origin * term.in_w * term.in_c + first * step;
    }
};

// What is the same for all pixels of a convolution.
struct Geometry {
    int64_t inputs, outputs, padded, weight_rows;
    bool runs;     // the pixels of a kernel row lie side by side
    bool tabled;   // sums of all combinations of four inputs are looked up
    int64_t fours;  // groups of four inputs in a kernel row
    const float* table;

    Geometry() = default;
    Geometry(const Term& term, int64_t out_c) {
        inputs = term.in_c / term.groups;
        outputs = out_c / term.groups;
        padded = (outputs + 15) / 16 * 16;
        weight_rows = term.k_h * term.k_w * inputs;
        runs = term.groups == 1 && term.dilation_w == 1;
        fours = (term.k_w * inputs + 3) / 4;
        table = nullptr;
        tabled = false;
#if defined(SNN_AVX512)
        // the table has to stay in the first-level cache
        tabled = runs && term.unit && !term.depthwise && padded == 16 && fours <= 14 && term.k_h * fours <= 40;
#endif
    }

    int64_t table_size(const Term& term) const { return tabled ? term.k_h * fours * 16 * 16 : 0; }

    // (k_h, fours, 16 combinations, 16 outputs)
    void fill(const Term& term, float* to) {
        table = to;
        const int64_t run = term.k_w * inputs;
        for (int64_t y = 0; y < term.k_h; y++)
            for (int64_t four = 0; four < fours; four++)
                for (int flags = 0; flags < 16; flags++, to += 16) {
                    Vector sum = {};
                    for (int64_t lane = 0; lane < 4 && four * 4 + lane < run; lane++)
                        if (flags >> lane & 1) sum += load(term.values + (y * run + four * 4 + lane) * 16);
                    store(to, sum, 16);
                }
    }
};

#if defined(SNN_AVX512)
// the inputs of one kernel row against the table; kFours = 0: known at run time only
template <int kFours>
inline void look_up(const float* table, uint64_t flags, int64_t fours, Vector* sum) {
    const char* from = reinterpret_cast<const char*>(table);
    flags <<= 6;  // 64 bytes to an entry
    if (kFours != 0) {
#pragma GCC unroll 16
        for (int four = 0; four < kFours; four++)
            sum[four % 4] += load(reinterpret_cast<const float*>(from + (flags >> (4 * four) & 0x3c0) + 1024 * four));
    } else {
        for (; fours > 0; fours--, flags >>= 4, from += 1024)
            sum[0] += load(reinterpret_cast<const float*>(from + (flags & 0x3c0)));
    }
}

template <int kFours>
inline void look_up_pixel(const Term& term, const Geometry& geometry, const Lines& lines, const Window& columns,
                          float* out) {
    Vector sum[4] = {load(term.bias), {}, {}, {}};
    const int64_t first = columns.first * geometry.inputs, n = columns.last * geometry.inputs - first;
    const uint64_t valid = (uint64_t{1} << n) - 1;
    const int8_t* line = lines.start + columns.origin * geometry.inputs + first;
    const float* table = geometry.table + lines.first * geometry.fours * 256;
    for (int64_t y = lines.first; y < lines.last; y++, line += lines.step, table += geometry.fours * 256) {
        const __m512i bytes = _mm512_maskz_loadu_epi8(valid, line);
        const uint64_t flags = static_cast<uint64_t>(_mm512_test_epi8_mask(bytes, bytes)) << first;
        look_up<kFours>(table, flags, geometry.fours, sum);
    }
    store(out, (sum[0] + sum[1]) + (sum[2] + sum[3]), geometry.outputs);
}
#endif

template <bool Unit>
inline void convolve_pixel(const Term& term, const Geometry& geometry, const Lines& lines, const Window& columns,
                           Scratch& scratch, float* out) {
    const int64_t inputs = geometry.inputs, padded = geometry.padded, wide = term.k_w * inputs;
    const int64_t first = columns.first * inputs, run = columns.last * inputs - first;
    for (int64_t group = 0; group < term.groups; group++) {
        Decoder<Unit> decoder(scratch);
        const int8_t* line = lines.start + columns.origin * term.in_c + group * inputs;
        for (int64_t y = lines.first; y < lines.last; y++, line += lines.step) {
            if (geometry.runs) {
                decoder.add(line + first, run, y * wide + first);
                continue;
            }
            for (int64_t x = columns.first; x < columns.last; x++)
                decoder.add(line + x * term.dilation_w * term.in_c, inputs, y * wide + x * inputs);
        }
        const Events events = decoder.finish(geometry.weight_rows);
        gather_all<Unit>(events, term.values + group * (geometry.weight_rows + 1) * padded, padded,
                         term.bias + group * padded, out + group * geometry.outputs, geometry.outputs);
    }
}

inline void depthwise_pixel(const Term& term, const Lines& lines, const Window& columns, float* out) {
    const int64_t channels = term.in_c;
    const int8_t* start = lines.start + columns.origin * channels;
    int64_t c = 0;
    for (; c + 16 <= channels; c += 16) {
        Vector sum = load(term.bias + c);
        const int8_t* line = start + c;
        for (int64_t y = lines.first; y < lines.last; y++, line += lines.step) {
            const float* weights = term.values + y * term.k_w * channels + c;
            for (int64_t x = columns.first; x < columns.last; x++)
                sum += load(weights + x * channels) * widen(line + x * term.dilation_w * channels);
        }
        store(out + c, sum, 16);
    }
    for (; c < channels; c++) {
        float sum = term.bias[c];
        const int8_t* line = start + c;
        for (int64_t y = lines.first; y < lines.last; y++, line += lines.step)
            for (int64_t x = columns.first; x < columns.last; x++)
                sum += term.values[(y * term.k_w + x) * channels + c] *
                       static_cast<float>(line[x * term.dilation_w * channels]);
        out[c] = sum;
    }
}

// The output rows of one image that a work item computes.
struct Tile {
    int64_t image, top, bottom, elements;

    Tile(const Layer& layer, int64_t item) {
        const int64_t rows = rows_per_tile(layer.out_w, layer.out_c, layer.out_h);
        const int64_t tiles = (layer.out_h + rows - 1) / rows;
        image = item / tiles;
        top = item % tiles * rows;
        bottom = smaller(top + rows, layer.out_h);
        elements = (bottom - top) * layer.out_w * layer.out_c;
    }

    // index of the tile's first element in (frames * batch, out_h, out_w, out_c)
    int64_t at(const Layer& layer, int64_t frame) const {
        return ((frame * layer.batch + image) * layer.out_h + top) * layer.out_w * layer.out_c;
    }
};

// Calls pixel(lines, columns, out) for every output pixel of the tile.
template <class Pixel>
inline void each_pixel(const Layer& layer, const Term& term, const Tile& tile, const int8_t* image, float* out,
                       const Pixel& pixel) {
    for (int64_t y = tile.top; y < tile.bottom; y++) {
        const Lines lines(term, image, y);
        for (int64_t x = 0; x < layer.out_w; x++, out += layer.out_c)
            pixel(lines, Window(x, term.stride_w, term.pad_w, term.k_w, term.dilation_w, term.in_w), out);
    }
}

inline void convolve(const Layer& layer, const Term& term, const Geometry& geometry, const Tile& tile, int64_t frame,
                     Scratch& scratch, float* out) {
    const int8_t* image = term.spikes + (frame * layer.batch + tile.image) * term.in_h * term.in_w * term.in_c;
    if (frame + 1 < layer.frames) {  // frames are far apart: the processor does not guess the next one
        const int64_t row = term.in_w * term.in_c, next = layer.batch * term.in_h * row;
        const int64_t above = larger<int64_t>(tile.top * term.stride_h - term.pad_h, 0);
        const int64_t reach = (tile.bottom - 1) * term.stride_h - term.pad_h + (term.k_h - 1) * term.dilation_h + 1;
        const int64_t below = smaller(reach, term.in_h);
        for (int64_t i = above * row; i < below * row; i += 64) __builtin_prefetch(image + next + i);
    }
    const auto each = [&](const auto& pixel) { each_pixel(layer, term, tile, image, out, pixel); };
    if (term.depthwise)
        return each([&](const Lines& lines, const Window& columns, float* to) {
            depthwise_pixel(term, lines, columns, to);
        });
#if defined(SNN_AVX512)
    if (geometry.tabled && geometry.fours == 12)
        return each([&](const Lines& lines, const Window& columns, float* to) {
            look_up_pixel<12>(term, geometry, lines, columns, to);
        });
    if (geometry.tabled)
        return each([&](const Lines& lines, const Window& columns, float* to) {
            look_up_pixel<0>(term, geometry, lines, columns, to);
        });
#endif
    if (term.unit)
        return each([&](const Lines& lines, const Window& columns, float* to) {
            convolve_pixel<true>(term, geometry, lines, columns, scratch, to);
        });
    each([&](const Lines& lines, const Window& columns, float* to) {
        convolve_pixel<false>(term, geometry, lines, columns, scratch, to);
    });
}

}  // namespace
}  // namespace snn
