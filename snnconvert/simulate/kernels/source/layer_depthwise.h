// Depthwise convolutions: every output channel sees its own input channel.

namespace snn {
namespace {

// Outputs [c, c + 16) of a pixel; `line`: the first input row's channel c.
template <bool Unit, class Sink>
SNN_INLINE void depthwise_channels(const Term& term, const Lines& lines, const Window& columns, const int8_t* line,
                                   int64_t pixel, int64_t at, int64_t c, Sink& sink) {
    const int64_t channels = term.in_c, k_w = term.k_w, across = term.dilation_w * pixel;
    Vector sum = load(term.bias + c);
    for (int64_t y = lines.first; y < lines.last; y++, line += lines.step) {
        const float* weights = term.values + y * k_w * channels + c;
        for (int64_t x = columns.first; x < columns.last; x++) {
            if (Unit)
                sum += where_set(line + x * across, load(weights + x * channels));
            else
                sum += load(weights + x * channels) * widen(line + x * across);
        }
    }
    sink(at + c, c, sum, 16);
}

#if defined(SNN_AVX512)
// The same for 64 channels of spikes that are 0 or 1: weights are added where there is one, which needs no product.
template <class Sink>
SNN_INLINE void depthwise_units(const Term& term, const Lines& lines, const Window& columns, const int8_t* line,
                                int64_t pixel, int64_t at, int64_t c, Sink& sink) {
    const int64_t channels = term.in_c, k_w = term.k_w, across = term.dilation_w * pixel;
    __m512 sum[4];
    SNN_UNROLL
    for (int n = 0; n < 4; n++) sum[n] = _mm512_loadu_ps(term.bias + c + 16 * n);
    for (int64_t y = lines.first; y < lines.last; y++, line += lines.step) {
        const float* weights = term.values + y * k_w * channels + c;
        for (int64_t x = columns.first; x < columns.last; x++) {
            __mmask64 set;
            std::memcpy(&set, line + x * across, sizeof set);
            SNN_UNROLL
            for (int n = 0; n < 4; n++)
                sum[n] = _mm512_mask_add_ps(sum[n], static_cast<__mmask16>(set >> (16 * n)), sum[n],
                                            _mm512_loadu_ps(weights + x * channels + 16 * n));
        }
    }
    SNN_UNROLL
    for (int n = 0; n < 4; n++) sink(at + c + 16 * n, c + 16 * n, reinterpret_cast<Vector>(sum[n]), 16);
}
#endif

template <bool Unit, class Sink>
SNN_INLINE void depthwise_pixel(const Term& term, const Lines& lines, const Window& columns, int64_t pixel, int64_t at,
                                int64_t first, Sink& sink) {
    const int64_t channels = term.in_c;
    const int8_t* start = lines.start + columns.origin * pixel;
    int64_t c = first;
#if defined(SNN_AVX512)
    if (Unit)
        for (; c + 64 <= channels; c += 64) depthwise_units(term, lines, columns, start + c / 8, pixel, at, c, sink);
#endif
    for (; c + 16 <= channels; c += 16)
        depthwise_channels<Unit>(term, lines, columns, start + (Unit ? c / 8 : c), pixel, at, c, sink);
    for (; c < channels; c++) {
        Vector sum = {term.bias[c]};
        const int8_t* line = start + (Unit ? c / 8 : c);
        for (int64_t y = lines.first; y < lines.last; y++, line += lines.step)
            for (int64_t x = columns.first; x < columns.last; x++) {
                const int units = line[x * term.dilation_w * pixel];
                sum[0] += term.values[(y * term.k_w + x) * channels + c] *
                          static_cast<float>(Unit ? units >> (c % 8) & 1 : units);
            }
        sink(at + c, c, sum, 1);
    }
}

#if defined(SNN_AVX512)
// Kernels of 3 x 3 on bits, along an output row of 16 channels: weights stay in registers, a column's spikes are masks
// that are read once for all outputs that see them.
struct DepthwiseRow {
    const uint8_t* line[3];  // the input rows, from channel c on
    unsigned keep[3];        // all ones where the row is inside the image
    __m512 weight[9], bias;
    int64_t pixel, in_w;

    DepthwiseRow(const Term& term, const int8_t* image, int64_t out_y, int64_t c)
        : bias(_mm512_loadu_ps(term.bias + c)), pixel((term.in_c + 7) / 8), in_w(term.in_w) {
        SNN_UNROLL
        for (int ky = 0; ky < 3; ky++) {
            const int64_t y = out_y * term.stride_h - term.pad_h + ky * term.dilation_h;
            const bool inside = y >= 0 && y < term.in_h;
            keep[ky] = inside ? ~0u : 0;
            line[ky] = reinterpret_cast<const uint8_t*>(image) + (inside ? y * in_w * pixel : 0) + c / 8;
        }
        SNN_UNROLL
        for (int k = 0; k < 9; k++) weight[k] = _mm512_loadu_ps(term.values + k * term.in_c + c);
    }

