// Convolutions of spikes, one tile of output rows of one image in one frame.

namespace snn {
namespace {

// bias + sum of the listed weight rows from output `c` on, for N vectors of outputs
template <int N, bool Unit, class Sink>
inline void gather(const Events& events, const float* weights, int64_t row, const float* bias, int64_t at, int64_t c,
                   int64_t outputs, Sink& sink) {
    constexpr int kChains = N == 1 ? 4 : 2 * N <= kVectorsAtOnce ? 2 : 1;
    Vector sum[kChains][N];
    for (int n = 0; n < N; n++) {
        sum[0][n] = load(bias + c + 16 * n);
        for (int k = 1; k < kChains; k++) sum[k][n] = Vector{};
    }
    for (int64_t i = 0; i < events.count; i += kChains) {  // the list is padded with the zero row
        for (int k = 0; k < kChains; k++) {
            const float* from = weights + static_cast<int64_t>(events.rows[i + k]) * row + c;
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
        const int64_t first = c + 16 * n;
        if (outputs > first) sink(at + first, first, sum[0][n], outputs - first);
    }
}

template <bool Unit, class Sink>
inline void gather_all(const Events& events, const float* weights, int64_t row, const float* bias, int64_t at,
                       int64_t outputs, Sink& sink) {
    switch (row) {  // a stride known to the compiler
        case 16: return gather<1, Unit>(events, weights, 16, bias, at, 0, outputs, sink);
        case 32: return gather<2, Unit>(events, weights, 32, bias, at, 0, outputs, sink);
        case 64: return gather<4, Unit>(events, weights, 64, bias, at, 0, outputs, sink);
    }
    int64_t c = 0;
    if constexpr (kVectorsAtOnce >= 8)
        for (; row - c >= 128; c += 128) gather<8, Unit>(events, weights, row, bias, at, c, outputs, sink);
    for (; row - c >= 64; c += 64) gather<4, Unit>(events, weights, row, bias, at, c, outputs, sink);
    if (row - c >= 32) {
        gather<2, Unit>(events, weights, row, bias, at, c, outputs, sink);
        c += 32;
    }
    if (row - c >= 16) gather<1, Unit>(events, weights, row, bias, at, c, outputs, sink);
}

// What is the same for all pixels of a convolution, and its buffers for one tile.
struct Geometry {
    int64_t inputs, outputs, padded, weight_rows;
    bool runs;  // the pixels of a kernel row lie side by side
    int64_t pixel;  // bytes of an input pixel
    bool tabled, pointwise, by_columns, listed;
    Tables tables;
    Lists lists;
    Columns columns;
    Pointwise points;

    Geometry() = default;
    Geometry(const Layer& layer, const Plan& plan, const Term& term, int64_t width, int64_t top, int64_t bottom) {
        inputs = term.in_c / term.groups;
        outputs = layer.out_c / term.groups;
        padded = (outputs + 15) / 16 * 16;
        weight_rows = term.k_h * term.k_w * inputs;
        pixel = pixel_bytes(term);
        runs = term.groups == 1 && term.dilation_w == 1 && (term.planes == 0 || term.in_c % 8 == 0);
        tabled = plan.tabled;
        pointwise = !tabled && Pointwise::serve(term);
        by_columns = !tabled && Columns::serve(term, bottom - top);
        listed = !tabled && !pointwise && !by_columns && !term.depthwise && Lists::serve(term);
        if (tabled) tables = Tables(layer, plan, term, width, bottom - top);
        if (listed) lists = Lists(term, top, bottom);
        if (pointwise) points = Pointwise(term);
        if (by_columns) columns = Columns(term, top, bottom);
    }

    // floats of memory
    int64_t room(const Term& term) const {
        const int64_t used = tabled       ? tables.floats()
                             : by_columns ? columns.floats(term)
                             : pointwise  ? points.floats()
                             : listed     ? lists.floats(term)
                                          : 0;
        return (used + 15) / 16 * 16;
    }

    void prepare(const Term& term, float* memory) {
        if (tabled) tables.place(memory);
        if (listed) lists.place(memory);
        if (pointwise) points.place(memory);
        if (by_columns) columns.place(term, memory);
    }
};

template <bool Unit, class Sink>
inline void convolve_pixel(const Term& term, const Geometry& geometry, const Lines& lines, const Window& columns,
                           Scratch& scratch, int64_t at, Sink& sink) {
    const int64_t inputs = geometry.inputs, padded = geometry.padded, wide = term.k_w * inputs;
    const int64_t first = columns.first * inputs, run = columns.last * inputs - first;
    for (int64_t group = 0; group < term.groups; group++) {
        Decoder<Unit> decoder(scratch.rows, scratch.values);
        const int8_t* line = lines.start + columns.origin * geometry.pixel + group * (Unit ? inputs / 8 : inputs);
        for (int64_t y = lines.first; y < lines.last; y++, line += lines.step) {
            if (geometry.runs) {
                decoder.add(line + columns.first * geometry.pixel, run, y * wide + first);
                continue;
            }
            for (int64_t x = columns.first; x < columns.last; x++)
                decoder.add(line + x * term.dilation_w * geometry.pixel, inputs, y * wide + x * inputs);
        }
        const Events events = decoder.finish(geometry.weight_rows);
        if (Unit && term.integers != nullptr) return gather_all_shorts(term, events, at, geometry.outputs, sink);
        gather_all<Unit>(events, term.values + group * (geometry.weight_rows + 1) * padded, padded,
                         term.bias + group * padded, at + group * geometry.outputs, geometry.outputs, sink);
    }
}

template <bool Unit, class Sink>
inline void convolve_events(const Layer& layer, const Term& term, const Geometry& geometry, const Tile& tile,
                            const int8_t* image, Scratch& scratch, Sink& sink) {
    if (!geometry.listed)
        return each_pixel(layer, term, tile, image,
                          [&](int64_t, const Lines& lines, const Window& columns, int64_t at) {
                              convolve_pixel<Unit>(term, geometry, lines, columns, scratch, at, sink);
                          });
    geometry.lists.fill<Unit>(term, image);
    each_pixel(layer, term, tile, image, [&](int64_t y, const Lines&, const Window& columns, int64_t at) {
        const Events events = geometry.lists.seen<Unit>(term, y, columns, geometry.weight_rows, scratch);
        if (Unit && term.integers != nullptr) return gather_all_shorts(term, events, at, geometry.outputs, sink);
        gather_all<Unit>(events, term.values, geometry.padded, term.bias, at, geometry.outputs, sink);
    });
}

template <class Sink>
inline void convolve_by_columns(const Layer& layer, const Term& term, const Geometry& geometry, const Tile& tile,
                                const int8_t* image, Sink& sink) {
    constexpr int kMost = kVectorsAtOnce / 2;  // three sums each
    const Columns& columns = geometry.columns;
    const int64_t row = term.integers != nullptr ? (geometry.outputs + 31) / 32 * 32 : geometry.padded;
    columns.fill(term, image);
    int64_t at = 0;
    for (int64_t y = tile.top; y < tile.bottom; y++, at += layer.out_w * layer.out_c) {
        int64_t c = 0;
        if (term.integers != nullptr) {
            switch (row) {  // a stride known to the compiler
                case 32: columns.along<IntegerSums, 1, 32>(layer, term, y, row, at, 0, sink); continue;
                case 64: columns.along<IntegerSums, 2, 64>(layer, term, y, row, at, 0, sink); continue;
            }
            for (; row - c >= 32 * kMost; c += 32 * kMost)
                columns.along<IntegerSums, kMost, 0>(layer, term, y, row, at, c, sink);
            for (; row - c >= 32; c += 32) columns.along<IntegerSums, 1, 0>(layer, term, y, row, at, c, sink);
            continue;
        }
        switch (row) {
            case 16: columns.along<FloatSums, 1, 16>(layer, term, y, row, at, 0, sink); continue;
            case 32: columns.along<FloatSums, 2, 32>(layer, term, y, row, at, 0, sink); continue;
            case 64:
                for (; c < 64; c += 16 * kMost) columns.along<FloatSums, kMost, 64>(layer, term, y, row, at, c, sink);
                continue;
        }
        for (; row - c >= 16 * kMost; c += 16 * kMost)
            columns.along<FloatSums, kMost, 0>(layer, term, y, row, at, c, sink);
        for (; row - c >= 16; c += 16) columns.along<FloatSums, 1, 0>(layer, term, y, row, at, c, sink);
    }
}

template <class Sink>
inline void convolve(const Layer& layer, const Term& term, const Geometry& geometry, const Tile& tile, int64_t frame,
                     Scratch& scratch, Sink& sink) {
    const int64_t row = term.in_w * geometry.pixel;
    const int8_t* image = term.spikes + (frame * layer.batch + tile.image) * term.in_h * row;
    if (frame + 1 < layer.frames) {  // frames are far apart: the processor does not guess the next one
        const int64_t next = layer.batch * term.in_h * row;
        const int64_t above = larger<int64_t>(tile.top * term.stride_h - term.pad_h, 0);
        const int64_t reach = (tile.bottom - 1) * term.stride_h - term.pad_h + (term.k_h - 1) * term.dilation_h + 1;
        const int64_t below = smaller(reach, term.in_h);
        for (int64_t i = above * row; i < below * row; i += 64) __builtin_prefetch(image + next + i);
    }
    if (term.depthwise)
        return term.planes == 0   ? convolve_depthwise<0>(layer, term, tile, image, sink)
               : term.planes == 1 ? convolve_depthwise<1>(layer, term, tile, image, sink)
                                  : convolve_depthwise<2>(layer, term, tile, image, sink);
    if (geometry.tabled)
        return convolve_by_tables(layer, term, geometry.tables, image, tile.first, tile.width, tile.top, tile.bottom, sink);
    if (geometry.pointwise) return geometry.points.convolve(layer, term, image, tile.top, tile.bottom, sink);
    if (geometry.by_columns) return convolve_by_columns(layer, term, geometry, tile, image, sink);
    if (term.planes > 0) return convolve_events<true>(layer, term, geometry, tile, image, scratch, sink);
    convolve_events<false>(layer, term, geometry, tile, image, scratch, sink);
}

}  // namespace
}  // namespace snn