    // adds what an input column sends through one column of the kernel, or through two of them
    SNN_INLINE void add(int64_t x, int kx, __m512& sum) const {
        if (x < 0 || x >= in_w) return;
        SNN_UNROLL
        for (int ky = 0; ky < 3; ky++) {
            const __mmask16 set = spikes(ky, x);
            sum = _mm512_mask_add_ps(sum, set, sum, weight[3 * ky + kx]);
        }
    }

    SNN_INLINE void add(int64_t x, int kx, __m512& sum, int other_kx, __m512& other) const {
        if (x < 0 || x >= in_w) return;
        SNN_UNROLL
        for (int ky = 0; ky < 3; ky++) {
            const __mmask16 set = spikes(ky, x);
            sum = _mm512_mask_add_ps(sum, set, sum, weight[3 * ky + kx]);
            other = _mm512_mask_add_ps(other, set, other, weight[3 * ky + other_kx]);
        }
    }

    SNN_INLINE void add_to_all(int64_t x, __m512* sum) const {
        if (x < 0 || x >= in_w) return;
        SNN_UNROLL
        for (int ky = 0; ky < 3; ky++) {
            const __mmask16 set = spikes(ky, x);
            SNN_UNROLL
            for (int kx = 0; kx < 3; kx++) sum[kx] = _mm512_mask_add_ps(sum[kx], set, sum[kx], weight[3 * ky + kx]);
        }
    }

    SNN_INLINE __mmask16 spikes(int ky, int64_t x) const {
        uint16_t set;
        std::memcpy(&set, line[ky] + x * pixel, sizeof set);
        return static_cast<__mmask16>(set & keep[ky]);
    }
};

inline bool walks_depthwise(const Term& term) {
    return term.unit && term.k_h == 3 && term.k_w == 3 && term.dilation_w == 1 && (term.stride_w == 1 || term.stride_w == 2);
}

template <class Sink>
SNN_APART void walk_depthwise(const Layer& layer, const Term& term, const int8_t* image, int64_t out_y, int64_t at,
                              int64_t c, Sink& out) {
    Sink sink = out;  // copies that no store can change
    const DepthwiseRow row(term, image, out_y, c);
    const Vector limit = sink.limit(c);
    const int64_t out_w = layer.out_w, channels = layer.out_c, pad = term.pad_w;
    const auto send = [&](const __m512& sum) __attribute__((always_inline)) {
        sink(at + c, c, reinterpret_cast<Vector>(sum), 16, limit);
        at += channels;
    };
    if (term.stride_w == 1) {
        __m512 sum[3] = {row.bias, row.bias, row.bias};  // of the outputs right, right - 1 and right - 2
        for (int64_t right = 0; right < out_w + 2; right++) {
            row.add_to_all(right - pad, sum);
            if (right >= 2) send(sum[2]);
            sum[2] = sum[1];
            sum[1] = sum[0];
            sum[0] = row.bias;
        }
    } else {  // every other column is seen by two outputs, the one between by one
        __m512 now = row.bias, next = row.bias;
        row.add(-pad, 0, now);
        for (int64_t x = 1 - pad, end = x + 2 * out_w; x < end; x += 2) {
            row.add(x, 1, now);
            row.add(x + 1, 2, now, 0, next);
            send(now);
            now = next;
            next = row.bias;
        }
    }
    out = sink;
}
#endif

template <bool Unit, class Sink>
SNN_APART void convolve_depthwise(const Layer& layer, const Term& term, const Tile& tile, const int8_t* image,
                                  Sink& out) {
    const int64_t channels = term.in_c, pixel = pixel_bytes(term);
    int64_t walked = 0;  // channels that are done
#if defined(SNN_AVX512)
    if (walks_depthwise(term))
        for (; walked + 16 <= channels; walked += 16)
            for (int64_t y = tile.top; y < tile.bottom; y++)
                walk_depthwise(layer, term, image, y, (y - tile.top) * layer.out_w * channels, walked, out);
    if (walked == channels) return;
#endif
    Sink sink = out;  // a copy that no store can change
    each_pixel(layer, term, tile, image, [&](int64_t, const Lines& lines, const Window& columns, int64_t at) {
        depthwise_pixel<Unit>(term, lines, columns, pixel, at, walked, sink);
    });
    out = sink;
}

}  // namespace
}  // namespace snn
